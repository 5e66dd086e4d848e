"""How a verb is declared: a function, its arguments above it, its description as its docstring.

    @verb(CONTAINER, argument("--force", action="store_true", help="also while it runs"), examples=("terok x box",))
    def x(args: Namespace, env: Env) -> int:
        \"\"\"What --help and the man page say about it.\"\"\"

`runtime/verbs.py` names the function and gives its one line of help. The readers of that table (the parser, the
completion, the man pages) import the module of a verb only when that verb is needed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from dataclasses import dataclass
    from typing import Any

    from .env import Env

    Function = Callable[[Namespace, Env], int]
else:
    from ...supervisor.ground.frozen import dataclass


@dataclass(frozen=True)
class Argument:
    """One argument or option of a verb.

    names: as `add_argument` takes them.
    settings: its keyword arguments.
    values: which names of `runtime/values.py` complete it, or `files` or `directories`; empty for none.
    """

    names: tuple[str, ...]
    settings: dict[str, Any]
    values: str


@dataclass(frozen=True)
class OneOf:
    """Options that exclude each other."""

    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Command:
    """A verb that can be run.

    function: does the work and returns an exit code.
    arguments: what may stand on its command line, besides --help and --json.
    usage: its usage line without the program's name; empty: made from the arguments.
    examples: command lines for --help and the man page.
    exits: exit codes that mean something particular here.
    files: what it reads and writes.
    to_podman: the words after the first `--` are podman's; they arrive as `args.rest`, the line before as `args.typed`.
    """

    function: Function
    arguments: tuple[Argument | OneOf, ...]
    usage: str = ""
    examples: tuple[str, ...] = ()
    exits: tuple[tuple[int, str], ...] = ()
    files: tuple[str, ...] = ()
    to_podman: bool = False

    def __call__(self, args: Namespace, env: Env) -> int:
        """Run it."""
        return self.function(args, env)

    @property
    def description(self) -> str:
        """What it does: the function's docstring."""
        return self.function.__doc__ or ""


def argument(*names: str, values: str = "", **settings: object) -> Argument:
    """An argument or option, with the keyword arguments of `add_argument`."""
    return Argument(names, settings, values)


def one_of(*arguments: Argument) -> OneOf:
    """Options that exclude each other."""
    return OneOf(arguments)


def verb(
    *arguments: Argument | OneOf,
    usage: str = "",
    examples: tuple[str, ...] = (),
    exits: tuple[tuple[int, str], ...] = (),
    files: tuple[str, ...] = (),
    to_podman: bool = False,
) -> Callable[[Function], Command]:
    """Declare the decorated function as a verb; see `Command`."""

    def declare(function: Function) -> Command:
        return Command(function, arguments, usage, examples, exits, files, to_podman)

    return declare


CONTAINER = argument("name", metavar="NAME", help="the container", values="containers")


def scope_option(help: str, *names: str, **settings: object) -> Argument:
    """The option --scope."""
    return argument(*(names or ("--scope",)), metavar="SCOPE", help=help, values="scopes", **settings)


def switch(name: str, help: str, **settings: Any) -> Argument:
    """An option without a value."""
    return argument(name, action="store_true", help=help, **settings)


def comma_separated(words: list[str] | None) -> tuple[str, ...] | None:
    """The names in `a b`, `a,b` or both; None when the option was not given."""
    return None if words is None else tuple(name for word in words for name in word.split(",") if name)


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that a misspelt one most likely means."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1)
    return close[0] if close else None
