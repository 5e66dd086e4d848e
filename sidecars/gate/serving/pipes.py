"""Git's three pipes, and the pump between them and a connection."""

from __future__ import annotations

import fcntl
import os
from time import monotonic

from ...kit.reactor import READ, WRITE
from .connection import Gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...kit.reactor import Reactor
    from .connection import Body, Connection

READ_SIZE = 256 << 10
PIPE_SIZE = 1 << 20
STDERR_MAX = 4 << 10


class Pipes:
    """Our ends of a git process's three pipes; the other ends are in `child` until `started`."""

    def __init__(self) -> None:
        in_read, self.stdin = os.pipe2(os.O_CLOEXEC)
        self.stdout, out_write = os.pipe2(os.O_CLOEXEC)
        self.stderr, err_write = os.pipe2(os.O_CLOEXEC)
        self.child = {0: in_read, 1: out_write, 2: err_write}
        for fd in (self.stdin, self.stdout):
            try:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            except OSError:
                pass  # the user's quota of pipe pages is used up; the default size works as well
        os.set_blocking(self.stdin, False)

    def started(self) -> None:
        """Close the child's ends on our side."""
        for fd in self.child.values():
            os.close(fd)
        self.child = {}

    def close(self) -> None:
        """Close what is still open."""
        self.started()
        for name in ("stdin", "stdout", "stderr"):
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
                setattr(self, name, -1)


class Pump:
    """Feeds git with a request's body and passes on what it prints, until it closes its output.

    The work is done between waits and never in the loop's callbacks: to pass on git's output may itself have to wait
    for the client, and a loop cannot run inside its own callback.

    Args:
        connection: the client; its loop is waited in.
        pipes: git's.
        body: what git is fed with behind `first`; None for nothing.
        sink: takes git's output.
        idle: seconds in which nothing moves before the pump gives up.
    """

    def __init__(
        self,
        connection: Connection,
        pipes: Pipes,
        body: Body | None,
        first: bytes,
        sink: Callable[[bytes], None],
        *,
        idle: float,
    ) -> None:
        self._connection, self._pipes, self._body, self._sink, self._idle = connection, pipes, body, sink, idle
        self._pending = memoryview(first)
        self.errors = b""
        """The beginning of what git wrote to stderr."""

    def run(self, seconds: float) -> None:
        """Pump, for `seconds` at most.

        Raises:
            Gone: a bound was reached, or the client left.
            Refused: the body is broken or too large.
        """
        # git may write its answer before it has read the whole body, and blocks until its output is read. So both
        # directions move in one loop, and the body is pulled from the client only as fast as git takes it.
        deadline = monotonic() + seconds
        pipes, body = self._pipes, self._body
        while pipes.stdout >= 0:
            if pipes.stdin >= 0 and not self._pending and (body is None or body.done):
                _close(pipes, "stdin")
            wants_body = body is not None and not body.done and not self._pending and pipes.stdin >= 0
            at_once = wants_body and body is not None and body.ready
            ready = self._wait(0.0 if at_once else min(self._idle, deadline - monotonic()), wants_body=wants_body)
            if body is not None and wants_body and body.ready:
                self._pending = memoryview(body.pull())
            if self._pending and pipes.stdin >= 0:
                self._feed()
            if pipes.stderr in ready:
                self._complain()
            if pipes.stdout in ready:
                data = os.read(pipes.stdout, READ_SIZE)
                if data:
                    self._sink(data)
                else:
                    _close(pipes, "stdout")

    def _wait(self, seconds: float, *, wants_body: bool) -> set[int]:
        """Wait until git or the client has something; the pipes that are ready."""
        pipes, reactor = self._pipes, self._connection.reactor
        wants = {fd: READ for fd in (pipes.stdout, pipes.stderr) if fd >= 0}
        if self._pending and pipes.stdin >= 0:
            wants[pipes.stdin] = WRITE
        if wants_body:
            self._connection.stream.resume()
        ready, in_time = wait_for(reactor, wants, max(0.0, seconds))
        if self._connection.stream.dead:
            raise Gone("the client closed the connection")
        if not in_time and seconds > 0:
            raise Gone("nothing moved for too long")
        return ready

    def _feed(self) -> None:
        try:
            self._pending = self._pending[os.write(self._pipes.stdin, self._pending) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            _close(self._pipes, "stdin")
            self._pending = memoryview(b"")

    def _complain(self) -> None:
        data = os.read(self._pipes.stderr, STDERR_MAX)
        if not data:
            _close(self._pipes, "stderr")
        self.errors = (self.errors + data)[:STDERR_MAX]


def wait_for(reactor: Reactor, wants: dict[int, int], seconds: float) -> tuple[set[int], bool]:
    """Wait until a descriptor is ready, or a callback stops the loop; which are ready, and whether it was in time.

    Watched only for this wait: an end of a pipe that is not read now would end every other wait at once.
    """
    ready: set[int] = set()

    def mark(fd: int) -> Callable[[int], None]:
        def handler(_events: int) -> None:
            ready.add(fd)
            reactor.stop()

        return handler

    for fd, events in wants.items():
        reactor.watch(fd, events, mark(fd))
    try:
        in_time = reactor.wait(seconds)
    finally:
        for fd in wants:
            reactor.forget(fd)
    return ready, in_time


def _close(pipes: Pipes, name: str) -> None:
    os.close(getattr(pipes, name))
    setattr(pipes, name, -1)
