"""The bytes of one connection: requests in, answers out, and the pump between a socket and git's pipes.

Everything here blocks: a connection has a process of its own. Every wait is bounded.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import time
import zlib

from . import http

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_SIZE = 256 << 10
PIPE_SIZE = 1 << 20
STDERR_MAX = 4 << 10


class Gone(Exception):
    """The client closed the connection, or nothing moved for too long."""


class Connection:
    """A client's socket with what was read ahead of it.

    Args:
        sock: connected; this object owns it.
        idle_seconds: bound of every single wait for the client.
    """

    def __init__(self, sock: socket.socket, *, idle_seconds: float) -> None:
        self.sock = sock
        self.idle_seconds = idle_seconds
        self.ahead = b""
        self.answering = False
        """An answer has begun and is not complete."""
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self, seconds: float | None = None) -> bytes:
        """One read; empty at the end of the stream. `seconds` bounds the wait instead of `idle_seconds`.

        Raises:
            Gone: the wait took too long, or the connection broke.
        """
        if self.ahead:
            data, self.ahead = self.ahead, b""
            return data
        self.sock.settimeout(self.idle_seconds if seconds is None else max(seconds, 0.001))
        try:
            return self.sock.recv(READ_SIZE)
        except OSError as error:
            raise Gone(str(error)) from error

    def send(self, *parts: bytes) -> None:
        """Send everything.

        Raises:
            Gone: the client takes nothing more.
        """
        self.sock.settimeout(self.idle_seconds)
        try:
            if len(parts) == 1:
                self.sock.sendall(parts[0])
                return
            sent = self.sock.sendmsg(parts)
            for part in parts:
                if sent < len(part):
                    self.sock.sendall(memoryview(part)[sent:])
                sent = max(0, sent - len(part))
        except OSError as error:
            raise Gone(str(error)) from error

    def read_head(self, *, keep_seconds: float, head_seconds: float) -> http.Request | None:
        """The next request's head; None when the client has no further request.

        Args:
            keep_seconds: how long a connection may stay without its next request.
            head_seconds: from the head's first byte to its last.

        Raises:
            Gone: the client left in the middle or was too slow.
            http.HttpError: the head is malformed or too long.
        """
        try:
            data = self.receive(keep_seconds)
        except Gone:
            return None
        deadline = time.monotonic() + head_seconds
        while data and (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > http.HEAD_MAX:
                raise http.HttpError(431, f"A request's head may have {http.HEAD_MAX} bytes.")
            more = self.receive(deadline - time.monotonic())
            if not more:
                raise Gone("the connection ended in a request's head")
            data += more
        if not data:
            return None
        if end > http.HEAD_MAX:
            raise http.HttpError(431, f"A request's head may have {http.HEAD_MAX} bytes.")
        self.ahead = data[end + 4 :]
        return http.parse_head(data[:end])


class Body:
    """A request's body: unframed and, when the client packed it, unpacked.

    Args:
        connection: where it comes from.
        request: its head.
        limit: bytes, unpacked, that it may have.
    """

    def __init__(self, connection: Connection, request: http.Request, *, limit: int) -> None:
        self._connection = connection
        self._framing = http.framing(request.length)
        self.limit, self._size = limit, 0
        self._continue = request.wants_continue
        coding = request.headers.get("content-encoding", "identity").lower()
        if coding not in ("identity", "gzip", "x-gzip"):
            raise http.HttpError(415, "The only content coding that this server knows is gzip.")
        # 16 tells zlib to expect gzip's header and trailer
        self._inflate = None if coding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 16)

    @property
    def done(self) -> bool:
        """Nothing more will come."""
        return self._framing.done and not (self._inflate and self._inflate.unconsumed_tail)

    @property
    def ready(self) -> bool:
        """`pull` returns without a wait, whatever the socket says."""
        return bool(self._connection.ahead or self._continue or (self._inflate and self._inflate.unconsumed_tail))

    def fileno(self) -> int:
        """The socket's descriptor, for poll(2)."""
        return self._connection.sock.fileno()

    def pull(self) -> bytes:
        """The next bytes; may be empty before the end, after one wait.

        Raises:
            Gone: the client left before the end.
            http.HttpError: the framing or the packing is broken, or the body is too large.
        """
        if self.done:
            return b""
        if self._inflate and self._inflate.unconsumed_tail:
            return self._count(self._unpack(self._inflate.unconsumed_tail))
        if self._continue:
            self._continue = False
            if not self._connection.ahead:
                self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = self._connection.receive()
        if not data:
            raise Gone("the connection ended in a request's body")
        return self._count(self._unpack(self._framing.feed(data)))

    def _unpack(self, data: bytes) -> bytes:
        if self._inflate is None:
            return data
        try:
            plain = self._inflate.decompress(data, READ_SIZE)
        except zlib.error:
            raise http.HttpError(400, "The body is not gzip, as its head says.") from None
        if self._inflate.unused_data or (self.done and not self._inflate.eof):
            raise http.HttpError(400, "The packed body is not one whole gzip stream.")
        return plain

    def _count(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self.limit:
            raise http.HttpError(413, f"The body has more than {self.limit} bytes.")
        return data

    def drain(self, *, limit: int, seconds: float) -> bool:
        """Read what is left and forget it; False when it is more than `limit` bytes or takes longer."""
        deadline = time.monotonic() + seconds
        dropped = 0
        try:
            while not self.done:
                dropped += len(self.pull())
                if dropped > limit or time.monotonic() > deadline:
                    return False
        except (Gone, http.HttpError):
            return False
        return True


class ChunkedAnswer:
    """An answer of unknown length, one chunk a write."""

    def __init__(self, connection: Connection, status: int, fields: dict[str, str]) -> None:
        self._connection = connection
        self._head = http.head(status, {**fields, "Transfer-Encoding": "chunked"})

    def write(self, data: bytes) -> None:
        """Send `data`; the head goes with the first."""
        if data:
            head, self._head = self._head, b""
            self._connection.answering = True
            self._connection.send(b"%s%x\r\n" % (head, len(data)), data, b"\r\n")

    def finish(self) -> None:
        """Send what ends the answer."""
        head, self._head = self._head, b""
        self._connection.send(head + b"0\r\n\r\n")
        self._connection.answering = False


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


def pump(
    pipes: Pipes, body: Body | None, first: bytes, sink: Callable[[bytes], None], *, seconds: float, idle: float
) -> bytes:
    """Feed git with `first` and the rest of `body`, give what it prints to `sink`, until it closes its output.

    Args:
        seconds, idle: bounds of the whole, and of a time in which nothing moves.

    Returns:
        The beginning of what git wrote to stderr.

    Raises:
        Gone: a bound was reached, or the client left.
        http.HttpError: the body is broken or too large.
    """
    deadline = time.monotonic() + seconds
    pending, errors = memoryview(first), b""
    if body is None and not pending:
        _close_stdin(pipes)
    while pipes.stdout >= 0:
        waiting = select.poll()
        waiting.register(pipes.stdout, select.POLLIN)
        if pipes.stderr >= 0:
            waiting.register(pipes.stderr, select.POLLIN)
        reading = body is not None and not body.done and not pending and pipes.stdin >= 0
        if pending and pipes.stdin >= 0:
            waiting.register(pipes.stdin, select.POLLOUT)
        if reading and body is not None:
            waiting.register(body.fileno(), select.POLLIN)
        left = min(idle, deadline - time.monotonic())
        at_once = reading and body is not None and body.ready
        events = dict(waiting.poll(0 if at_once else max(0.0, left) * 1000))
        if not events and not at_once:
            raise Gone("nothing moved for too long")
        if reading and body is not None and (at_once or body.fileno() in events):
            pending = memoryview(body.pull())
        if pending and pipes.stdin >= 0:
            pending = _feed(pipes, pending)
        if not pending and pipes.stdin >= 0 and (body is None or body.done):
            _close_stdin(pipes)
        if pipes.stderr in events:
            errors = _drain_stderr(pipes, errors)
        if pipes.stdout in events:
            data = os.read(pipes.stdout, READ_SIZE)
            if data:
                sink(data)
            else:
                os.close(pipes.stdout)
                pipes.stdout = -1
    return errors


def _feed(pipes: Pipes, pending: memoryview) -> memoryview:
    try:
        return pending[os.write(pipes.stdin, pending) :]
    except BlockingIOError:
        return pending
    except BrokenPipeError:
        _close_stdin(pipes)
        return memoryview(b"")


def _close_stdin(pipes: Pipes) -> None:
    os.close(pipes.stdin)
    pipes.stdin = -1


def _drain_stderr(pipes: Pipes, errors: bytes) -> bytes:
    data = os.read(pipes.stderr, STDERR_MAX)
    if not data:
        os.close(pipes.stderr)
        pipes.stderr = -1
    return (errors + data)[:STDERR_MAX]
