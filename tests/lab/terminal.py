"""A pseudo-terminal, and what a person does at one."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab.house import House

ANSWERS = {b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62;c"}
"""What every terminal answers: where the cursor is (DSR), and what it is (DA)."""
SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P_^][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|\s")


class Terminal:
    """A program at a terminal of its own.

    Args:
        house: whose program it is, or its environment.
        argv: program and arguments.
        cwd: its working directory.
        size: lines and columns.
    """

    def __init__(
        self, house: House | dict[str, str], argv: list[str], cwd: Path, size: tuple[int, int] = (24, 80)
    ) -> None:
        near, far = pty.openpty()
        termios.tcsetwinsize(near, size)
        environ = (house if isinstance(house, dict) else house.env) | {"TERM": "xterm"}
        self.process = subprocess.Popen(
            argv, stdin=far, stdout=far, stderr=far, env=environ, cwd=cwd, start_new_session=True
        )
        os.close(far)
        self.fd, self.text = near, ""

    def until(self, word: str, seconds: float = 60) -> str:
        """Everything that was printed, once `word` is in what was printed since the last call."""
        return self._until(lambda new: word in new, word, seconds)

    def until_shown(self, word: str, seconds: float = 60) -> str:
        """The same for a program that draws: blanks do not count, which it may draw by moving the cursor."""
        squeezed = SEQUENCES.sub("", word)
        return self._until(lambda new: squeezed in SEQUENCES.sub("", new), word, seconds)

    def _until(self, seen: Callable[[str], bool], word: str, seconds: float) -> str:
        begin, deadline = len(self.text), time.monotonic() + seconds
        while not seen(self.text[begin:]):
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{word!r} did not appear:\n{self.text}"
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""  # EIO: the other side is closed
            assert data, f"the program ended without {word!r}:\n{self.text}"
            self.text += data.decode(errors="replace")
            for query, answer in ANSWERS.items():
                if query in data:
                    os.write(self.fd, answer)
        return self.text

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self, seconds: float = 30) -> int:
        """Wait for its end; returns the exit code."""
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            os.close(self.fd)
