"""One connection of the container, for code that does one thing at a time: requests in, answers out.

A connection has a process of its own, so what handles it may wait. It waits in the loop (`Reactor.wait`), where the
stream sends what is queued meanwhile. Every wait is bounded.
"""

from __future__ import annotations

import zlib
from time import monotonic

from ...kit import answer, bodies
from ...kit.codec import split_head
from ...kit.refusal import Refused
from ...kit.stream import Stream
from .request import HEAD_MAX, Request, read_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ...kit.reactor import Reactor

LINGER_SECONDS, LINGER_MAX = 2.0, 4 << 20
"""How long, and how many bytes, a refused client is read on (RFC 9112, section 9.6)."""
UNPACKED_MAX = 256 << 10
"""Bytes that one piece of a packed body may become at a time."""


class Gone(Exception):
    """The client closed the connection, or nothing moved for too long."""


class Connection:
    """The owner of a client's stream, with what was read ahead of it.

    Args:
        reactor: this process's loop.
        sock: connected and non-blocking; this object owns it.
        idle_seconds: bound of every single wait for the client.
    """

    def __init__(self, reactor: Reactor, sock: socket.socket, *, idle_seconds: float) -> None:
        self.reactor = reactor
        self.stream = Stream(reactor, sock, self)
        self.stream.pause()
        self.idle_seconds = idle_seconds
        self.ahead = b""
        self.answering = False
        """An answer has begun and is not complete."""
        self._ended = False

    # -- the stream's owner: each ends the wait in which it is called --

    def received(self, data: bytes) -> None:
        """Keep what came, and read no more until it is asked for."""
        self.ahead += data
        self.stream.pause()
        self.reactor.stop()

    def ended(self) -> None:
        """The client sends no more."""
        self._ended = True
        self.reactor.stop()

    def lost(self, error: OSError | None) -> None:
        """The connection is gone."""
        self._ended = True
        self.reactor.stop()

    def drained(self) -> None:
        """The client takes bytes again."""
        self.reactor.stop()

    # -- what a handler uses --

    @property
    def readable(self) -> bool:
        """`receive` returns without a wait."""
        return bool(self.ahead) or self._ended

    def receive(self, seconds: float | None = None) -> bytes:
        """What has come; empty at the end of the stream. `seconds` bounds the wait instead of `idle_seconds`.

        Raises:
            Gone: the wait took too long, or the connection broke.
        """
        if not self.readable:
            self.stream.resume()
            self._wait(lambda: self.readable, self.idle_seconds if seconds is None else seconds)
        data, self.ahead = self.ahead, b""
        if not data and self.stream.dead:
            raise Gone("the client closed the connection")
        return data

    def send(self, *parts: bytes) -> None:
        """Send; waits while the client does not take what was sent before.

        Raises:
            Gone: the client takes nothing more.
        """
        self.stream.write(parts[0] if len(parts) == 1 else b"".join(parts))
        self._wait(lambda: not self.stream.full, self.idle_seconds)
        if self.stream.dead:
            raise Gone("the client closed the connection")

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait until `done`, or the connection is gone; longer than `seconds` only while bytes move."""
        deadline = monotonic() + seconds
        while not done() and not self.stream.dead:
            if not self.reactor.wait(deadline - monotonic()):
                deadline = self.stream.active + seconds
                if deadline <= monotonic():
                    raise Gone("nothing moved for too long")

    def close(self) -> None:
        """Close when everything is sent, or is not taken for too long."""
        try:
            self._wait(lambda: not self.stream.queued, self.idle_seconds)
        except Gone:
            pass
        self.stream.abort()

    def linger(self) -> None:
        """Say the end, and read on a bit: a close while the client still sends would reset the answer away."""
        self.stream.end()
        deadline, dropped = monotonic() + LINGER_SECONDS, 0
        try:
            while dropped < LINGER_MAX and (left := deadline - monotonic()) > 0 and (data := self.receive(left)):
                dropped += len(data)
        except Gone:
            pass

    def read_head(self, *, keep_seconds: float, head_seconds: float) -> Request | None:
        """The next request's head; None when the client has no further request.

        Args:
            keep_seconds: how long a connection may stay without its next request.
            head_seconds: from the head's first byte to its last.

        Raises:
            Gone: the client left in the middle or was too slow.
            Refused: the head is malformed or too long.
        """
        try:
            data = self.receive(keep_seconds)
        except Gone:
            return None
        if not data:
            return None
        deadline = monotonic() + head_seconds
        while not (end := split_head(data, HEAD_MAX)):
            if monotonic() > deadline:
                raise Gone("a request's head took too long")
            more = self.receive(max(0.0, deadline - monotonic()))
            if not more:
                raise Gone("the connection ended in a request's head")
            data += more
        self.ahead = data[end:]
        return read_request(data[:end])


class Body:
    """A request's body: unframed and, when the client packed it, unpacked.

    Args:
        connection: where it comes from.
        request: its head.
        limit: bytes, unpacked, that it may have.
    """

    def __init__(self, connection: Connection, request: Request, *, limit: int) -> None:
        self.connection = connection
        self._framing = bodies.reader(request.length)
        self.limit, self._size = limit, 0
        self._continue = request.expects
        coding = request.headers.get("content-encoding", "identity").lower()
        if coding not in ("identity", "gzip", "x-gzip"):
            raise Refused(415, "content-coding", "The only content coding that the gate knows is gzip.")
        # 16 tells zlib to expect gzip's header and trailer
        self._inflate = None if coding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 16)

    @property
    def done(self) -> bool:
        """Nothing more will come."""
        return self._framing.done and not (self._inflate and self._inflate.unconsumed_tail)

    @property
    def ready(self) -> bool:
        """`pull` returns without a wait."""
        return bool(self.connection.readable or self._continue or (self._inflate and self._inflate.unconsumed_tail))

    def pull(self) -> bytes:
        """The next bytes; may be empty before the end, after one wait.

        Raises:
            Gone: the client left before the end.
            Refused: the framing or the packing is broken, or the body is too large.
        """
        if self.done:
            return b""
        if self._inflate and self._inflate.unconsumed_tail:
            return self._count(self._unpack(self._inflate.unconsumed_tail))
        if self._continue:
            self._continue = False
            if not self.connection.ahead:
                self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = self.connection.receive()
        if not data:
            raise Gone("the connection ended in a request's body")
        payload = self._framing.feed(data)
        if self._framing.rest:
            raise Refused(400, "behind-the-body", "Bytes follow the body; git never pipelines requests.")
        return self._count(self._unpack(payload))

    def _unpack(self, data: bytes) -> bytes:
        if self._inflate is None:
            return data
        try:
            plain = self._inflate.decompress(data, UNPACKED_MAX)
        except zlib.error:
            raise Refused(400, "packing", "The body is not gzip, as its head says.") from None
        if self._inflate.unused_data or (self.done and not self._inflate.eof):
            raise Refused(400, "packing", "The packed body is not one whole gzip stream.")
        return plain

    def _count(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self.limit:
            raise Refused(413, "body-size", f"The body has more than {self.limit} bytes.")
        return data

    def drain(self, *, limit: int, seconds: float) -> bool:
        """Read what is left and forget it; False when it is more than `limit` bytes or takes longer."""
        deadline = monotonic() + seconds
        dropped = 0
        try:
            while not self.done:
                dropped += len(self.pull())
                if dropped > limit or monotonic() > deadline:
                    return False
        except (Gone, Refused):
            return False
        return True


class ChunkedAnswer:
    """An answer of unknown length, one chunk a write."""

    def __init__(self, connection: Connection, status: int, fields: dict[str, str]) -> None:
        self._connection = connection
        self._head = answer.head(status, {**fields, "Transfer-Encoding": "chunked"})

    def write(self, data: bytes) -> None:
        """Send `data`; the head goes with the first."""
        if data:
            head, self._head = self._head, b""
            self._connection.answering = True
            self._connection.send(head, b"%x\r\n" % len(data), data, b"\r\n")

    def finish(self) -> None:
        """Send what ends the answer."""
        head, self._head = self._head, b""
        self._connection.send(head + b"0\r\n\r\n")
        self._connection.answering = False
