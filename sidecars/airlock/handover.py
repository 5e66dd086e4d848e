"""Hands connections to the vault: the descriptor and the target in one message, over a socket that no container sees.

Rules of this file:
- one message a connection, on a link of its own: a vault that dies takes nothing with it but what it had taken;
- the connection stays open here until the vault has said that it has it;
- the link lives as long as the connection: the vault closes it at the connection's end, and `cut` asks for that end;
- a vault that does not run is started by the supervisor, which holds the socket; one that is busy is waited for.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING

from ..kit.reactor import READ

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..kit.reactor import Reactor, Timer

HANDOVER_SECONDS = 10.0
"""How long a connection waits for a vault that starts, or starts again, or has no room."""
RETRY_SECONDS = 0.02
LINKS_MAX = 128
"""Messages under way: fewer than the socket's queue holds, and each costs a descriptor."""
TAKEN = b"+"
REFUSED = b"-"
CUT = b"!"
"""What the two sides say (`vault/tls/links.py`)."""
_ANSWER_MAX = 1024


class Handover:
    """Passes connections on.

    Args:
        reactor: the loop.
        path: the vault's socket.
    """

    def __init__(self, reactor: Reactor, path: str) -> None:
        self._reactor, self._path = reactor, path
        self._queue: deque[Gift] = deque()
        self._links = 0
        self._retry: Timer | None = None

    def __repr__(self) -> str:
        return f"<Handover links={self._links} queued={len(self._queue)}>"

    def give(
        self, client: socket.socket, name: str, port: int, done: Callable[[str], None], over: Callable[[], None]
    ) -> Gift:
        """Hand a connection over.

        Args:
            client: unread; it stays the caller's, who closes it when told.
            name, port: what the connection leads to.
            done: called once, never before this returns: with "" when the vault has it, else with the reason.
            over: called once when a connection that the vault had is over, or the vault is gone.
        """
        gift = Gift(self, client, f"{name}:{port}".encode("ascii"), done, over)
        gift.timer = self._reactor.later(HANDOVER_SECONDS, lambda: self._late(gift))
        self._queue.append(gift)
        self._reactor.soon(self._serve)
        return gift

    def _serve(self) -> None:
        """Send what can be sent now."""
        while self._queue and self._links < LINKS_MAX and self._retry is None:
            gift = self._queue[0]
            if gift.gone:
                self._queue.popleft()
                continue
            try:
                gift.link = self._send(gift)
            except OSError:
                # its queue is full, or the supervisor is being replaced: one timer for all that wait
                self._retry = self._reactor.later(RETRY_SECONDS, self._try_again)
                return
            self._queue.popleft()
            self._links += 1
            self._reactor.watch(gift.link.fileno(), READ, self._hearer(gift))

    def _send(self, gift: Gift) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            link.connect(self._path)
            socket.send_fds(link, [gift.message], [gift.client.fileno()])
        except OSError:
            link.close()
            raise
        return link

    def _try_again(self) -> None:
        self._retry = None
        self._serve()

    def _hearer(self, gift: Gift) -> Callable[[int], None]:
        def heard(_events: int) -> None:
            assert gift.link is not None
            try:
                answer = gift.link.recv(_ANSWER_MAX)
            except BlockingIOError:
                return
            except OSError:
                answer = b""
            if gift.taken:
                self._close(gift)
                gift.over()
            elif answer == TAKEN:
                gift.taken = True
                self._settle(gift)
                gift.done("")
            elif answer.startswith(REFUSED):
                self._end(gift, answer[1:].decode("utf-8", "replace"))
            elif answer:  # the supervisor's own words for clients, in HTTP
                self._end(gift, "the vault cannot start")
            else:  # it died with the message unread, or before it had answered
                self._unlink(gift)
                self._queue.append(gift)
                self._retry = self._retry or self._reactor.later(RETRY_SECONDS, self._try_again)

        return heard

    def _late(self, gift: Gift) -> None:
        self._end(gift, f"the vault did not take the connection within {HANDOVER_SECONDS:g} s")

    def _unlink(self, gift: Gift) -> None:
        self._close(gift)
        self._links -= 1

    def _close(self, gift: Gift) -> None:
        if gift.link is not None:
            self._reactor.forget(gift.link.fileno())
            gift.link.close()
            gift.link = None

    def _settle(self, gift: Gift) -> None:
        """It is decided what becomes of it: others may have their turn."""
        if gift.timer is not None:
            gift.timer.cancel()
            gift.timer = None
        if gift.link is not None:
            self._links -= 1
        if self._queue:
            self._reactor.soon(self._serve)

    def _end(self, gift: Gift, why: str) -> None:
        """The vault does not have it, and will not."""
        self._settle(gift)
        self._close(gift)
        gift.gone = True
        gift.done(why)

    def cut(self, gift: Gift) -> None:
        """End a connection, wherever it is; nothing is called any more."""
        if gift.taken and gift.link is not None:
            try:
                gift.link.send(CUT)
            except OSError:
                pass  # the vault is gone, and the connection with it
        elif not gift.gone and not gift.taken:
            self._settle(gift)
            try:
                # its descriptor may lie in the vault's queue: this ends the connection for every holder
                gift.client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._close(gift)
        gift.gone = True


class Gift:
    """One connection on its way, and then at the vault."""

    __slots__ = ("_handover", "client", "message", "done", "over", "timer", "link", "taken", "gone")

    def __init__(
        self,
        handover: Handover,
        client: socket.socket,
        message: bytes,
        done: Callable[[str], None],
        over: Callable[[], None],
    ) -> None:
        self._handover = handover
        self.client, self.message, self.done, self.over = client, message, done, over
        self.timer: Timer | None = None
        self.link: socket.socket | None = None
        self.taken = self.gone = False

    def __repr__(self) -> str:
        return f"<Gift {self.message.decode()} {'taken' if self.taken else 'waiting'}>"

    def cut(self) -> None:
        """End the connection."""
        self._handover.cut(self)
