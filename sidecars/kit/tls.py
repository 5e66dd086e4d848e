"""A stream over TLS, its handshake done. A file of its own, so that a process without TLS does not pay for OpenSSL."""

from __future__ import annotations

import socket
import ssl

from . import limits
from .reactor import READ, WRITE, Reactor
from .stream import CLOSED, Owner, Stream


class TlsStream(Stream):
    """Reads whole records: what OpenSSL has decrypted already, epoll does not see."""

    __slots__ = ()
    _sock: ssl.SSLSocket

    BLOCKED = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
    PEER_GONE = (ConnectionError, ssl.SSLEOFError)

    def __init__(self, reactor: Reactor, sock: socket.socket, owner: Owner | None) -> None:
        super().__init__(reactor, sock, owner)
        self._send = self._sock.write

    def _ready(self, events: int) -> None:
        if self._out and events & READ and not events & WRITE:
            self._flush()  # a write may have waited for a record to be read (SSL_get_error(3))
            if self._state == CLOSED:
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
            except self.BLOCKED:
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
        if self._state == CLOSED:
            return
        if failure is not None:
            self._lose(failure)
        elif end:
            self._end()
        elif sock.pending() and self._mask & READ:
            self._reactor.soon(self._again)

    def _again(self) -> None:
        if self._state != CLOSED and self._mask & READ:
            self._read()

    def resume(self) -> None:
        """Read again, beginning with what was decrypted already."""
        reading = self._mask & READ
        super().resume()
        if not reading and self._mask & READ and self._sock.pending():
            self._reactor.soon(self._again)

    def _shut(self) -> None:
        """TLS has no half-close that servers agree on: the peer learns of the end when we close."""
