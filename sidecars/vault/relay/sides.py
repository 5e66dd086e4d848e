"""The two interfaces of an exchange, kept apart to avoid an import cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...kit.codec import Answer
    from ...kit.refusal import Refusal
    from ...kit.stream import Stream
    from .exchange import Exchange


class Caller(Protocol):
    """The client's connection, as an exchange sees it."""

    wire: Stream

    def answered(self, exchange: Exchange, *, keep: bool) -> None:
        """The answer is complete; `keep`: the connection may carry another request."""

    def refuse(self, refusal: Refusal, *, close: bool) -> None:
        """Send an error instead of the answer."""


class Watcher(Protocol):
    """Looks at an exchange and keeps the books."""

    def begins(self, exchange: Exchange, answer: Answer, came: bytes) -> Refusal | None:
        """The answer's head is there, `came` is it and what came with it; a refusal is sent instead of it."""

    def carries_secret(self, exchange: Exchange, head: bytes) -> Refusal | None:
        """An interim head (1xx) is about to go to the client; a refusal is sent instead of it."""

    def passes(self, exchange: Exchange, payload: bytes, *, last: bool, seen: bool = False) -> bytes:
        """Payload is about to go to the client; returns what may go. Raises Refused when none may any more.

        `last`: nothing follows. `seen`: it was in what `begins` was given, as it is here.
        """

    def ends(self, exchange: Exchange) -> None:
        """The answer is complete: write it down, then call the exchange's `audited`."""

    def fails(self, exchange: Exchange, refusal: Refusal) -> None:
        """The exchange ended early."""

    def renew(self, exchange: Exchange) -> bool:
        """The upstream said 401: True when the exchange will be sent again by `again`."""
