"""Two connected sockets whose bytes go both ways, until both directions have ended."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from ..kit.reactor import READ, WRITE, Reactor
from ..kit.refusal import Refusal, Refused
from .duct import AGAIN, DONE, PIPE, Duct
from .duct import READ as SOURCE
from .duct import WRITE as TARGET
from .pipes import Pipes

ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER's value with which close(2) sends a reset (socket(7))."""


class Spliced:
    """Moves bytes between `one` and `other` from `start` on; the owner closes them.

    Args:
        reactor: the loop.
        pipes: where the ducts get their pipes from.
        one, other: connected, non-blocking, and not watched.
        ended: called once, when there is nothing more to move: True when both sides should see a reset.
        refused: called once, when a gate of `up` or `down` lets nothing pass any more.

    Attributes:
        up, down: from `one` to `other`, and back.
    """

    __slots__ = ("_reactor", "_pipes", "_ends", "_masks", "_ended", "_refused", "_again", "_over", "up", "down")

    def __init__(
        self,
        reactor: Reactor,
        pipes: Pipes,
        one: socket.socket,
        other: socket.socket,
        ended: Callable[[bool], None],
        refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        self._reactor, self._pipes, self._ends = reactor, pipes, (one, other)
        self._ended, self._refused = ended, refused
        self._masks = [0, 0]
        self._again = self._over = False
        self.up, self.down = Duct(one, other, pipes), Duct(other, one, pipes)

    def start(self) -> None:
        """Let both directions do what they can, then wait for what they need."""
        if self._over:
            return
        self._again = False
        up, down = self.up, self.down
        try:
            up.step()
            down.step()
        except Refused as refused:
            assert self._refused is not None  # gates are made by the owner
            self.stop()
            self._refused(refused.refusal)
            return
        half = up.broken and down.waits == SOURCE and not down.moved  # nothing was answered, and nothing can be asked
        if half or (up.waits == DONE and down.waits == DONE):
            self.stop()
            self._ended(half or up.broken or down.broken)
            return
        for duct in (up, down):
            if duct.waits == PIPE:
                self._pipes.wait(self.start)
            elif duct.waits == AGAIN and not self._again:
                self._again = True
                self._reactor.soon(self.start)
        self._watch(0, (READ if up.waits == SOURCE else 0) | (WRITE if down.waits == TARGET else 0))
        self._watch(1, (READ if down.waits == SOURCE else 0) | (WRITE if up.waits == TARGET else 0))

    def stop(self) -> None:
        """Move nothing more; nothing is called afterwards. May be repeated."""
        self._over = True
        self.up.close()
        self.down.close()
        for number in range(2):
            self._watch(number, 0)

    def _watch(self, number: int, mask: int) -> None:
        """Wait for these events; a socket without any is not watched at all, or its hang-up would come for ever."""
        before, self._masks[number] = self._masks[number], mask
        fd = self._ends[number].fileno()
        if before == mask:
            return
        if not before:
            self._reactor.watch(fd, mask, lambda _events: self.start())
        elif mask:
            self._reactor.modify(fd, mask)
        else:
            self._reactor.forget(fd)
