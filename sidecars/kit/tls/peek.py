"""Looks at the first bytes of a connection and leaves them in its socket, so that another process can read them."""

from __future__ import annotations

import socket

from ..reactor import ERROR, HANGUP, READ, READ_HANGUP
from . import hello

PEEK_SIZE = hello.BUFFER_MAX + 1
WAIT = READ | READ_HANGUP
"""What to wait for before looking again."""
_ENDED = READ_HANGUP | HANGUP | ERROR


class Peek:
    """The first bytes of one connection.

    Args:
        sock: connected, non-blocking.
    """

    __slots__ = ("_sock", "_seen")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._seen = 0

    def __repr__(self) -> str:
        return f"<Peek seen={self._seen}>"

    def more(self, events: int) -> bytes | None:
        """What came since the last look; None when that is nothing, empty when the peer has ended.

        Args:
            events: what the loop reported; `WAIT` should be waited for.

        Raises:
            OSError: as recv(2) does.
        """
        data = self._sock.recv(PEEK_SIZE, socket.MSG_PEEK)
        fresh, self._seen = data[self._seen :], len(data)
        if not fresh and data and not events & _ENDED:
            return None  # the kernel reports data early when memory is short
        # what was looked at stays there to be read: without this, epoll would report it again and again (socket(7))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(data) + 1)
        return fresh

    def leave(self) -> None:
        """Leave everything in the socket, as if it had not been looked at."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def take(self) -> None:
        """Take what was looked at out of the socket, and nothing behind it."""
        self.leave()
        try:
            while self._seen:
                self._seen -= len(self._sock.recv(self._seen)) or self._seen
        except OSError:
            pass  # reset meanwhile: reported when it is used
