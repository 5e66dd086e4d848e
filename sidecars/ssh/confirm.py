"""The operator's word: a pending signature is two files in the container's state bundle.

`ID.json` says what is to be signed; `ID.answer` is a FIFO that `terok ssh confirm` writes `yes` or `no` into. The
signer waits for the FIFO as for any socket, so nothing polls, and no session bus or daemon is needed. Both files are
the operator's alone (0600 in a 0700 directory), and no path of the bundle is visible in the container.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ...supervisor.ground import durable
from ...supervisor.ground.quick import dumps

QUESTIONS_MAX = 8
"""Signatures that wait for one operator; more are refused at once, so that a flood is not confirmed by habit."""

SECONDS = 120.0
"""How long a signature waits; ssh itself gives up after two minutes (sshd's LoginGraceTime)."""

QUESTION, ANSWER = ".json", ".answer"
YES, NO = b"yes\n", b"no\n"


class Pending(NamedTuple):
    """One question on the desk: wait until `fd` is readable, then `read` it."""

    id: str
    fd: int
    deadline: float


class Desk:
    """Where one container's questions lie.

    Args:
        directory: of them alone; what a process left there that has ended is removed.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._count = 0
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name in os.listdir(directory):
            if name.endswith(ANSWER) and not self._is_read(name):
                self._remove(name.removesuffix(ANSWER))

    def _is_read(self, name: str) -> bool:
        """Whether a process still waits at this FIFO: opening it for writing fails otherwise (fifo(7))."""
        try:
            os.close(os.open(f"{self._directory}/{name}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW))
        except OSError:
            return False
        return True

    def _remove(self, name: str) -> None:
        for ending in (QUESTION, ANSWER):
            try:
                os.unlink(f"{self._directory}/{name}{ending}")
            except FileNotFoundError:
                pass

    def ask(self, fields: dict[str, object], now: float) -> Pending:
        """Put a question on the desk.

        Args:
            fields: what the operator is shown; no secrets.
            now: seconds of `time.monotonic`.

        Raises:
            OSError: the files could not be made; the answer is no then.
        """
        self._count += 1
        name = f"{os.getpid()}-{self._count}"
        path = f"{self._directory}/{name}"
        os.mkfifo(path + ANSWER, 0o600)
        # for writing too: otherwise the FIFO is at its end before the operator opens it, and after
        fd = os.open(path + ANSWER, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        document = {"id": name, "asked": round(time.time(), 3), "expires": round(time.time() + SECONDS, 3), **fields}
        durable.replace(path + QUESTION, dumps(document, None) + "\n", durable=False, only_writer=True)
        return Pending(name, fd, now + SECONDS)

    def read(self, pending: Pending) -> bool:
        """Whether the answer that has come is a yes; anything else is a no."""
        try:
            return os.read(pending.fd, 64) == YES
        except OSError:
            return False

    def clear(self, pending: Pending) -> None:
        """Take a question off the desk."""
        os.close(pending.fd)
        self._remove(pending.id)
