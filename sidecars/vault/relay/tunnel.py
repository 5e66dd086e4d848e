"""A connection whose protocol was switched (RFC 9110, section 7.8): bytes both ways, each side at the other's pace."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...kit.stream import Stream


def carry(data: bytes, source: Stream, sink: Stream) -> None:
    """Send what came from `source`; when `sink` is full, read no more of it until `sink` has drained."""
    sink.write(data)
    if sink.full:
        source.pause()


class Tunnel:
    """The two connections.

    Attributes:
        sent, got: bytes to the upstream, and to the client.
    """

    __slots__ = ("_client", "_upstream", "sent", "got")

    def __init__(self, client: Stream, upstream: Stream) -> None:
        self._client, self._upstream = client, upstream
        self.sent = self.got = 0

    def __repr__(self) -> str:
        return f"<Tunnel sent={self.sent} got={self.got}>"

    def to_upstream(self, data: bytes) -> None:
        """Bytes from the client."""
        self.sent += len(data)
        carry(data, self._client, self._upstream)

    def to_client(self, came: int, data: bytes) -> None:
        """What may pass of `came` bytes from the upstream."""
        self.got += came
        carry(data, self._upstream, self._client)

    def client_ended(self) -> None:
        """The client sends no more: hand that on."""
        self._upstream.end()
