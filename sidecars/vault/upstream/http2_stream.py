"""One exchange on an HTTP/2 connection (RFC 9113), in the shape of an HTTP/1.1 connection of its own.

An exchange writes an HTTP/1.1 request and reads an HTTP/1.1 answer, whatever carries them. This file is the
translation, so that guard, usage, audit, limits and retries are the same code for both versions.

Rules of this file:
- nothing of an answer becomes part of an HTTP/1.1 head that could end a line;
- bytes that the exchange has not taken are not acknowledged, so the upstream's window closes;
- no callback runs inside `write`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hpack import NeverIndexedHeaderTuple

from ...kit import bodies, limits
from ...kit.codec import CHUNKED
from ..headers import CLIENT_AUTH

if TYPE_CHECKING:
    from ...kit.dial import Endpoint
    from .http2 import Session
    from .pool import Taker

Pairs = list[tuple[bytes, bytes]]
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_NOT_VALUE = re.compile(rb"[\0\r\n]")
_BODILESS = (b"204", b"304")


class Malformed(Exception):
    """An answer that has no form in HTTP/1.1."""


def request_fields(head: bytes) -> tuple[Pairs, int]:
    """The field section of a request that the exchange wrote, and its body's length or `CHUNKED`.

    Fields that are only for one connection were left out by the exchange (RFC 9113, section 8.2.2).
    """
    first, *lines = head.split(b"\r\n")
    method, target, _ = first.split(b" ")
    authority, length = b"", 0
    fields: Pairs = []
    for line in lines:
        name, _, value = line.partition(b": ")
        name = name.lower()
        if name == b"host":
            authority = value
        elif name == b"transfer-encoding":
            length = CHUNKED
        else:
            if name == b"content-length":
                length = int(value)
            # a credential never enters the compression's table (RFC 7541, section 7.1.3)
            fields.append(NeverIndexedHeaderTuple(name, value) if name in CLIENT_AUTH else (name, value))
    pseudo = [(b":method", method), (b":scheme", b"https"), (b":authority", authority), (b":path", target)]
    return pseudo + fields, length


def answer_head(fields: Iterable[tuple[bytes, bytes]], method: bytes) -> tuple[bytes, bool]:
    """The HTTP/1.1 head of an answer, and whether its body is in chunks. Raises Malformed."""
    status = b""
    lines = []
    counted = False
    for name, value in fields:
        if name == b":status":
            status = value
            continue
        lines.append(_line(name, value))
        counted = counted or name == b"content-length"
    chunked = not (counted or method == b"HEAD" or status in _BODILESS or status[:1] == b"1")
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    return b"HTTP/1.1 %b \r\n%b\r\n" % (status, b"".join(lines)), chunked


def _line(name: bytes, value: bytes) -> bytes:
    if not _NAME.fullmatch(name) or _NOT_VALUE.search(value) or name in (b"connection", b"transfer-encoding"):
        raise Malformed
    return b"%b: %b\r\n" % (name, value)


class Stream:
    """Carries one exchange; to it, this is both the upstream and its wire.

    Attributes:
        taker: whose exchange it is; None when that is over.
        used: whether a loss here says nothing about the request, so that it may be sent again.
        number: the stream's identifier; 0 before anything was sent.
        active: the loop's time of the last byte in either direction.
        out: payload that waits for the upstream's window.
        sent: the request is complete on the wire.
        ended: the answer is complete.
        failure: why the stream is lost.
    """

    __slots__ = (
        "_session", "endpoint", "taker", "used", "number", "active", "out", "queued", "sent", "ended", "failure",
        "_reader", "_method", "_full", "_paused", "_came", "_chunked", "_size", "_done",
    )  # fmt: skip

    def __init__(self, session: Session, endpoint: Endpoint, taker: Taker, *, used: bool) -> None:
        self._session, self.endpoint, self.used = session, endpoint, used
        self.taker: Taker | None = taker
        self.number = 0
        self.active = session.now
        self.out: deque[bytes] = deque()
        self.queued = 0
        self.sent = self.ended = False
        self.failure: OSError | None = None
        self._reader: bodies.Body | None = None
        self._method = b""
        self._full = self._paused = self._chunked = self._done = False
        self._came: list[bytes] = []
        self._size = 0

    def __repr__(self) -> str:
        return f"<Stream {self.number} queued={self.queued} sent={self.sent} ended={self.ended}>"

    @property
    def wire(self) -> Stream:
        """What the exchange writes to."""
        return self

    # --- the exchange's side ---

    @property
    def full(self) -> bool:
        """Whether the producer should pause until `upstream_drained`."""
        return self._full

    @property
    def complete(self) -> bool:
        """Whether the whole request is in `out` or sent."""
        return self._reader is not None and self._reader.done

    def write(self, data: bytes) -> None:
        """Take the next bytes of the request, the head first and whole."""
        if self._done or self.failure is not None or not data:
            return
        self.active = self._session.now
        if self._reader is None:
            head, _, data = data.partition(b"\r\n\r\n")
            self._method = head[: head.index(b" ")]
            fields, length = request_fields(head)
            self._reader = bodies.reader(length)
            payload = self._reader.feed(data) if data else b""
            self._session.open(self, fields, end=self._reader.done and not payload)
        else:
            payload = self._reader.feed(data)
        if payload:
            self.out.append(payload)
            self.queued += len(payload)
        self._session.push(self)
        if self.queued > limits.QUEUE_HIGH:
            self._full = True

    def take(self, size: int) -> bytes:
        """Up to `size` bytes of what waits."""
        piece = self.out.popleft()
        if len(piece) > size:
            self.out.appendleft(piece[size:])
            piece = piece[:size]
        self.queued -= len(piece)
        return piece

    def pause(self) -> None:
        """Acknowledge no more until `resume`: the upstream may send what is left of the window."""
        self._paused = True

    def resume(self) -> None:
        """Let the upstream go on."""
        if self._paused:
            self._paused = False
            self._acknowledge()
            self._session.flush()

    def end(self) -> None:
        """Only a switched protocol ends one side by itself; there is none in HTTP/2."""

    def release(self) -> None:
        """The exchange is over; when the upstream has still to say that it is, let it."""
        self.taker = None
        self._acknowledge()
        if not self.number or (self.sent and self.ended):
            self._finish()
        elif not self.sent:
            self.discard()

    def discard(self) -> None:
        """The exchange is over: tell the upstream to stop, unless both have said everything."""
        self.taker = None
        if self._done:
            return
        reset = self.number and self.failure is None and not (self.sent and self.ended)
        self._acknowledge()
        self._finish()
        if reset:
            self._session.cancel(self.number)

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            self.out.clear()
            self._came.clear()
            self.queued = 0
            self._session.gone(self)

    def _acknowledge(self) -> None:
        if self._size and self.number:
            size, self._size = self._size, 0
            self._session.acknowledge(self.number, size)

    # --- the session's side ---

    def head(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """An answer's head, interim or final."""
        try:
            head, self._chunked = answer_head(fields, self._method)
        except Malformed:
            self.fail(ConnectionAbortedError("an answer that HTTP/1.1 cannot express"))
            self._session.cancel(self.number)
            return
        self._came.append(head)

    def data(self, payload: bytes, size: int) -> None:
        """A piece of the body; `size` counts against the window."""
        self._size += size
        if payload:
            self._came.append(bodies.chunk(payload) if self._chunked else payload)

    def end_of_answer(self, trailers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """The answer is complete."""
        if self.ended:
            return
        self.ended = True
        if self._chunked:
            try:
                lines = [_line(name, value) for name, value in trailers]
            except Malformed:
                lines = []
            self._came.append(b"0\r\n%b\r\n" % b"".join(lines))

    def fail(self, error: OSError, *, again: bool = False) -> None:
        """The stream is lost; `again`: the upstream has not looked at the request."""
        if self.failure is None:
            self.failure = error
            self.used = self.used or again

    def deliver(self) -> None:
        """Hand on what has come."""
        if self._done:
            return
        if self._came:
            self.active = self._session.now
            came = b"".join(self._came)
            self._came.clear()
            if self.taker is not None:
                self.taker.answer(came)
            elif not self.ended:
                self.discard()  # it goes on after the end that it had announced
        if not self._paused:
            self._acknowledge()
        if self._done:
            return
        taker = self.taker
        if self.failure is None and not self.ended:
            return
        if taker is None:
            self._finish()
        else:
            if self.ended and self.failure is None:
                self.failure = ConnectionAbortedError("the answer is shorter than it says")
                self._session.cancel_unsent(self)
            self.taker = None
            self.used = self.used and not self.ended
            taker.upstream_lost(self.failure)
            self._finish()

    def relieved(self) -> None:
        """Some of `out` was sent."""
        if self._full and self.queued <= limits.QUEUE_LOW:
            self._full = False
            if self.taker is not None:
                self.taker.upstream_drained()
