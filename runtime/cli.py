"""The command line: finds the verb, imports its module, runs it, and turns an error into a sentence and an exit code.

Each verb's module adds its own parsers (see `verbs`); this module adds what all of them share: `--json`, and the
words after `--` for those verbs that hand them to podman.
"""

from __future__ import annotations

import argparse
import os
import sys

from ..supervisor.ground.errors import Exit, TerokError
from . import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DESCRIPTION = "Run untrusted work in rootless Podman containers that use your credentials without holding one."
EPILOG = """\
exit codes: 0 done; 1 could not be done; 2 wrong usage or configuration; 3 no such container, scope, key or
credential; 4 refused by a policy; 5 a manual step is left; 6 the vault is locked.
'terok VERB --help' explains a verb."""

SHIELD_TOP_LEVEL = frozenset({"run", "prepare", "cleanup", "setup", "uninstall", "status", "doctor", "config"})
"""What `terok-shield` passes to `terok` as it is; every other word is a verb of `terok shield`."""


def main() -> int:
    """The program `terok`."""
    return run(sys.argv[1:])


def shield() -> int:
    """The program `terok-shield`: `terok shield VERB`, and the verbs of a container's life."""
    words = sys.argv[1:]
    top_level = words and (words[0] in SHIELD_TOP_LEVEL or words[0] == "--version")
    return run(words if top_level else ["shield", *words])


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
        prog: the program's name in help texts.
    """
    try:
        code = _run(list(words), prog)
        sys.stdout.flush()
        return code
    except TerokError as error:
        print(f"terok: {error.what}", file=sys.stderr)
        if error.fix:
            print(f"  fix: {error.fix}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader of our output has left: no traceback from the interpreter's last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _run(words: list[str], prog: str) -> int:
    verb = next((word for word in words if not word.startswith("-")), None)
    rest: list[str] | None = None
    if verb in verbs.PASSTHROUGH and "--" in words:
        at = words.index("--")
        words, rest = words[:at], words[at + 1 :]
    args = build_parser(verb, prog=prog).parse_args(words)
    if verb in verbs.PASSTHROUGH:
        args.rest = rest
    from .kit.env import Env

    return int(args.run(args, Env.from_process(json_output=args.json)))


def build_parser(verb: str | None = None, *, prog: str = "terok", everything: bool = False) -> argparse.ArgumentParser:
    """The parser for a command line.

    Args:
        verb: its module is imported and registers; other verbs get one line of help each.
        prog: the program's name.
        everything: import every module (for completion scripts and man pages).
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="VERB", required=True, dest="verb")
    wanted = None if verb is None else verbs.module_of(verb)
    loaded = set(verbs.modules()) if everything else {wanted}
    done: set[str] = set()
    for name, module, line in verbs.VERBS:
        if module not in loaded:
            commands.add_parser(name, help=line, add_help=False)
        elif module not in done:
            done.add(module)
            _import(module).register(commands)
    for each in commands.choices.values():
        add_json(each)
    return parser


def _import(module: str) -> Any:
    from importlib import import_module

    return import_module(f"{__package__}.{module}")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give `parser`'s leaves the option --json, unless they have one of their own."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for each in group.choices.values():
            add_json(each)
    parser.allow_abbrev = False
    if not groups and "--json" not in parser._option_string_actions:
        parser.add_argument("--json", action="store_true", help="print JSON for programs")


class _Version(argparse.Action):
    """--version: the distribution's version, looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .kit.env import version

        print(f"terok {version()}")
        parser.exit(Exit.OK)


if __name__ == "__main__":
    sys.exit(main())
