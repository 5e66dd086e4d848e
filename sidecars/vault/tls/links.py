"""Messages from the relay: each brings one connection, on a link of its own. Hostile as what it passes on.

Rules of this file:
- what arrives is not believed: descriptors that are no connected TCP sockets, and more than one, are closed;
- a link lives as long as the connection that it brought: its end tells the relay that this is over, and the relay may
  say that it must end, since the policy denies it now. A relay that is gone says nothing: its connections go on.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from ...kit.reactor import READ

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ...kit.reactor import Reactor, Timer

    class Taker(Protocol):
        """What links report to."""

        reactor: Reactor

        def received(self, link: Link, message: bytes, connection: socket.socket | None) -> bytes: ...
        def left(self, link: Link) -> None: ...


MESSAGE_MAX = 512
_FDS_MAX = 8
"""One is right; the kernel closes what is above this."""
LINK_SECONDS = 5.0
"""The relay sends its message as it connects."""
_CLOEXEC = 0x40000000
"""MSG_CMSG_CLOEXEC (recvmsg(2)), which Python does not name."""
TAKEN, REFUSED = b"+", b"-"
"""How answers begin; a reason follows a refusal."""
CUT = b"!"
"""What the relay says when a connection must end."""


class Link:
    """One message from the relay, and what it brought.

    Args:
        taker: gets it: `received` is given the message and its connection (None: there is not exactly one, or it is no
            connected TCP socket) and returns the answer.
        sock: the link.

    Attributes:
        cut: ends the connection; set by what serves it.
    """

    __slots__ = ("_taker", "_sock", "_watched", "_timer", "_taken", "cut")

    def __init__(self, taker: Taker, sock: socket.socket) -> None:
        self._taker, self._sock = taker, sock
        self._watched = self._taken = False
        self._timer: Timer = taker.reactor.later(LINK_SECONDS, self.close)
        self.cut: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Link {'taken' if self._taken else 'waiting'}>"

    def look(self, _events: int) -> None:
        """Read what came."""
        try:
            if self._taken:
                self._hear(self._sock.recv(MESSAGE_MAX))
            else:
                self._receive(*socket.recv_fds(self._sock, MESSAGE_MAX, _FDS_MAX, _CLOEXEC)[:2])
        except BlockingIOError:
            self._watch()
        except OSError:
            self.close()

    def _receive(self, message: bytes, fds: list[int]) -> None:
        connections = [connection for fd in fds if (connection := _connection(fd)) is not None]
        usable = connections[0] if len(fds) == 1 == len(connections) else None
        for connection in connections:
            if connection is not usable:
                connection.close()
        answer = self._taker.received(self, message, usable) if message or fds else b""
        if answer:
            self._sock.send(answer)
        if answer == TAKEN:
            self._taken = True
            self._timer.cancel()
            self._watch()
        else:
            self.close()

    def _hear(self, message: bytes) -> None:
        if message == CUT:
            self.cut()
        self.close()

    def _watch(self) -> None:
        if not self._watched and self._sock.fileno() >= 0:
            self._watched = True
            self._taker.reactor.watch(self._sock.fileno(), READ, self.look)

    def close(self) -> None:
        """The connection is over, or was none."""
        if self._sock.fileno() < 0:
            return
        self._timer.cancel()
        if self._watched:
            self._watched = False
            self._taker.reactor.forget(self._sock.fileno())
        self._sock.close()
        self._taker.left(self)


def _connection(fd: int) -> socket.socket | None:
    """A connected TCP socket out of a descriptor; anything else is closed."""
    try:
        made = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None
    try:
        if made.type == socket.SOCK_STREAM and made.family in (socket.AF_INET, socket.AF_INET6):
            made.getpeername()
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
    except OSError:
        pass
    made.close()
    return None
