"""TLS on the loop, for both roles: contexts, the handshake, and the stream behind it.

Rules of this file:
- TLS 1.2 and 1.3 alone, HTTP/1.1 alone; no renegotiation, no compression;
- a server keeps nothing of a connection for the next one: no tickets, so no early data and no key that outlives;
- an orderly end says so (close_notify), a connection that is cut does not: a part is never taken for the whole.

A file of its own, so that a process without TLS does not pay for OpenSSL.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING

from .. import limits
from ..reactor import READ, WRITE, Reactor
from ..stream import CLOSED, Owner, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NO_EXEC = 0x8
"""MFD_NOEXEC_SEAL (memfd_create(2), Linux 6.3): some hosts allow no other kind."""
PROTOCOL = "http/1.1"
"""What is offered and accepted (ALPN, RFC 7301)."""


def client_context(ca: str, also: str = "") -> ssl.SSLContext:
    """A client context that verifies names and chains, speaks TLS 1.2 and later, and offers HTTP/1.1.

    Args:
        ca: file of the authorities that are trusted instead of the system's; empty: the system's.
        also: file of authorities that are trusted besides; empty: none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([PROTOCOL])
    if also:
        context.load_verify_locations(cafile=also)
    if ca:
        context.load_verify_locations(cafile=ca)
    else:
        _load_system(context)
    return context


def _load_system(context: ssl.SSLContext) -> None:
    for cafile, capath in trust_stores():
        if capath and any(name.endswith(".0") for name in os.listdir(capath)):
            # a hashed directory is read one authority at a time: the whole bundle costs 30 ms and 3 MB
            context.load_verify_locations(capath=capath)
            return
        if cafile:
            context.load_verify_locations(cafile=cafile)
            return
    context.load_default_certs()


def trust_stores() -> list[tuple[str, str]]:
    """(bundle file, hashed directory) of the system's authorities that exist here; either may be empty."""
    paths = ssl.get_default_verify_paths()
    candidates = [
        (paths.cafile or "", paths.capath or ""),
        ("", "/etc/ssl/certs"),
        ("/etc/pki/tls/certs/ca-bundle.crt", ""),
        ("/etc/ssl/cert.pem", ""),
    ]
    return [
        (cafile if os.path.isfile(cafile) else "", capath if os.path.isdir(capath) else "")
        for cafile, capath in candidates
        if os.path.isfile(cafile) or os.path.isdir(capath)
    ]


def trust_paths(bundles: Iterable[str]) -> list[str]:
    """Files and directories of certificate authorities, the system's and `bundles`, and what their links point to."""
    found = {path for pair in trust_stores() for path in pair if path} | set(bundles)
    return sorted(found | {os.path.realpath(path) for path in found} | {"/usr/share/ca-certificates"})


def server_context(pem: bytes, host: str) -> ssl.SSLContext:
    """A server context for one host.

    Args:
        pem: private key, certificate and intermediates.
        host: a client that asks for another name (in a second hello, for one) is refused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_NONE  # no certificate is asked for: who the client is, its token says
    context.set_alpn_protocols([PROTOCOL])
    _load(context, pem)

    def check(_sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        return None if (name or "").lower() == host else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = check
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """OpenSSL reads files; a file in memory has no name that another process could open, and Landlock lets it be."""
    try:
        fd = os.memfd_create("terok-leaf", os.MFD_CLOEXEC | _NO_EXEC)
    except OSError:
        fd = os.memfd_create("terok-leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


class Handshake:
    """Carries one handshake out.

    Args:
        reactor: the loop.
        sock: wrapped, non-blocking, its handshake not begun.
        done: gets None, or why there is no connection; the socket is not watched any more then.
    """

    def __init__(self, reactor: Reactor, sock: ssl.SSLSocket, done: Callable[[OSError | None], None]) -> None:
        self._reactor, self._sock, self._done = reactor, sock, done
        self._mask = 0

    def __repr__(self) -> str:
        return f"<Handshake fd={self._sock.fileno()} waits={self._mask}>"

    def start(self) -> None:
        """Begin; `done` may be called before this returns."""
        self._step(0)

    def _step(self, _events: int) -> None:
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._wait(READ)
        except ssl.SSLWantWriteError:
            self._wait(WRITE)
        except OSError as error:
            self.cancel()
            self._done(error)
        else:
            self.cancel()
            self._done(None)

    def _wait(self, mask: int) -> None:
        if not self._mask:
            self._reactor.watch(self._sock.fileno(), mask, self._step)
        elif mask != self._mask:
            self._reactor.modify(self._sock.fileno(), mask)
        self._mask = mask

    def cancel(self) -> None:
        """Watch the socket no more; it belongs to the caller."""
        if self._mask:
            self._mask = 0
            self._reactor.forget(self._sock.fileno())


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
            except (ssl.SSLEOFError, ValueError):  # ValueError: both sides have said goodbye
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
        """Clients read to this end; servers do not agree on what it means: they learn of it when we close."""
        if self._sock.server_side:
            self._say_goodbye()
            try:
                # SSLSocket's own method would give up TLS for both directions
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
            except OSError as error:
                self._lose(error)

    def _say_goodbye(self) -> None:
        """Send close_notify (RFC 8446, section 6.1), without waiting for the peer's."""
        try:
            self._sock.unwrap()
        except (OSError, ValueError):
            pass  # the peer's own has not come, or the connection is broken already
