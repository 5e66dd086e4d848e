"""The dialler of a host that has an HTTP proxy: what the proxy carries goes through it, all else directly.

With TLS to the upstream the handshake happens inside of the proxy's connection: the proxy sees names and bytes of TLS.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from ....supervisor.ground.errors import TerokError
from .. import limits
from ..dial import Connected, Dialer, Dialling, Endpoint, bundle_failure, tls_failure, wrapped
from ..reactor import Reactor, Timer
from ..refusal import Refusal
from ..stream import Stream
from .egress import Egress, is_address, name_refusal
from .pump import pump
from .tunnel import ANSWER_SECONDS, Tunnel, refused_credential

if TYPE_CHECKING:
    import ssl

    from ..tls.layer import Handshake

REFUSED_SECONDS = 60.0
"""How long a credential that the proxy refused is not sent again: directories lock an account after a few failures, and
a container chooses how many connections it asks for."""

Authorization = Callable[[], str]
"""Gives the value of Proxy-Authorization, empty for none; raises TerokError, when the vault is locked for one."""


def no_authorization() -> str:
    """For a proxy that wants no credential."""
    return ""


def dialer_for(reactor: Reactor, egress: Egress, authorization: Authorization = no_authorization) -> Dialling:
    """What makes the connections of a process."""
    direct = Dialer(reactor, egress.ca)
    return ProxyDialer(reactor, direct, egress, authorization) if egress.host else direct


def refusal_of(endpoint: Endpoint) -> Refusal | None:
    """Why an endpoint is not asked for at the proxy: what can be judged without knowing what the proxy resolves."""
    host = endpoint.host
    why = endpoint.judge(host) if is_address(host) else name_refusal(host)
    return Refusal(403, "private-address", f"{host} may not be connected to: {why}.") if why else None


class ProxyDialer:
    """Makes connections, those that the proxy carries through it.

    Args:
        reactor: the loop.
        direct: for the proxy itself, and for what goes around it.
        egress: the proxy and what it carries.
        authorization: its credential.
    """

    def __init__(self, reactor: Reactor, direct: Dialer, egress: Egress, authorization: Authorization) -> None:
        self.reactor, self.direct, self.egress = reactor, direct, egress
        self._authorization = authorization
        self._accepted = self._refused = ""
        self._refused_until = 0.0
        self._trying = False
        self._waiting: list[Callable[[], None]] = []
        # the operator chose its address, which may be a private one or this host's
        self.place = Endpoint(egress.host, egress.port, tls=egress.tls, judge=lambda _address: "")

    def via(self, host: str) -> str:
        """The proxy, for what it carries."""
        return self.egress.authority if self.egress.carries(host) else ""

    def dial(self, endpoint: Endpoint, done: Connected) -> None:
        """As `Dialer.dial`."""
        if not self.egress.carries(endpoint.host):
            self.direct.dial(endpoint, done)
            return
        refusal = refusal_of(endpoint)
        if refusal is not None:
            self.reactor.soon(lambda: done(None, refusal))
            return
        _Passage(self, endpoint, done).start()

    def authorization(self) -> str | Refusal:
        """The credential to send, or why none is sent."""
        try:
            credential = self._authorization()
        except TerokError as error:
            fix = f" ({error.fix})" if error.fix else ""
            why = f"The credential of the proxy {self.egress.authority} could not be read: {error.what}{fix}"
            return Refusal(503, "proxy-credential", why)
        if credential and credential == self._refused and self.reactor.now < self._refused_until:
            return refused_credential(self.egress.authority)
        return credential

    def may_try(self, credential: str, again: Callable[[], None]) -> bool:
        """Whether to send a credential now; otherwise `again` is called when the one connection that tries it is done.

        A credential that the proxy has not accepted yet is tried by one connection at a time: a wrong one then counts
        as one failure there, however many connections a container asks for.
        """
        if not credential or credential == self._accepted:
            return True
        if self._trying:
            self._waiting.append(again)
            return False
        self._trying = True
        return True

    def tried(self, credential: str, refusal: Refusal | None) -> None:
        """What became of a connection that sent a credential."""
        if not credential:
            return
        if refusal is not None and refusal.rule == "proxy-credential":
            self._accepted, self._refused = "", credential
            self._refused_until = self.reactor.now + REFUSED_SECONDS
        elif refusal is None or refusal.rule not in UNDECIDED:
            self._accepted = credential
        self._trying = False
        waiting, self._waiting = self._waiting, []
        for again in waiting:
            self.reactor.soon(again)


UNDECIDED = ("proxy-connect", "proxy-answer")
"""Rules of refusals that say nothing about the credential."""


class State(Enum):
    """Where one connection is on its way: to the proxy, its CONNECT, the upstream's TLS, or at the end."""

    REACHING = "reaching"
    ASKING = "asking"
    SECURING = "securing"
    DONE = "done"


class _Passage:
    """One connection through the proxy; each step has its own limit in time."""

    def __init__(self, dialer: ProxyDialer, endpoint: Endpoint, done: Connected) -> None:
        self._dialer, self._endpoint, self._done = dialer, endpoint, done
        self._state, self._began = State.REACHING, dialer.reactor.now
        self._credential = ""
        self._sock: socket.socket | None = None
        self._handshake: Handshake | None = None
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<_Passage {self._state.value} {self._endpoint.authority}>"

    def start(self) -> None:
        """Connect to the proxy, when its credential is there; `done` is not called before this returns."""
        credential = self._dialer.authorization()
        if self._dialer.reactor.now - self._began > ANSWER_SECONDS:
            why = f"The proxy {self._dialer.egress.authority} does not answer whether it takes its credential."
            credential = Refusal(504, "proxy-answer", why)
        if isinstance(credential, Refusal):
            refusal = credential
            self._dialer.reactor.soon(lambda: self._done(None, refusal))
        elif self._dialer.may_try(credential, self.start):
            self._credential = credential
            self._dialer.direct.dial(self._dialer.place, self._reached)

    def _reached(self, stream: Stream | None, refusal: Refusal | None) -> None:
        if stream is None:
            assert refusal is not None
            why = f"The proxy was not reached: {refusal.why}"
            self._answered(refusal._replace(rule="proxy-connect", why=why))
            return
        self._state = State.ASKING
        reactor, egress = self._dialer.reactor, self._dialer.egress
        try:
            self._sock = sock = pump(reactor, stream) if egress.tls else stream.hand_over()
        except OSError as error:
            stream.abort()
            self._answered(Refusal(502, "proxy-connect", f"No socket for the proxy: {error.strerror}."))
            return
        host, port = self._endpoint.host, self._endpoint.port
        Tunnel(reactor, sock, egress.authority, host, port, self._credential, self._answered)

    def _answered(self, refusal: Refusal | None) -> None:
        self._dialer.tried(self._credential, refusal)
        if refusal is not None:
            self._finish(None, refusal)
            return
        assert self._sock is not None
        if self._endpoint.tls:
            self._secure(self._sock)
        else:
            self._finish(Stream(self._dialer.reactor, self._sock, None), None)

    def _secure(self, sock: socket.socket) -> None:
        from ..tls.layer import Handshake

        self._state = State.SECURING
        try:
            context = self._dialer.direct.context(self._endpoint.ca)
        except OSError as error:
            self._finish(None, bundle_failure(error))
            return
        try:
            secure = wrapped(context, sock, self._endpoint.host)
        except OSError as error:
            self._finish(None, tls_failure(self._endpoint, error))
            return
        self._sock = secure
        self._timer = self._dialer.reactor.later(limits.CONNECT_SECONDS, self._late)
        self._handshake = Handshake(self._dialer.reactor, secure, lambda error: self._shaken(secure, error))
        self._handshake.start()

    def _late(self) -> None:
        assert self._handshake is not None
        self._handshake.cancel()
        why = f"{self._endpoint.host} did not finish the TLS handshake within {limits.CONNECT_SECONDS:g} s."
        self._finish(None, Refusal(504, "upstream-timeout", why))

    def _shaken(self, secure: ssl.SSLSocket, error: OSError | None) -> None:
        from ..tls.layer import TlsStream

        if error is not None:
            self._finish(None, tls_failure(self._endpoint, error))
        else:
            self._finish(TlsStream(self._dialer.reactor, secure, None), None)

    def _finish(self, stream: Stream | None, refusal: Refusal | None) -> None:
        self._state = State.DONE
        if self._timer is not None:
            self._timer.cancel()
        if stream is not None:
            stream.hears_out = True
        elif self._sock is not None:
            self._sock.close()
        self._done(stream, refusal)
