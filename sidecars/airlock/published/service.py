"""Takes connections to published ports and makes each one's other half in the container's network."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence

from ...kit.accept import Acceptor, Idle
from ...kit.audit import Audit, Lenient
from ...kit.reactor import WRITE, Reactor
from ..descriptors import connections_max
from ..pipes import Pipes
from ..spliced import ABORT, Spliced

TARGETS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
"""Where a program in the container may listen, in the order in which they are tried."""


class Service:
    """Serves the published ports until it is idle.

    Args:
        reactor: the loop.
        doors: listening sockets of the host, each with the port in the container that it leads to.
        audit: the container's log.
        idle_seconds: leave after this long without a connection; 0: stay.
    """

    def __init__(
        self, reactor: Reactor, doors: Sequence[tuple[socket.socket, int]], audit: Audit, *, idle_seconds: int = 0
    ) -> None:
        self.reactor, self.pipes = reactor, Pipes(reactor)
        self._log = Lenient(audit, reactor, "publish")
        self._acceptors = [Acceptor(reactor, [door], self._beginner(port), everybody=True) for door, port in doors]
        self._open: set[Visit] = set()
        self._max = connections_max()
        self._count = 0
        self._idle = Idle(reactor, idle_seconds, lambda: bool(self._open))

    def start(self) -> None:
        """Accept from now on."""
        for acceptor in self._acceptors:
            acceptor.start()
        self._idle.start()

    def _beginner(self, port: int) -> Callable[[socket.socket], None]:
        def begin(client: socket.socket) -> None:
            self._count += 1
            visit = Visit(self, client, port, self._count)
            self._open.add(visit)
            if len(self._open) >= self._max:
                for acceptor in self._acceptors:
                    acceptor.stop()
            visit.start()

        return begin

    def left(self, visit: Visit) -> None:
        """A connection is gone."""
        self._open.discard(visit)
        if not self._open:
            self._idle.begins()
        if len(self._open) == self._max - 1:
            for acceptor in self._acceptors:
                acceptor.start()

    def write(self, event: str, visit: Visit, **fields: object) -> None:
        """Write one line about a connection from outside."""
        place = {"address": visit.peer, "port": visit.port, "proto": "tcp", "at": visit.at, "id": visit.number}
        self._log.write(event, **place, **fields)


class Visit:
    """One connection from outside.

    Attributes:
        peer: the client's address.
        port: the port in the container.
        at: where on the host it came in.
        number: counts the connections of this process.
    """

    def __init__(self, service: Service, client: socket.socket, port: int, number: int) -> None:
        self._service, self._client, self.port, self.number = service, client, port, number
        self._began = service.reactor.now
        self._inside: socket.socket | None = None
        self._spliced: Spliced | None = None
        self._waiting = list(TARGETS)
        self.peer = self.at = ""
        try:
            self.peer, self.at = _shown(client.getpeername(), port=False), _shown(client.getsockname(), port=True)
        except OSError:
            pass  # it has gone already; connecting inside ends it

    def start(self) -> None:
        """Connect to the next place where the program may listen."""
        family, host = self._waiting.pop(0)
        try:
            self._inside = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._inside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self._inside.connect_ex((host, self.port))
        except OSError as error:
            code = error.errno or errno.EIO
        if code == errno.EINPROGRESS:
            assert self._inside is not None
            self._service.reactor.watch(self._inside.fileno(), WRITE, self._connected)
        else:
            self._answered(code)

    def _connected(self, _events: int) -> None:
        assert self._inside is not None
        self._service.reactor.forget(self._inside.fileno())
        self._answered(self._inside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _answered(self, code: int) -> None:
        service = self._service
        if code == 0:
            assert self._inside is not None
            service.write("published", self, verdict="allowed")
            for sock in (self._client, self._inside):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._spliced = Spliced(service.reactor, service.pipes, self._client, self._inside, self._ended)
            self._spliced.start()
            return
        if self._inside is not None:
            self._inside.close()
        if self._waiting and code == errno.ECONNREFUSED:
            self.start()
            return
        service.write("published", self, verdict="failed", reason=f"the container: {os.strerror(code)}")
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        self._client.close()
        service.left(self)

    def _ended(self, abort: bool) -> None:
        assert self._spliced is not None and self._inside is not None
        for sock in (self._client, self._inside):
            if abort:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            sock.close()
        seconds = round(self._service.reactor.now - self._began, 3)
        moved = {"received": self._spliced.up.moved, "sent": self._spliced.down.moved}
        self._service.write("published-closed", self, **moved, seconds=seconds)
        self._spliced = None
        self._service.left(self)


def _shown(address: tuple[str, int, object], *, port: bool) -> str:
    host = address[0]
    return (f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}") if port else host
