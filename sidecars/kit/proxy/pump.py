"""Bytes between a TLS stream and a local socket, both ways: what is behind it speaks to the proxy without TLS.

A proxy with https:// has its own TLS around everything, and inside of it the upstream's. One library call cannot hold
both on one descriptor, and another process cannot continue it; a socket pair can.
"""

from __future__ import annotations

import socket

from ..reactor import Reactor
from ..stream import Stream


class _Side:
    """The owner of one stream: everything that it reads goes to the other one."""

    __slots__ = ("stream", "other")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.other: _Side = self

    def received(self, data: bytes) -> None:
        """Pass it on, and read no more while the other side is full."""
        self.other.stream.write(data)
        if self.other.stream.full:
            self.stream.pause()

    def ended(self) -> None:
        """Pass the end on; TLS cannot be half closed towards every server, so a proxy's end ends both."""
        self.other.stream.end()

    def lost(self, _error: OSError | None) -> None:
        """The other side has nothing more to talk to."""
        self.other.stream.close()

    def drained(self) -> None:
        """There is room again."""
        self.other.stream.resume()


def pump(reactor: Reactor, stream: Stream) -> socket.socket:
    """A non-blocking socket that leads to `stream`, for as long as the loop runs; raises OSError without a pair."""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    near, far = _Side(Stream(reactor, here, None)), _Side(stream)
    near.stream.owner, near.other = near, far
    stream.owner, far.other = far, near
    stream.resume()
    return there
