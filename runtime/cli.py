"""The command line: finds the verb in the table, imports it, runs it, and turns an error into a sentence and an exit
code. Nothing is imported that the verb does not need: `terok --help` reads the table only.
"""

from __future__ import annotations

import gc
import os
import sys

from ..supervisor.ground.errors import Exit, TerokError
from .verbs import BY_PATH, Verb, below, roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> int:
    """The program `terok`."""
    return run(sys.argv[1:])


def shield() -> int:
    """The program `terok-shield`: the verbs of `terok shield`, and those of a container's life."""
    return run(sys.argv[1:], prog="terok-shield")


def sandbox() -> int:
    """The program `terok-sandbox`: another name of `terok`."""
    return run(sys.argv[1:], prog="terok-sandbox")


def executor() -> int:
    """The program `terok-executor`: another name of `terok`."""
    return run(sys.argv[1:], prog="terok-executor")


def run(words: Sequence[str], *, prog: str = "terok") -> int:
    """Run one command line and return its exit code.

    Args:
        words: the arguments, without the program's name.
        prog: the program's name.
    """
    try:
        gc.set_threshold(50_000)  # most commands end before a collection frees anything
        code = _run(list(words), prog)
        sys.stdout.flush()
        return code
    except TerokError as error:
        from .kit.env import printable

        print(printable(f"{prog}: {error.what}"), file=sys.stderr)
        if error.fix:
            print(printable(f"  fix: {error.fix}"), file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of the output has left: no traceback from the interpreter's last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        if error.filename is None:
            raise  # the message would not tell what was attempted: a defect
        from .kit.env import printable

        print(printable(f"{prog}: {error.filename}: {error.strerror}."), file=sys.stderr)
        return Exit.FAILURE


def _run(words: list[str], prog: str) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    row, shown, rest = find(words, prog)
    if row is None or not row.target:
        return _help(row, shown, rest)
    from . import parser
    from .kit.env import Env

    command = row.load()
    args = parser.parse(command, rest, shown)
    args.program = prog
    return command(args, Env.from_process(json_output=args.json))


def find(words: list[str], prog: str) -> tuple[Verb | None, str, list[str]]:
    """The verb that a command line begins with.

    Returns:
        its row, or None when the line begins with no verb; the words that lead to it, with the program's name; the
        words that are left.

    Raises:
        TerokError: there is no such verb.
    """
    row: Verb | None = None
    shown, choices = prog, roots(prog)
    while words and not words[0].startswith("-") and (row is None or not row.target):
        if words[0] not in choices:
            raise _no_verb(words[0], shown, list(choices))
        row = BY_PATH[choices[words[0]]]
        shown, words = f"{shown} {words[0]}", words[1:]
        choices = {child.name: child.path for child in below(row.path)}
    if row is not None and row.bare and words[:1] not in (["-h"], ["--help"]):
        row = BY_PATH[row.bare]
    return row, shown, words


def _no_verb(word: str, shown: str, known: list[str]) -> TerokError:
    from .kit.verb import nearest

    meant = nearest(word, known)
    elsewhere = [row.path for row in BY_PATH.values() if row.name == word and row.parent] if " " not in shown else []
    paths = [f"`{shown} {meant}`"] if meant else [f"`terok {path}`" for path in elsewhere]
    return TerokError(
        f"`{shown}` has no verb {word[:60]!r}.", fix=" or ".join(paths) or f"{shown} --help", code=Exit.USAGE
    )


def _help(row: Verb | None, shown: str, rest: list[str]) -> int:
    """What follows is no verb: help, the version, or a mistake."""
    from . import usage

    if rest[:1] == ["--version"] and row is None:
        from .host.release import version

        print(f"{shown} {version()}")
    elif not rest or rest[0] in ("-h", "--help"):
        print(usage.program(shown) if row is None else usage.group(row, shown))
    else:
        from .kit.verb import nearest

        meant = nearest(rest[0], ["--help", *(["--version"] if row is None else [])])
        fix = f"write {meant}" if meant else f"put the verb first: {shown} VERB {rest[0]}"
        raise TerokError(f"`{shown}` has no option {rest[0][:60]}.", fix=fix, code=Exit.USAGE)
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
