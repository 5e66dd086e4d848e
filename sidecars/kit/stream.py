"""One stream socket in the loop, plain or TLS: reads when asked, queues what the peer does not take yet.

Rules of this file:
- nothing here knows HTTP;
- the owner's callbacks never run inside `write`: a failure is reported in the loop's next step;
- after `lost` nothing is called any more.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from typing import Protocol

from . import limits
from .reactor import ERROR, HANGUP, READ, WRITE, Reactor


class Owner(Protocol):
    """What a stream reports to."""

    def received(self, data: bytes) -> None:
        """Bytes have arrived; never empty."""

    def ended(self) -> None:
        """The peer will send no more; writing still works."""

    def lost(self, error: OSError | None) -> None:
        """The connection is gone, closed by us (None) or by an error."""

    def drained(self) -> None:
        """The queue has fallen to `QUEUE_LOW` after it was above `QUEUE_HIGH`."""


class Stream:
    """A connected, non-blocking stream socket.

    Attributes:
        hears_out: when the peer takes no more, what it said before is still read (a server may answer before it has
            read a request to its end, and then reset the connection).
        queued: bytes that wait to be sent.
        active: the loop's time of the last byte in either direction.
    """

    __slots__ = (
        "_reactor",
        "_sock",
        "_fd",
        "owner",
        "hears_out",
        "_out",
        "queued",
        "active",
        "_mask",
        "_full",
        "_size",
        "_closing",
        "_dead",
        "_half",
        "_eof",
        "_broken",
    )

    def __init__(self, reactor: Reactor, sock: socket.socket, owner: Owner | None) -> None:
        self._reactor, self._sock = reactor, sock
        self.owner: Owner = owner or NOBODY
        self._fd = sock.fileno()
        self.hears_out = False
        self._broken: OSError | None = None
        self._out: deque[bytes | memoryview] = deque()
        self.queued = 0
        self.active = reactor.now
        self._mask = READ
        self._full = self._closing = self._dead = self._half = self._eof = False
        self._size = limits.READ_MIN
        reactor.watch(self._fd, READ, self._ready)

    def __repr__(self) -> str:
        state = "dead" if self._dead else "closing" if self._closing else "open"
        return f"<{type(self).__name__} fd={self._fd} {state} queued={self.queued}>"

    @property
    def dead(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._dead or self._closing

    def pause(self) -> None:
        """Read no more until `resume`."""
        if self._mask & READ:
            self._watch(self._mask & ~READ)

    def resume(self) -> None:
        """Read again."""
        if not self._mask & READ and not self._eof:
            self._watch(self._mask | READ)

    def _watch(self, mask: int) -> None:
        if not self._dead:
            self._mask = mask
            self._reactor.modify(self._fd, mask)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and self._mask & READ:
            self._read()
        elif events & (HANGUP | ERROR):
            self._fail(ConnectionResetError("the peer closed the connection"))

    def _read(self) -> None:
        try:
            data = self._sock.recv(self._size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if not data:
            self._end()
            return
        if len(data) == self._size:
            self._size = min(self._size * 2, limits.READ_MAX)
        elif len(data) < limits.READ_MIN:
            self._size = limits.READ_MIN
        self.active = self._reactor.now
        self.owner.received(data)

    def _end(self) -> None:
        if self._broken is not None:
            self._fail(self._broken)
            return
        self._eof = True
        self._watch(self._mask & ~READ)
        self.owner.ended()

    def _send(self, data: bytes | memoryview) -> int:
        return self._sock.send(data)

    def write(self, data: bytes) -> None:
        """Send now what the kernel takes, and the rest when it does."""
        if self._dead or self._half or not data:
            return
        if self._out:
            self._out.append(data)
            self.queued += len(data)
        else:
            try:
                sent = self._send(data)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                sent = 0
            except OSError as error:
                self._refused(error)
                return
            self.active = self._reactor.now
            if sent == len(data):
                return
            self._out.append(memoryview(data)[sent:] if sent else data)
            self.queued = len(data) - sent
            self._watch(self._mask | WRITE)
        if self.queued > limits.QUEUE_HIGH:
            self._full = True

    def _refused(self, error: OSError) -> None:
        """The peer takes no more: the kernel keeps what it had said, and reports the end after that (tcp(7))."""
        gone = isinstance(error, (ConnectionError, ssl.SSLEOFError))  # whatever else: nothing would end the reading
        if not gone or not self.hears_out or not self._mask & READ or self._closing:
            self._fail(error)
            return
        self._out.clear()
        self.queued = 0
        self._full = False
        self._half, self._broken = True, error
        self._watch(self._mask & ~WRITE)

    @property
    def full(self) -> bool:
        """Whether the producer should pause until `drained`."""
        return self._full

    def _flush(self) -> None:
        out = self._out
        while out:
            try:
                sent = self._send(out[0])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                self._refused(error)
                return
            self.queued -= sent
            if sent < len(out[0]):
                out[0] = memoryview(out[0])[sent:]
                break
            out.popleft()
        self.active = self._reactor.now
        if not out:
            self._watch(self._mask & ~WRITE)
            if self._half:
                self._shut()
            if self._closing:
                self._fail(None)
                return
        if self._full and self.queued <= limits.QUEUE_LOW:
            self._full = False
            if not self._closing:
                self.owner.drained()

    def end(self) -> None:
        """Send what is queued, then no more; reading goes on."""
        if not self._half and not self._dead:
            self._half = True
            if not self._out:
                self._shut()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Send what is queued, then close. The owner gets `lost(None)`."""
        if self._closing or self._dead:
            return
        self._closing = True
        if self._out:
            self._watch(self._mask & ~READ)
        else:
            self._fail(None)

    def abort(self) -> None:
        """Close at once and forget what is queued; TCP peers see a reset when something was."""
        self._fail(None)

    def _fail(self, error: OSError | None) -> None:
        if self._dead:
            return
        self._dead = True
        self._reactor.forget(self._fd)
        self._out.clear()
        self.queued = 0
        self._sock.close()
        self._reactor.soon(lambda: self.owner.lost(error))


class TlsStream(Stream):
    """A stream over TLS, its handshake done. Reads whole records: what OpenSSL holds back, epoll does not see."""

    __slots__ = ()
    _sock: ssl.SSLSocket

    def _send(self, data: bytes | memoryview) -> int:
        return self._sock.write(data)

    def _ready(self, events: int) -> None:
        if self._out and events & READ and not events & WRITE:
            self._flush()  # a write may have waited for a record to be read (SSL_get_error(3))
            if self._dead:
                return
        if events & READ and self._mask & READ and not events & WRITE:
            self._read()
        else:
            Stream._ready(self, events)

    def _read(self) -> None:
        sock = self._sock
        pieces: list[bytes] = []
        size = 0
        failure: OSError | None = None
        end = False
        while size < limits.READ_MAX:
            try:
                piece = sock.read(limits.READ_MIN)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except ssl.SSLEOFError:
                end = True
                break
            except OSError as error:
                failure = error
                break
            if not piece:
                end = True
                break
            pieces.append(piece)
            size += len(piece)
            if len(piece) < limits.READ_MIN:
                break  # the record is used up; `pending` is asked below
        if pieces:
            self.active = self._reactor.now
            self.owner.received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._dead:
            return
        if failure is not None:
            self._fail(failure)
        elif end:
            self._end()
        elif sock.pending() and self._mask & READ:
            self._reactor.soon(self._again)

    def _again(self) -> None:
        if not self._dead and self._mask & READ:
            self._read()

    def resume(self) -> None:
        """Read again, beginning with what was decrypted already."""
        if not self._mask & READ and not self._eof:
            self._watch(self._mask | READ)
            if not self._dead and self._sock.pending():
                self._reactor.soon(self._again)

    def _shut(self) -> None:
        """TLS has no half-close that servers agree on: the peer learns of the end when we close."""


class _Nobody:
    """The owner of a stream until the one that uses it has set itself."""

    def received(self, data: bytes) -> None:
        """Not for us."""

    def ended(self) -> None:
        """Not for us."""

    def lost(self, error: OSError | None) -> None:
        """Not for us."""

    def drained(self) -> None:
        """Not for us."""


NOBODY: Owner = _Nobody()
