"""The keeper of a sidecar's front: forks it, and runs what it asks for, each in a process of its own, until it ends."""

from __future__ import annotations

import os
import signal
import sys

from ....supervisor.ground import kernel, process, sockets
from ..reactor import READ, Reactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from ..context import Context


def fork_front(context: Context, front: Callable[[int], int], *, parent: int) -> tuple[int, int]:
    """Fork the front before the first byte arrives; this process stays the keeper, and SIGTERM ends it in order.

    Args:
        context: its listeners become the front's alone.
        front: serves them; gets its end of the channel.
        parent: this process's pid as the front sees it; 0 from another pid namespace.

    Returns:
        The keeper's end of the channel, and the front's pid.
    """
    ours, theirs = sockets.socketpair()

    def body() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        kernel.die_with_parent(parent, signal.SIGKILL)
        os.close(ours)
        return front(theirs)

    signal.signal(signal.SIGTERM, _leave)
    pid = process.fork(body)
    os.close(theirs)
    for _, listener in context.listeners:
        listener.close()
    return ours, pid


def _leave(number: int, frame: FrameType | None) -> None:
    """End by way of what `main` does last."""
    sys.exit(0)


class Keeper:
    """Runs jobs until the front ends; `_asked` is each sidecar's own.

    Args:
        link: this half's end of the channel.
        front: the front's pid.
    """

    def __init__(self, link: int, front: int) -> None:
        self._link, self._front, self._code = link, front, 0
        self._jobs: dict[int, int] = {}
        self._reactor = Reactor(strict=True)

    def run(self) -> int:
        """Serve jobs; returns the front's exit code (128 + signal when one ended it)."""
        front = process.pidfd(self._front)
        self._reactor.watch(front, READ, self._front_ended)
        self._reactor.watch(self._link, READ, self._asked)
        try:
            self._reactor.run()
        finally:
            os.close(front)
        return self._code

    def _front_ended(self, _events: int) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(self._front, 0)[1])
        self._front, self._code = 0, code if code >= 0 else 128 - code
        self._reactor.stop()

    def _asked(self, _events: int) -> None:
        """The front asks for something over the channel."""
        raise NotImplementedError

    def _begin(self, job: Callable[[], int]) -> None:
        """Run a job in a process of its own."""
        pid = process.fork(job)
        fd = process.pidfd(pid)
        self._jobs[fd] = pid
        self._reactor.watch(fd, READ, lambda _events: self._job_ended(fd))

    def _job_ended(self, fd: int) -> None:
        self._reactor.forget(fd)
        os.waitpid(self._jobs.pop(fd), 0)
        os.close(fd)
