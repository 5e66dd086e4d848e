"""Where connections to brokered hosts come in, from the relay.

A relay that asks for what is not brokered, or sends a message of another form, is refused in one sentence.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ...kit.accept import Acceptor
from ...kit.reactor import READ
from ...kit.refusal import Refusal
from ...roster import brokered
from .arrival import Arrival
from .links import REFUSED, TAKEN, Link

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from typing import Protocol

    from ...kit.reactor import Reactor
    from ...kit.tls.layer import TlsStream
    from .leaves import Leaves
    from .site import Site, Sites

    class House(Protocol):
        """The service behind the door."""

        def admit(self, wire: TlsStream, site: Site, link: Link) -> None: ...
        def turned_away(self, host: str, refusal: Refusal) -> None: ...
        def crowd_changed(self) -> None: ...
        def look(self) -> None: ...


class Door:
    """Takes connections, and hands on those whose TLS is up.

    Args:
        reactor: the loop.
        house: what gets them.
        sites: the brokered hosts.
        leaves: their certificates.
        links: listening sockets for hand-over.
    """

    def __init__(
        self,
        reactor: Reactor,
        house: House,
        sites: Sites,
        leaves: Leaves,
        links: Sequence[socket.socket],
    ) -> None:
        self.reactor, self._house, self._sites, self._leaves = reactor, house, sites, leaves
        self._acceptor = Acceptor(reactor, links, self._linked)
        self._arrivals: set[Arrival] = set()
        self._links: set[Link] = set()

    def __repr__(self) -> str:
        return f"<Door arrivals={len(self._arrivals)} links={len(self._links)}>"

    def __len__(self) -> int:
        """How many connections are here that the service does not have yet."""
        return len(self._arrivals)

    def __bool__(self) -> bool:
        return True

    def start(self) -> None:
        """Accept from now on."""
        self._acceptor.start()

    def stop(self) -> None:
        """Accept no more until `start`: what comes waits in the kernel's queues."""
        self._acceptor.stop()

    def renew(self) -> None:
        """The store has changed."""
        self._leaves.renew()

    def close(self) -> None:
        """Drop everything that is not served yet."""
        for arrival in list(self._arrivals):
            arrival.drop()
        for link in list(self._links):
            link.close()

    # --- the way in ---

    def _arrived(self, sock: socket.socket, site: Site, link: Link) -> None:
        arrival = Arrival(self, sock, site, link)
        self._arrivals.add(arrival)
        self.reactor.soon(arrival.start)  # not before the relay has its answer: an arrival that ends closes the link
        self._house.crowd_changed()

    def _linked(self, sock: socket.socket) -> None:
        link = Link(self, sock)
        self._links.add(link)
        link.look(READ)

    def received(self, link: Link, message: bytes, connection: socket.socket | None) -> bytes:
        """What a message from the relay gets as its answer."""
        site = self._target(message)
        if connection is None:
            return REFUSED + b"the vault got no connection"
        if site is None:
            connection.close()
            return REFUSED + b"the vault does not broker this host"
        self._arrived(connection, site, link)
        return TAKEN

    def _target(self, message: bytes) -> Site | None:
        try:
            return self._sites.find(*brokered.parse(message.decode("ascii")))
        except ValueError:
            return None

    def left(self, link: Link) -> None:
        """A link is closed."""
        self._links.discard(link)

    # --- what arrivals report to ---

    def context(self, host: str) -> ssl.SSLContext | Refusal:
        """The certificate's context for a host."""
        self._house.look()
        return self._leaves.context(host)

    def admit(self, arrival: Arrival, wire: TlsStream, site: Site) -> None:
        """TLS is up."""
        self._arrivals.discard(arrival)
        self._house.admit(wire, site, arrival.link)

    def turned_away(self, host: str, refusal: Refusal) -> None:
        """A connection fails; the audit log is told."""
        self._house.turned_away(host, refusal)

    def over(self, arrival: Arrival) -> None:
        """A connection is gone before it was served."""
        self._arrivals.discard(arrival)
        arrival.link.close()
        self._house.crowd_changed()
