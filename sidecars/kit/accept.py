"""Takes connections from listening sockets, in the loop, and ends an idle process; the supervisor holds the sockets,
so no client is refused.
"""

from __future__ import annotations

import socket

from . import limits
from .peers import Peers
from .reactor import READ, Reactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Acceptor:
    """Accepts from non-blocking listening sockets, which stay open.

    Args:
        reactor: the loop.
        listeners: where clients come in.
        accepted: gets each connection, non-blocking; TCP ones send without delay.
        everybody: other users and other machines are served too; otherwise see `Peers`.
    """

    def __init__(
        self,
        reactor: Reactor,
        listeners: Sequence[socket.socket],
        accepted: Callable[[socket.socket], None],
        *,
        everybody: bool = False,
    ) -> None:
        self._reactor, self._listeners, self._accepted, self._everybody = reactor, listeners, accepted, everybody
        self._on = False
        self._wanted = False
        self._turn, self._burst = 0, 1

    def __repr__(self) -> str:
        return f"<Acceptor {'on' if self._on else 'off'}>"

    def start(self) -> None:
        """Accept from now on."""
        self._wanted = True
        if not self._on:
            self._on = True
            for listener in self._listeners:
                self._reactor.watch(listener.fileno(), READ, self._handler(listener))

    def stop(self) -> None:
        """Accept no more until `start`: clients wait in the kernel's queue."""
        self._wanted = False
        self._off()

    def _off(self) -> None:
        if self._on:
            self._on = False
            for listener in self._listeners:
                self._reactor.forget(listener.fileno())

    def _handler(self, listener: socket.socket) -> Callable[[int], None]:
        tcp = listener.family != socket.AF_UNIX
        peers = None if self._everybody else Peers(listener)

        def ready(_events: int) -> None:
            # one client at a time costs one accept(2); only a queue that lasts for two turns is emptied in bursts
            waited, self._turn = self._reactor.turn == self._turn + 1, self._reactor.turn
            self._burst = min(self._burst * 8, limits.ACCEPTS_A_TURN) if waited else 1
            for _ in range(self._burst):
                if not self._on:  # the owner has no room for another one
                    return
                try:
                    sock, _ = listener.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    return
                except OSError:
                    # out of descriptors: clients stay in the kernel's queue until something is closed
                    self._off()
                    self._reactor.later(limits.ACCEPT_RETRY_SECONDS, self._again)
                    return
                if peers is not None and not peers.admit(sock):
                    sock.close()
                    continue
                sock.setblocking(False)
                if tcp:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._accepted(sock)

        return ready

    def _again(self) -> None:
        if self._wanted:
            self.start()


class Idle:
    """Ends the loop when nothing has been in hand for some time.

    Args:
        reactor: the loop.
        seconds: how long; 0: the process stays.
        busy: whether something is in hand now.
    """

    def __init__(self, reactor: Reactor, seconds: int, busy: Callable[[], bool]) -> None:
        self._reactor, self._seconds, self._busy = reactor, seconds, busy
        self._since = reactor.now

    def start(self) -> None:
        """Look from now on. One timer is set at a time, and none at each connection's end."""
        if self._seconds:
            self._reactor.later(self._seconds, self._look)

    def begins(self) -> None:
        """The last thing in hand is done."""
        self._since = self._reactor.now

    def _look(self) -> None:
        left = self._since + self._seconds - self._reactor.now
        if self._busy():
            self._reactor.later(self._seconds, self._look)
        elif left > 0:
            self._reactor.later(left, self._look)
        else:
            self._reactor.stop()
