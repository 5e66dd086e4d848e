"""Connections to upstreams: one exchange at a time on each, kept for the next one when both sides allow it."""

from __future__ import annotations

from typing import Protocol

from ...kit.dial import Connected, Dialling, Endpoint
from ...kit.reactor import Reactor, Timer
from ...kit.refusal import Refusal
from ...kit.stream import Stream
from .. import limits


class Taker(Protocol):
    """Who uses a connection for one exchange."""

    def connected(self, upstream: Upstream) -> None:
        """The connection is there."""

    def unreachable(self, error: Refusal) -> None:
        """There is none."""

    def answer(self, data: bytes) -> None:
        """Bytes from the upstream."""

    def answer_ended(self) -> None:
        """The upstream sends no more."""

    def upstream_lost(self, error: OSError | None) -> None:
        """The connection broke."""

    def upstream_drained(self) -> None:
        """The upstream takes bytes again."""


class Upstream:
    """One connection to an upstream, as the owner of its wire.

    Attributes:
        wire: the connection.
        taker: whose exchange it carries; None while it is kept.
        used: whether it carried an exchange before this one.
    """

    __slots__ = ("_pool", "endpoint", "wire", "taker", "used", "since", "ready")

    def __init__(self, pool: Pool, endpoint: Endpoint, wire: Stream, taker: Taker) -> None:
        self._pool, self.endpoint, self.wire = pool, endpoint, wire
        self.taker: Taker | None = taker
        self.used = False
        self.since = self.ready = 0.0
        wire.owner = self

    def received(self, data: bytes) -> None:
        """Hand on; a kept connection that speaks is of no use."""
        if self.taker is None:
            self._pool.drop(self)
        else:
            self.taker.answer(data)

    def ended(self) -> None:
        """Hand on; a kept connection that ends is closed."""
        if self.taker is None:
            self._pool.drop(self)
        else:
            self.taker.answer_ended()

    def lost(self, error: OSError | None) -> None:
        """Hand on."""
        taker, self.taker = self.taker, None
        if taker is None:
            self._pool.drop(self)
        else:
            taker.upstream_lost(error)

    def drained(self) -> None:
        """Hand on."""
        if self.taker is not None:
            self.taker.upstream_drained()

    def discard(self) -> None:
        """The exchange is over and the connection cannot be used again."""
        self.taker = None
        self.wire.abort()

    def release(self, *, rest: bool = False) -> None:
        """The exchange is over; keep the connection. `rest`: bytes may still follow that belong to no answer."""
        self.taker = None
        self._pool.keep(self, limits.REST_SECONDS if rest else 0.0)


class Pool:
    """Kept connections by endpoint, the last one used first.

    Args:
        reactor: the loop.
        dialer: makes new ones.
    """

    def __init__(self, reactor: Reactor, dialer: Dialling) -> None:
        self.reactor, self._dialer = reactor, dialer
        self._kept: dict[tuple[object, ...], list[Upstream]] = {}
        self._sweep: Timer | None = None

    def take(self, endpoint: Endpoint, taker: Taker, *, fresh: bool = False) -> None:
        """Give `taker` a connection: a kept one at once, or a new one later; `fresh` asks for a new one."""
        upstream = None if fresh else self._rested(endpoint)
        if upstream is not None:
            upstream.taker = taker
            taker.connected(upstream)
            return
        self._dialer.dial(endpoint, self._dialled(endpoint, taker))

    def _rested(self, endpoint: Endpoint) -> Upstream | None:
        kept = self._kept.get(endpoint.key, ())
        for upstream in reversed(kept):
            if upstream.ready <= self.reactor.now and not upstream.wire.dead:
                self._kept[endpoint.key].remove(upstream)
                return upstream
        return None

    def _dialled(self, endpoint: Endpoint, taker: Taker) -> Connected:
        def done(wire: Stream | None, error: Refusal | None) -> None:
            if wire is not None:
                taker.connected(Upstream(self, endpoint, wire, taker))
            elif error is not None:
                taker.unreachable(error)

        return done

    def keep(self, upstream: Upstream, rest: float) -> None:
        """Keep a connection for the next exchange, when there is room; what speaks while it is kept is dropped.

        `rest`: seconds for which it is not used, so that stray bytes show before an answer can be taken for them.
        """
        upstream.used = True
        upstream.since = self.reactor.now
        upstream.ready = upstream.since + rest
        kept = self._kept.setdefault(upstream.endpoint.key, [])
        if len(kept) >= limits.POOL_IDLE_MAX or upstream.wire.dead:
            upstream.wire.abort()
            return
        kept.append(upstream)
        if self._sweep is None:
            self._sweep = self.reactor.later(limits.POOL_IDLE_SECONDS, self._swept)

    def drop(self, upstream: Upstream) -> None:
        """Forget a kept connection."""
        kept = self._kept.get(upstream.endpoint.key)
        if kept and upstream in kept:
            kept.remove(upstream)
        upstream.wire.abort()

    def _swept(self) -> None:
        """Close what was kept too long; wake up again only while something is kept."""
        oldest = self.reactor.now - limits.POOL_IDLE_SECONDS
        left = [idle.since for kept in self._kept.values() for idle in kept if idle.since > oldest]
        for kept in self._kept.values():
            for upstream in [idle for idle in kept if idle.since <= oldest]:
                self.drop(upstream)
        self._sweep = None
        if left:
            self._sweep = self.reactor.later(max(0.05, min(left) - oldest), self._swept)

    def close(self) -> None:
        """Close everything that is kept."""
        for kept in self._kept.values():
            for upstream in list(kept):
                self.drop(upstream)
