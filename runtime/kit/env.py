"""What a verb is given: where things are, the configuration, and the two streams (data to stdout, words to stderr)."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from functools import cached_property

from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import outer_uid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TextIO

    from ...supervisor.ground.layout import Layout
    from .config import Config


def _valid(text: str) -> str:
    """The text as valid UTF-8: bytes that are none, in names that a container chose, as `\\xNN`."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _utf8(value: object) -> object:
    """Plain data whose texts are valid UTF-8."""
    if isinstance(value, str):
        return _valid(value)
    if isinstance(value, dict):
        return {_utf8(key): _utf8(part) for key, part in value.items()}
    return [_utf8(part) for part in value] if isinstance(value, list | tuple) else value


class Output:
    """Standard output: one text for people or one JSON document for programs, never both.

    Args:
        json_output: print JSON.
        stream: where to.
    """

    def __init__(self, *, json_output: bool, stream: TextIO) -> None:
        self.json_output, self.stream = json_output, stream

    def emit(self, data: object, text: str) -> None:
        """Print `data` as JSON with --json, else `text` (nothing when it is empty)."""
        if self.json_output:
            self.stream.write(json.dumps(_utf8(data), indent=2, ensure_ascii=False) + "\n")
        elif text:
            self.stream.write(_valid(text if text.endswith("\n") else text + "\n"))

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour of `COLOURS` on a terminal; as it is elsewhere or under NO_COLOR (no-color.org)."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.colours else text

    @property
    def colours(self) -> bool:
        """Whether a person at a terminal reads it, who has not asked for plain text."""
        wanted = not self.json_output and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return wanted and self.stream.isatty()

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80


PROGRESS_SECONDS = 1.0
COLOURS = {"good": "32", "warning": "33", "bad": "31", "dim": "2", "bold": "1"}


class Env:
    """The surroundings of one command.

    Args:
        environ: the operator's environment variables.
        out: standard output.
        messages: where `note` prints.
    """

    def __init__(self, environ: Mapping[str, str], *, out: Output, messages: TextIO) -> None:
        self.environ, self.out, self.messages = environ, out, messages

    @classmethod
    def from_process(cls, *, json_output: bool = False) -> Env:
        """The surroundings of this process. Without HOME, as in some services, it is what the user database says."""
        if not os.environ.get("HOME", "").startswith("/"):
            os.environ["HOME"] = _home()
        return cls(os.environ, out=Output(json_output=json_output, stream=sys.stdout), messages=sys.stderr)

    @cached_property
    def config(self) -> Config:
        """The configuration, read on first use; raises TerokError (Exit.USAGE) when the file is wrong."""
        from .config import load

        return load(self.environ)

    @cached_property
    def layout(self) -> Layout:
        """Where everything is, with what the configuration moved."""
        return self.config.layout

    @contextmanager
    def slow(self, text: str) -> Iterator[None]:
        """Say on a terminal what is being waited for when it takes longer than a second."""
        if not self.messages.isatty():
            yield
            return
        from threading import Timer

        timer = Timer(PROGRESS_SECONDS, self.note, [f"{text} ..."])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def agrees(self, question: str) -> bool:
        """Ask a person at the terminal, on stderr; only a yes is one. Whether there is a terminal is the caller's."""
        print(f"{printable(question)} [y/N] ", end="", file=self.messages, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def note(self, text: str) -> None:
        """Print a message for people to stderr."""
        print(printable(text), file=self.messages, flush=True)


def printable(text: str) -> str:
    """A message may quote a container, a server or a pasted line: no control character reaches the terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _home() -> str:
    import pwd

    try:
        return pwd.getpwuid(outer_uid()).pw_dir
    except KeyError:
        raise TerokError("HOME is not set, and no user database knows your home directory.", fix="set HOME") from None
