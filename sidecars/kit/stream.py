"""One stream socket in the loop: reads when asked, queues what the peer does not take yet; `tls/` does so over TLS.

Rules of this file:
- nothing here knows a protocol;
- the owner's callbacks never run inside `write`: a failure is reported in the loop's next step;
- after `lost` nothing is called any more;
- what a stream may still do is one state of `TRANSITIONS`; a pair that is not there is a bug and raises.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Protocol

from . import limits
from .reactor import ERROR, HANGUP, READ, READ_HANGUP, WRITE, Reactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STATES = ("open", "ending", "ended", "cut off", "closing", "closed")
OPEN, ENDING, ENDED, CUT_OFF, CLOSING, CLOSED = range(len(STATES))
"""What may still happen:

- OPEN: bytes go both ways.
- ENDING: the owner writes no more; what is queued is sent, then the end. Bytes still come.
- ENDED: the peer was told the end. Bytes still come.
- CUT_OFF: the peer takes no more; what it said before is still read.
- CLOSING: what is queued is sent; nothing is read.
- CLOSED: the descriptor is gone.
"""

EVENTS = ("end", "close", "sent", "refused", "lost")
END, CLOSE, SENT, REFUSED, LOST = range(len(EVENTS))
"""The owner ends its side; it closes; the queue is empty; the peer takes no more; the connection is lost or aborted."""

TRANSITIONS: dict[tuple[int, int], int] = {
    (OPEN, END): ENDING,
    (OPEN, CLOSE): CLOSING,
    (OPEN, SENT): OPEN,
    (OPEN, REFUSED): CUT_OFF,
    (OPEN, LOST): CLOSED,
    (ENDING, END): ENDING,
    (ENDING, CLOSE): CLOSING,
    (ENDING, SENT): ENDED,
    (ENDING, REFUSED): CUT_OFF,
    (ENDING, LOST): CLOSED,
    (ENDED, END): ENDED,
    (ENDED, CLOSE): CLOSING,
    (ENDED, LOST): CLOSED,
    (CUT_OFF, END): CUT_OFF,
    (CUT_OFF, CLOSE): CLOSING,
    (CUT_OFF, LOST): CLOSED,
    (CLOSING, END): CLOSING,
    (CLOSING, CLOSE): CLOSING,
    (CLOSING, SENT): CLOSED,
    (CLOSING, REFUSED): CLOSED,
    (CLOSING, LOST): CLOSED,
    (CLOSED, END): CLOSED,
    (CLOSED, CLOSE): CLOSED,
    (CLOSED, LOST): CLOSED,
}
"""Nothing is queued in ENDED, CUT_OFF and CLOSED, so nothing can be sent or refused there."""


_NOTHING: deque[bytes | memoryview] = deque(maxlen=0)
"""The queue of every stream that has nothing queued: an empty deque of its own costs 600 bytes."""


class Owner(Protocol):
    """What a stream reports to."""

    def received(self, data: bytes) -> None:
        """Bytes have arrived; never empty."""

    def ended(self) -> None:
        """The peer will send no more; writing still works."""

    def lost(self, error: OSError | None) -> None:
        """The connection is gone, closed by us (None) or by an error."""

    def drained(self) -> None:
        """The queue has fallen to `QUEUE_LOW` after it was above `QUEUE_HIGH`."""


class Stream:
    """A connected, non-blocking stream socket.

    Attributes:
        hears_out: when the peer takes no more, what it said before is still read (a server may answer before it has
            read a request to its end, and then reset the connection).
        queued: bytes that wait to be sent.
        full: whether the producer should pause until `drained`.
        active: the loop's time of the last byte in either direction.
    """

    __slots__ = (
        "_reactor",
        "_sock",
        "_fd",
        "_send",
        "owner",
        "hears_out",
        "_out",
        "queued",
        "full",
        "active",
        "_state",
        "_mask",
        "_size",
        "_peer_ended",
        "_error",
    )

    BLOCKED: tuple[type[OSError], ...] = (BlockingIOError,)
    """What a send raises when the kernel takes nothing now."""
    PEER_GONE: tuple[type[OSError], ...] = (ConnectionError,)
    """What a send raises when the peer takes no more, though what it said may still be there to be read."""

    def __init__(self, reactor: Reactor, sock: socket.socket, owner: Owner | None) -> None:
        self._reactor, self._sock = reactor, sock
        self._send: Callable[[bytes | memoryview], int] = sock.send
        self.owner: Owner = owner or UNOWNED
        self._fd = sock.fileno()
        self.hears_out = False
        self._error: OSError | None = None
        self._out: deque[bytes | memoryview] = _NOTHING
        self.queued = 0
        self.full = False
        self.active = reactor.now
        self._state = OPEN
        self._mask = READ
        self._peer_ended = False
        self._size = limits.READ_MIN
        reactor.watch(self._fd, READ, self._ready)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self._fd} {STATES[self._state]} queued={self.queued}>"

    @property
    def dead(self) -> bool:
        """Whether the connection is closed, or will be when the queue is sent."""
        return self._state >= CLOSING

    # -- reading --

    def pause(self) -> None:
        """Read no more until `resume`."""
        self._want(0)

    def hold(self) -> None:
        """Read no more until `resume`, but tell the owner when the peer ends; bytes before its end are lost then."""
        self._want(READ_HANGUP)

    def resume(self) -> None:
        """Read again."""
        self._want(READ)

    def _want(self, reading: int) -> None:
        mask = self._mask & WRITE | reading
        # behind the peer's end there is nothing to read, and epoll would report that end again and again
        if mask != self._mask and not self._peer_ended and self._state < CLOSING:
            self._watch(mask)

    def _watch(self, mask: int) -> None:
        if self._state != CLOSED and mask != self._mask:
            self._mask = mask
            self._reactor.modify(self._fd, mask)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._out:
            self._flush()
        if events & READ and self._mask & READ:
            self._read()
        elif events & (HANGUP | ERROR):
            self._lose(ConnectionResetError("the peer closed the connection"))
        elif events & READ_HANGUP and self._mask & READ_HANGUP:
            self._end()

    def _read(self) -> None:
        try:
            data = self._sock.recv(self._size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if not data:
            self._end()
            return
        # a peer that fills the buffer gets a larger one: a bulk transfer then costs a sixteenth of the calls, while
        # a thousand quiet connections never hold more than the small one
        if len(data) == self._size:
            self._size = min(self._size * 2, limits.READ_MAX)
        elif len(data) < limits.READ_MIN:
            self._size = limits.READ_MIN
        self.active = self._reactor.now
        self.owner.received(data)

    def _end(self) -> None:
        if self._state == CUT_OFF:  # everything that it said was read: now the failure is the owner's
            self._lose(self._error)
            return
        self._peer_ended = True
        self.owner.ended()
        # after the owner, which closes in most cases: then this system call is saved
        self._watch(self._mask & ~(READ | READ_HANGUP))

    # -- writing --

    def write(self, data: bytes) -> None:
        """Send now what the kernel takes, and the rest when it does; nothing behind `end` or `close`."""
        if self._state != OPEN or not data:
            return
        if self._out:
            self._out.append(data)
            self.queued += len(data)
        else:
            try:
                sent = self._send(data)
            except self.BLOCKED:
                sent = 0
            except OSError as error:
                self._refused(error)
                return
            self.active = self._reactor.now
            if sent == len(data):
                return
            self._out = deque((memoryview(data)[sent:] if sent else data,))
            self.queued = len(data) - sent
            self._watch(self._mask | WRITE)
        if self.queued > limits.QUEUE_HIGH:
            self.full = True

    def _refused(self, error: OSError) -> None:
        """The peer takes no more: the kernel keeps what it had said, and reports the end after that (tcp(7)).

        Only while it is read, and only for errors after which the reading comes to an end by itself.
        """
        heard = self.hears_out and self._mask & READ and isinstance(error, self.PEER_GONE)
        self._step(REFUSED if heard else LOST, error)

    def _flush(self) -> None:
        out = self._out
        while out:
            try:
                sent = self._send(out[0])
            except self.BLOCKED:
                break
            except OSError as error:
                self._refused(error)
                return
            self.queued -= sent
            if sent < len(out[0]):
                out[0] = memoryview(out[0])[sent:]
                break
            out.popleft()
        self.active = self._reactor.now
        if not out:
            self._out = _NOTHING
            self._watch(self._mask & ~WRITE)
            self._step(SENT)
        if self.full and self.queued <= limits.QUEUE_LOW:
            self.full = False
            if self._state < CLOSING:
                self.owner.drained()

    # -- the end --

    def end(self) -> None:
        """Send what is queued, then no more; reading goes on."""
        self._step(END)

    def close(self) -> None:
        """Send what is queued, then close. The owner gets `lost(None)`."""
        self._step(CLOSE)

    def hand_over(self) -> socket.socket:
        """Give the connected socket to a caller that serves it in its own way; nothing is called any more."""
        self._state = CLOSED
        self._reactor.forget(self._fd)
        return self._sock

    def abort(self) -> None:
        """Close at once and forget what is queued; TCP peers see a reset when something was."""
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        self._step(LOST, error)

    def _step(self, event: int, error: OSError | None = None) -> None:
        """Take one transition and do what the new state asks for."""
        before, self._state = self._state, TRANSITIONS[self._state, event]
        if self._state == before:
            return
        if self._state == CLOSED:
            if event == SENT:
                self._say_goodbye()
            self._release(error)
        elif self._state == ENDED:
            self._shut()
        elif self._state == CUT_OFF:
            self._error = error
            self._forget_queue()
            self._watch(self._mask & ~WRITE)
        elif not self._out:  # ENDING or CLOSING with nothing left to be sent
            self._step(SENT)
        elif self._state == CLOSING:
            self._watch(WRITE)

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)

    def _say_goodbye(self) -> None:
        """What an orderly end needs besides the socket's own."""

    def _forget_queue(self) -> None:
        self._out = _NOTHING
        self.queued = 0
        self.full = False

    def _release(self, error: OSError | None) -> None:
        self._reactor.forget(self._fd)
        self._forget_queue()
        self._sock.close()
        self._reactor.soon(lambda: self.owner.lost(error))


class _Unowned:
    """The owner of a stream until the one that uses it has set itself."""

    def received(self, data: bytes) -> None:
        """Not used yet."""

    def ended(self) -> None:
        """Not used yet."""

    def lost(self, error: OSError | None) -> None:
        """Not used yet."""

    def drained(self) -> None:
        """Not used yet."""


UNOWNED: Owner = _Unowned()
