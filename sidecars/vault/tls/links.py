"""Messages from the relay: each brings one connection, on a link of its own. Hostile as what it passes on.

What arrives is not believed: descriptors that are no connected TCP sockets, and more than one, are closed.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from ...kit.reactor import READ

if TYPE_CHECKING:
    from typing import Protocol

    from ...kit.reactor import Reactor, Timer

    class Taker(Protocol):
        """What links report to."""

        reactor: Reactor

        def received(self, message: bytes, connection: socket.socket | None) -> bytes: ...
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


class Link:
    """One message from the relay.

    Args:
        taker: gets it: `received` is given the message and its connection (None: there is not exactly one, or it is no
            connected TCP socket) and returns the answer.
        sock: the link.
    """

    __slots__ = ("_taker", "_sock", "_watched", "_timer")

    def __init__(self, taker: Taker, sock: socket.socket) -> None:
        self._taker, self._sock = taker, sock
        self._watched = False
        self._timer: Timer = taker.reactor.later(LINK_SECONDS, self.close)

    def look(self, _events: int) -> None:
        """Read the message, answer, close."""
        try:
            message, fds, _flags, _ = socket.recv_fds(self._sock, MESSAGE_MAX, _FDS_MAX, _CLOEXEC)
        except BlockingIOError:
            if not self._watched:
                self._watched = True
                self._taker.reactor.watch(self._sock.fileno(), READ, self.look)
            return
        except OSError:
            self.close()
            return
        connections = [connection for fd in fds if (connection := _connection(fd)) is not None]
        usable = connections[0] if len(fds) == 1 == len(connections) else None
        for connection in connections:
            if connection is not usable:
                connection.close()
        answer = self._taker.received(message, usable) if message or fds else b""
        if answer:
            try:
                self._sock.send(answer)
            except OSError:
                pass  # the relay has given up; what it gave is served or closed already
        self.close()

    def close(self) -> None:
        """Forget the link."""
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
