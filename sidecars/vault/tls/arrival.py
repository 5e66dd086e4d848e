"""One connection to a brokered host, until TLS is up or it is turned away.

Rules of this file:
- nothing of the handshake is begun before the hello was read whole: it is looked at in the socket, strictly, within
  bounds of size and time, and names the host that the connection leads to;
- who fails is told with an alert, and the audit log says why and what helps.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from ....supervisor.ground import paste
from ...kit.reactor import READ
from ...kit.refusal import Refusal
from ...kit.stream import Stream
from ...kit.tls import hello
from ...kit.tls.layer import PROTOCOL, Handshake, TlsStream
from ...kit.tls.peek import WAIT, Peek

if TYPE_CHECKING:
    from typing import Protocol

    from ...kit.reactor import Reactor
    from .links import Link
    from .site import Site

    class Door(Protocol):
        """What arrivals report to."""

        reactor: Reactor

        def context(self, host: str) -> ssl.SSLContext | Refusal: ...
        def admit(self, arrival: Arrival, wire: TlsStream, site: Site) -> None: ...
        def turned_away(self, host: str, refusal: Refusal) -> None: ...
        def over(self, arrival: Arrival) -> None: ...


HANDSHAKE_SECONDS = 10.0
"""From the connection to the end of the handshake."""
LINGER_SECONDS = 1.0
"""How long a client that was turned away may take to read why."""

TRUST = (
    "let the client read /run/terok/ca.pem (SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, GIT_SSL_CAINFO, "
    "NODE_EXTRA_CA_CERTS); for a client that pins certificates, `terok vault tls off --host HOST`, and prepare the "
    "container again"
)
_DISTRUST = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_EXPIRED")
_VERSIONS = ("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_VERSION", "PROTOCOL_VERSION", "NO_SHARED_CIPHER")


class Arrival:
    """A connection that is not served yet.

    Args:
        door: who made it.
        sock: connected, non-blocking, unread.
        site: what it leads to.
        link: of the relay that passed it on.
    """

    __slots__ = ("link", "_door", "_sock", "_site", "_peek", "_seen", "_timer", "_handshake", "_watched")

    def __init__(self, door: Door, sock: socket.socket, site: Site, link: Link) -> None:
        self._door, self._sock, self._site, self.link = door, sock, site, link
        link.cut = self.drop
        self._peek = Peek(sock)
        self._seen = b""
        self._handshake: Handshake | None = None
        self._watched = False
        self._timer = door.reactor.later(HANDSHAKE_SECONDS, self._late)

    def __repr__(self) -> str:
        return f"<Arrival to {self._site.host} seen={len(self._seen)} {self._handshake!r}>"

    def start(self) -> None:
        """Read the hello, which has arrived in most cases."""
        self._look(READ)

    def _look(self, events: int) -> None:
        try:
            fresh = self._peek.more(events)
        except BlockingIOError:
            fresh = None
        except OSError:
            fresh = b""
        if fresh is None:
            self._watch()
            return
        if not fresh:
            self.drop()
            return
        self._seen += fresh
        try:
            asked = hello.read(self._seen)
        except hello.Incomplete:
            if len(self._seen) > hello.BUFFER_MAX:
                self._turn_away(Refusal(400, "hello", "The ClientHello is too long."))
            else:
                self._watch()
        except hello.Malformed as error:
            self._turn_away(Refusal(400, "hello", error.why, "only TLS is served here"))
        else:
            self._judge(asked)

    def _judge(self, asked: hello.Hello) -> None:
        name = asked.name
        if name is None:
            why = "The client sends no server name."
            self._turn_away(Refusal(421, "no-name", why, "use a client that sends SNI"))
        elif name != self._site.host:
            why = f"The connection leads to {self._site.host}, and asks for {name[:100]}."
            self._turn_away(Refusal(421, "other-name", why))
        elif asked.protocols and PROTOCOL.encode() not in asked.protocols:
            why = "The client speaks no HTTP/1.1."
            allow = (
                f"make it use HTTP/1.1, or {paste.command('terok', 'vault', 'tls', 'off', '--host', self._site.host)}"
            )
            self._turn_away(Refusal(421, "no-http1", why, allow), hello.NO_APPLICATION_PROTOCOL)
        else:
            self._shake(self._site)

    def _shake(self, site: Site) -> None:
        context = self._door.context(site.host)
        if isinstance(context, Refusal):
            self._turn_away(context, hello.INTERNAL_ERROR)
            return
        self._peek.leave()
        self._unwatch()
        try:
            secure = context.wrap_socket(
                self._sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
        except OSError:
            self.drop()  # gone meanwhile
            return
        self._sock = secure

        def shaken(error: OSError | None) -> None:
            self._handshake = None
            if error is not None:
                self._door.turned_away(site.host, cause(error))
                self.drop()
                return
            self._timer.cancel()
            # without tickets the server has nothing to send now, so a client that does not set TCP_NODELAY would hold
            # its request back until the delayed acknowledgement of its last flight, 40 ms later (tcp(7))
            secure.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._door.admit(self, TlsStream(self._door.reactor, secure, None), site)

        self._handshake = Handshake(self._door.reactor, secure, shaken)
        self._handshake.start()

    def _late(self) -> None:
        why = f"The handshake took more than {HANDSHAKE_SECONDS:g} s."
        self._door.turned_away(self._site.host, Refusal(408, "slow-handshake", why))
        self.drop()

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._door.reactor.watch(self._sock.fileno(), WAIT, self._look)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._door.reactor.forget(self._sock.fileno())

    def _turn_away(self, refusal: Refusal, alert: int = hello.UNRECOGNIZED_NAME) -> None:
        """Before any handshake: send an alert in the clear, and stay long enough for it to be read."""
        self._door.turned_away(self._site.host, refusal)
        self._unwatch()
        self._timer.cancel()
        self._peek.take()
        farewell = Farewell(self._door.reactor, self._sock)
        if hello.looks_like_tls(self._seen):
            farewell.wire.write(hello.alert(alert))
        farewell.wire.end()
        self._door.over(self)

    def drop(self) -> None:
        """Close at once."""
        self._timer.cancel()
        self._unwatch()
        if self._handshake is not None:
            self._handshake.cancel()
        self._sock.close()
        self._door.over(self)


class Farewell:
    """Owns a connection that was told why, until the client closes it: a close before that would reset the words away.

    Attributes:
        wire: the connection.
    """

    __slots__ = ("wire", "_timer")

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self.wire = Stream(reactor, sock, self)
        self._timer = reactor.later(LINGER_SECONDS, self.wire.abort)

    def received(self, data: bytes) -> None:
        """Nothing more is listened to."""

    def ended(self) -> None:
        """The client has read it."""
        self.wire.abort()

    def drained(self) -> None:
        """Nothing waits for this."""

    def lost(self, error: OSError | None) -> None:
        """The connection is gone."""
        self._timer.cancel()


def cause(error: OSError) -> Refusal:
    """What a handshake that failed says about the client."""
    reason = getattr(error, "reason", None) or ""
    if any(word in reason for word in _DISTRUST):
        return Refusal(495, "distrust", f"The client does not trust this container's authority ({reason}).", TRUST)
    if any(word in reason for word in _VERSIONS):
        return Refusal(426, "tls-version", f"The client speaks no TLS 1.2 or 1.3 as it is served here ({reason}).")
    if isinstance(error, ssl.SSLEOFError | ConnectionError) or "EOF" in reason:
        return Refusal(495, "distrust", "The client closed the connection at this container's certificate.", TRUST)
    return Refusal(400, "handshake", f"The handshake failed ({reason or error.strerror or type(error).__name__}).")
