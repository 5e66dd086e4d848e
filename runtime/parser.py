"""Parses the words of one verb with argparse, and turns a mistake into a sentence with the line that was meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

from ..supervisor.ground.errors import Exit, TerokError
from .kit.verb import Argument, Command, OneOf, nearest

JSON = Argument(("--json",), {"action": "store_true", "help": "print JSON for programs"}, "")
WIDTH = 100


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are TerokErrors."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        raise TerokError(f"{message[:1].upper()}{message[1:]}.", fix=f"{self.prog} --help", code=Exit.USAGE)


def build(command: Command, prog: str, *, texts: bool = True) -> Parser:
    """The parser of one verb.

    Args:
        command: what the verb's function declares.
        prog: the words that lead to it, with the program's name.
        texts: with description and examples, which only --help shows.
    """
    parser = Parser(
        prog=prog,
        usage=f"{prog} {command.usage}" if command.usage else None,
        description=paragraphs(command.description) if texts else None,
        epilog=_epilog(command) if texts else None,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    add(parser, [*command.arguments, JSON])
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Text as it was laid out, in at most WIDTH columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=WIDTH)


def add(parser: argparse.ArgumentParser, arguments: Iterable[Argument | OneOf]) -> None:
    """Add arguments to a parser; each action remembers what completes it in `values`."""
    for entry in arguments:
        if isinstance(entry, OneOf):
            group = parser.add_mutually_exclusive_group()
            for argument in entry.arguments:
                _mark(group.add_argument(*argument.names, **argument.settings), argument)
        else:
            _mark(parser.add_argument(*entry.names, **entry.settings), entry)


def _mark(action: argparse.Action, argument: Argument) -> None:
    action.values = argument.values  # type: ignore[attr-defined]  # read by pages.py


def paragraphs(docstring: str) -> str:
    """A docstring as paragraphs of at most WIDTH columns."""
    import textwrap

    parts = textwrap.dedent(" " * 4 + docstring).strip().split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH) for part in parts)


def _epilog(command: Command) -> str:
    lines: list[str] = []
    if command.examples:
        lines += ["examples:", *(f"  {example}" for example in command.examples)]
    if command.exits:
        lines += ["exit codes:", *(f"  {code}  {meaning}" for code, meaning in command.exits)]
    return "\n".join(lines)


WORDS = "words"
"""The last argument of a verb that passes words on; everything after `--` belongs to it."""


def parse(command: Command, words: Sequence[str], prog: str) -> argparse.Namespace:
    """The arguments of a verb.

    Raises:
        TerokError: the words are wrong (USAGE); its fix is the line that was probably meant.
    """
    own, rest = _split(words) if command.to_podman else (list(words), None)
    parser = build(command, prog, texts=not {"-h", "--help"}.isdisjoint(own))
    further: list[str] = []
    takes_words = not command.to_podman and any(action.dest == WORDS for action in parser._actions)
    if takes_words:  # argparse would take what follows `--` for unknown once an option stands before it
        own, after = _split(own)
        further = after or []
    known = list(parser._option_string_actions)
    takes_all = any(action.nargs == argparse.REMAINDER for action in parser._actions)
    unknown = [] if takes_all else [word for word in _options(own) if _name(word) not in known]
    if unknown and not (command.to_podman and rest is None and _is_podmans(unknown[0])):
        raise _no_option(unknown[0], known, prog)
    args, extra = parser.parse_known_args(own)
    if extra and command.to_podman and rest is None:
        raise _forgotten_dashes(args.name, own, extra, prog)
    if extra:
        raise TerokError(f"Unexpected argument {extra[0][:60]!r}.", fix=f"{prog} --help", code=Exit.USAGE)
    if command.to_podman:
        args.rest, args.typed = rest, [*prog.split(), *own]
    if takes_words:
        args.words = [*args.words, *further]
    return args


def _split(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The words before the first `--`, and those after it; None when there is none."""
    at = list(words).index("--") if "--" in words else None
    return (list(words), None) if at is None else (list(words[:at]), list(words[at + 1 :]))


def _options(words: Sequence[str]) -> list[str]:
    """The words that are written like an option, up to `--`."""
    before = words[: list(words).index("--")] if "--" in words else words
    return [word for word in before if re.match(r"--?[A-Za-z]", word)]


def _name(word: str) -> str:
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _is_podmans(word: str) -> bool:
    from .host.flags import ALIASES, SHORT, SWITCHES, VALUED

    name = _name(word)
    return name[2:] in SWITCHES | VALUED | ALIASES.keys() if name.startswith("--") else name[1] in SHORT


def _no_option(word: str, known: list[str], prog: str) -> TerokError:
    meant = nearest(_name(word), known)
    fix = f"write {meant}" if meant else f"{prog} --help"
    return TerokError(f"`{prog}` has no option {_name(word)[:60]}.", fix=fix, code=Exit.USAGE)


def _forgotten_dashes(container: str, own: list[str], extra: list[str], prog: str) -> TerokError:
    """The corrected line has unknown words after `--` and everything else before it."""
    import shlex

    kept, pending = [], list(extra)
    for word in own:
        if pending and word == pending[0]:
            pending.pop(0)
        else:
            kept.append(word)
    return TerokError(
        "podman's options, the image and its command must follow `--`.",
        fix=f"{prog} {shlex.join(kept)} -- {shlex.join(extra)}",
        code=Exit.USAGE,
    )
