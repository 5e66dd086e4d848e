"""A pseudo-terminal, and what a person does at one."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from pathlib import Path

from tests.lab.house import House


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
        begin, deadline = len(self.text), time.monotonic() + seconds
        while word not in self.text[begin:]:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{word!r} did not appear:\n{self.text}"
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""  # EIO: the other side is closed
            assert data, f"the program ended without {word!r}:\n{self.text}"
            self.text += data.decode(errors="replace")
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
