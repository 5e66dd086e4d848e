"""Moves bytes from one socket to another through a kernel pipe (splice(2)), without copying them into this process.

A pipe is held only while bytes are in it: a user may have 16,384 pages in pipes (pipe(7), pipe-user-pages-soft), which
slow receivers of a thousand connections would use up.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable

from ..kit.reactor import Reactor

SIZE = 1 << 20
"""The most that a user's pipe may have. Fewer, longer moves: a seventh less processor time a byte than with 512 KiB."""
LARGE_MAX, SMALL = 32, 128 << 10
"""How many pipes have that size, and the size of all others: half of the user's pages are left for these."""
_FREE_MAX = 4
_RETRY_SECONDS = 0.1
_F_SETPIPE_SZ = 1031
_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE

Pipe = tuple[int, int]
"""Its read and its write end."""


class Pipes:
    """The pipes of this process; when the kernel gives no more, connections wait for one to become free."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._free: list[Pipe] = []
        self._large: set[Pipe] = set()
        self._waiting: deque[Callable[[], None]] = deque()
        self._retrying = False

    def take(self) -> Pipe | None:
        """An empty pipe; None when there is none now (see `wait`)."""
        if self._free:
            return self._free.pop()
        try:
            pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        large = len(self._large) < LARGE_MAX
        try:
            fcntl.fcntl(pipe[1], _F_SETPIPE_SZ, SIZE if large else SMALL)
        except OSError:
            return pipe  # over the user's limit: a smaller one serves too
        if large:
            self._large.add(pipe)
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Give an empty pipe back."""
        if len(self._free) < _FREE_MAX:
            self._free.append(pipe)
        else:
            self.drop(pipe)
        if self._waiting:
            self._reactor.soon(self._waiting.popleft())

    def drop(self, pipe: Pipe) -> None:
        """Close a pipe with whatever is in it."""
        self._large.discard(pipe)
        os.close(pipe[0])
        os.close(pipe[1])

    def wait(self, callback: Callable[[], None]) -> None:
        """Call back when there may be a pipe."""
        self._waiting.append(callback)
        if not self._retrying:
            self._retrying = True
            self._reactor.later(_RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            callback()


def splice(source: int, target: int, count: int) -> int:
    """Move up to `count` bytes; raises BlockingIOError when nothing can be moved now. 0: the source is at its end."""
    return os.splice(source, target, count, flags=_FLAGS)
