"""Connections to upstreams: resolve, check every address, connect to the checked address, verify TLS.

The name is resolved once for a connection and the socket goes to the very address that was checked: a second
answer of the resolver (rebinding) has no part in it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from . import addresses, limits
from .reactor import WRITE, Reactor, Timer
from .refusal import Refusal
from .stream import Stream

if TYPE_CHECKING:
    import ssl

Address = tuple[int, tuple[str, int]]
"""Address family and socket address."""


class Endpoint:
    """Where an upstream is.

    Attributes:
        host: name or address literal, ASCII.
        port: TCP port.
        tls: whether to speak TLS.
        ca: file of the CA bundle that is trusted instead of the system's; empty: the system's.
        allow_private: whether private addresses may be connected to.
        authority: the value of the Host header.
        key: equal for endpoints that can share connections.
        judge: says why an address of the host may not be connected to; empty: it may.
    """

    __slots__ = ("host", "port", "tls", "ca", "allow_private", "key", "authority", "judge")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: bool,
        ca: str = "",
        allow_private: bool = False,
        judge: Callable[[str], str] | None = None,
    ) -> None:
        self.host, self.port, self.tls, self.ca, self.allow_private = host, port, tls, ca, allow_private
        self.judge = judge or (lambda address: addresses.refusal(address, allow_private=allow_private))
        self.key = (host, port, tls, ca, allow_private)
        shown = f"[{host}]" if ":" in host else host
        self.authority = shown if port == (443 if tls else 80) else f"{shown}:{port}"


Connected = Callable[[Stream | None, Refusal | None], None]


class Dialling(Protocol):
    """What makes connections: directly (`Dialer`), or through a proxy (`proxy/dialer.py`)."""

    def dial(self, endpoint: Endpoint, done: Connected) -> None:
        """Connect and call `done(stream, None)` or `done(None, refusal)`, never before this returns."""

    def via(self, host: str) -> str:
        """The proxy through which connections to a host go, as `host:port`; empty: none."""


_Waiting = list[tuple[Endpoint, Connected]]
"""Who waits for a name: one thread asks for all of them."""


class Dialer:
    """Makes connections; keeps what was resolved for a short while, and one TLS context a CA bundle.

    Args:
        reactor: the loop.
        also: file of authorities that are trusted besides each endpoint's own; empty: none.
    """

    def __init__(self, reactor: Reactor, also: str = "") -> None:
        self._reactor, self._also = reactor, also
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._resolved: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._waiting: dict[tuple[str, int], _Waiting] = {}

    def context(self, ca: str) -> ssl.SSLContext:
        """The TLS context that trusts `ca` (a file), or the system's authorities when it is empty."""
        context = self._contexts.get(ca)
        if context is None:
            from .tls.layer import client_context

            context = self._contexts[ca] = client_context(ca, self._also)
        return context

    def via(self, _host: str) -> str:
        """No proxy."""
        return ""

    def dial(self, endpoint: Endpoint, done: Connected) -> None:
        """Connect and call `done(wire, None)` or `done(None, refusal)`, never before this returns."""
        known = self._resolved.get((endpoint.host, endpoint.port))
        if known is not None and known[0] > self._reactor.now:
            addresses = known[1]
            self._reactor.soon(lambda: self._connect(endpoint, addresses, done))
            return

        key = (endpoint.host, endpoint.port)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append((endpoint, done))
            return
        self._waiting[key] = waiting = [(endpoint, done)]
        self._reactor.in_thread(lambda: self._resolve(key, waiting))
        self._reactor.later(limits.CONNECT_SECONDS, lambda: self._slow(key, waiting))

    def _resolve(self, key: tuple[str, int], waiting: _Waiting) -> Callable[[], None]:
        """In a thread: ask the resolver, which may block for long."""
        host, port = key
        try:
            answers = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failure = Refusal(502, "upstream-name", f"The name {host} could not be resolved: {error}.")
            return lambda: self._unresolved(key, waiting, failure)
        addresses = [(int(family), (str(address[0]), int(address[1]))) for family, _, _, _, address in answers]
        return lambda: self._learned(key, waiting, addresses)

    def _take_waiting(self, key: tuple[str, int], waiting: _Waiting) -> _Waiting:
        """What waits for this resolution; nothing when it came too late."""
        if self._waiting.get(key) is not waiting:
            return []
        return self._waiting.pop(key)

    def _slow(self, key: tuple[str, int], waiting: _Waiting) -> None:
        why = f"The name {key[0]} was not resolved within {limits.CONNECT_SECONDS:g} s."
        self._unresolved(key, waiting, Refusal(504, "upstream-name", why))

    def _unresolved(self, key: tuple[str, int], waiting: _Waiting, error: Refusal) -> None:
        for _, done in self._take_waiting(key, waiting):
            done(None, error)

    def _learned(self, key: tuple[str, int], waiting: _Waiting, addresses: list[Address]) -> None:
        self._resolved[key] = (self._reactor.now + limits.RESOLVED_SECONDS, addresses)
        for endpoint, done in self._take_waiting(key, waiting):
            self._connect(endpoint, addresses, done)

    def _connect(self, endpoint: Endpoint, addresses: list[Address], done: Connected) -> None:
        usable: list[Address] = []
        reason = ""
        for family, address in addresses:
            refusal = endpoint.judge(address[0])
            reason = reason or refusal
            if not refusal:
                usable.append((family, address))
        if not usable:
            why = f"{endpoint.host} has no address that the route may use: {reason or 'it has none'}."
            done(None, Refusal(403, "private-address", why))
            return
        try:
            context = self.context(endpoint.ca) if endpoint.tls else None
        except OSError as error:
            done(None, bundle_failure(error))
            return
        _Attempts(self._reactor, endpoint, usable, context, done).start()


class _Attempts:
    """Tries the addresses of one endpoint, the next one beside a slow one (RFC 8305); the first to finish wins."""

    def __init__(
        self, reactor: Reactor, endpoint: Endpoint, left: list[Address], context: ssl.SSLContext | None, done: Connected
    ) -> None:
        self._reactor, self._endpoint, self._left, self._context = reactor, endpoint, left, context
        self._done: Connected | None = done
        self._open: dict[socket.socket, Callable[[], None]] = {}
        """What is under way, and how it is forgotten."""
        self._error = Refusal(
            504, "upstream-timeout", f"{endpoint.host} did not answer within {limits.CONNECT_SECONDS:g} s."
        )
        self._deadline = reactor.later(limits.CONNECT_SECONDS, self._late)
        self._stagger: Timer | None = None

    def start(self) -> None:
        """Try the next address."""
        if self._done is None or not self._left:
            return
        family, address = self._left.pop(0)
        if self._stagger is not None:
            self._stagger.cancel()
        self._stagger = self._reactor.later(limits.NEXT_ADDRESS_SECONDS, self.start)
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError:
            # out of descriptors: one becomes free when a client leaves, and the deadline bounds the wait
            self._left.insert(0, (family, address))
            self._stagger.cancel()
            self._stagger = self._reactor.later(limits.ACCEPT_RETRY_SECONDS, self.start)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            sock.close()
            self._failed(None, self._refused(error))
            return
        fd = sock.fileno()
        self._open[sock] = lambda: self._reactor.forget(fd)
        self._reactor.watch(fd, WRITE, lambda _events: self._connected(sock))

    def _refused(self, error: OSError) -> Refusal:
        return Refusal(
            502, "upstream-connect", f"No connection to {self._endpoint.authority}: {error.strerror or error}."
        )

    def _connected(self, sock: socket.socket) -> None:
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._failed(sock, self._refused(OSError(number, os.strerror(number))))
        elif self._context is None:
            self._drop(sock)
            self._won(Stream(self._reactor, sock, None))
        else:
            self._secure(sock, self._context)

    def _secure(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        from .tls.layer import Handshake

        self._drop(sock)
        try:
            secure = wrapped(context, sock, self._endpoint.host)
        except OSError as error:
            sock.close()
            self._failed(None, self._refused(error))
            return
        handshake = Handshake(self._reactor, secure, lambda error: self._shaken(secure, error))
        self._open[secure] = handshake.cancel
        handshake.start()

    def _shaken(self, sock: ssl.SSLSocket, error: OSError | None) -> None:
        from .tls.layer import TlsStream

        if error is None:
            self._drop(sock)
            self._won(TlsStream(self._reactor, sock, None))
        else:
            self._failed(sock, tls_failure(self._endpoint, error))

    def _drop(self, sock: socket.socket) -> None:
        self._open.pop(sock)()

    def _failed(self, sock: socket.socket | None, error: Refusal) -> None:
        if sock is not None:
            self._drop(sock)
            sock.close()
        self._error = error
        if self._left:
            self._reactor.soon(self.start)
        elif not self._open:
            self._finish(None)

    def _won(self, wire: Stream) -> None:
        wire.hears_out = True
        self._finish(wire)

    def _late(self) -> None:
        self._finish(None)

    def _finish(self, wire: Stream | None) -> None:
        done, self._done = self._done, None
        for sock in list(self._open):
            self._drop(sock)
            sock.close()
        self._deadline.cancel()
        if self._stagger is not None:
            self._stagger.cancel()
        if done is not None:
            done(wire, None if wire else self._error)


def wrapped(context: ssl.SSLContext, sock: socket.socket, host: str) -> ssl.SSLSocket:
    """The socket with TLS around it, its handshake not begun; raises OSError."""
    # bytes, not str: a str would import the IDNA codec, which Landlock does not let us read
    return context.wrap_socket(
        sock, server_hostname=host.encode("ascii"), do_handshake_on_connect=False, suppress_ragged_eofs=False
    )


def tls_failure(endpoint: Endpoint, error: OSError) -> Refusal:
    """Why a handshake failed."""
    if problem := getattr(error, "verify_message", ""):
        return Refusal(502, "upstream-certificate", f"The certificate of {endpoint.host} was refused: {problem}.")
    why = f"No TLS with {endpoint.authority}: {getattr(error, 'reason', None) or error}."
    return Refusal(502, "upstream-tls", why)


def bundle_failure(error: OSError) -> Refusal:
    """The authorities that count could not be read."""
    return Refusal(502, "ca-bundle", f"The CA bundle could not be read: {error}.")
