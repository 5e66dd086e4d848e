"""One direction of a connection: from one socket to the other, through a pipe, or through a gate that looks at it."""

from __future__ import annotations

import socket
from collections.abc import Callable

from .pipes import SIZE, Pipe, Pipes, splice

READ_SIZE = 64 << 10
BUDGET = 1 << 20
"""Bytes that one direction moves before the others have their turn."""

READ, WRITE, PIPE, DONE, AGAIN = "read", "write", "pipe", "done", "again"
"""What a direction waits for: its source, its target, a pipe; nothing more will come; its next turn."""


class Duct:
    """Moves bytes from `source` to `target` until the source ends.

    Args:
        source, target: connected, non-blocking.
        pipes: where it gets its pipe from.

    Attributes:
        gate: while it is there, everything that is read goes through it; it returns what may be sent on.
        moved: bytes that the target has taken.
        waits: what the next step needs.
        broken: the target takes no more, or the source was reset.
    """

    __slots__ = ("_source", "_target", "_pipes", "_pipe", "_held", "_out", "_ended", "gate", "moved", "waits", "broken")

    def __init__(self, source: socket.socket, target: socket.socket, pipes: Pipes) -> None:
        self._source, self._target, self._pipes = source, target, pipes
        self._pipe: Pipe | None = None
        self._held = 0
        self._out = b""
        self._ended = False
        self.gate: Callable[[bytes], bytes] | None = None
        self.moved = 0
        self.waits = READ
        self.broken = False

    def push(self, data: bytes) -> None:
        """Send these bytes before anything else that comes."""
        self._out += data

    def step(self) -> None:
        """Move what can be moved now, and set `waits`; raises what the gate raises."""
        if self.waits == DONE:
            return
        try:
            self.waits = self._step()
        except OSError:
            self.broken = True
            self._finish()

    def _step(self) -> str:
        left = BUDGET
        while left > 0:
            if self._out or self._held:
                try:
                    sent = self._send()
                except BlockingIOError:
                    return WRITE
                self.moved += sent
                left -= sent
                continue
            if self._ended:
                self._target.shutdown(socket.SHUT_WR)
                self._finish()
                return DONE
            try:
                if not self._receive():
                    return PIPE
            except BlockingIOError:
                return READ
        return AGAIN

    def _send(self) -> int:
        if self._out:
            sent = self._target.send(self._out)
            self._out = self._out[sent:]
            return sent
        assert self._pipe is not None
        sent = splice(self._pipe[0], self._target.fileno(), self._held)
        self._held -= sent
        if not self._held:
            self._release()
        return sent

    def _receive(self) -> bool:
        """Read once; False when there is no pipe."""
        if self.gate is not None:
            data = self._source.recv(READ_SIZE)
            self._ended = not data
            self._out = self.gate(data) if data else b""
            return True
        pipe = self._pipes.take()
        if pipe is None:
            return False
        self._pipe = pipe
        try:
            self._held = splice(self._source.fileno(), pipe[1], SIZE)
        finally:
            if not self._held:
                self._release()
        self._ended = self._ended or not self._held
        return True

    def _release(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._pipes.give(pipe)

    def _finish(self) -> None:
        self.waits = DONE
        self.close()

    def close(self) -> None:
        """Forget what has not been delivered."""
        self._out = b""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            (self._pipes.drop if self._held else self._pipes.give)(pipe)
        self._held = 0
