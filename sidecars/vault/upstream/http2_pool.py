"""Which HTTP/2 connection carries an exchange: one an upstream, more only when its streams are all taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...kit import limits
from .http2 import Session

if TYPE_CHECKING:
    from ...kit.dial import DialError, Endpoint
    from ...kit.reactor import Reactor, Timer
    from ...kit.stream import Wire
    from .pool import Pool, Taker

Key = tuple[object, ...]


class Sessions:
    """HTTP/2 connections by endpoint.

    Args:
        reactor: the loop.
        pool: makes connections, and keeps those that turn out to speak HTTP/1.1.
    """

    def __init__(self, reactor: Reactor, pool: Pool) -> None:
        self._reactor, self._pool = reactor, pool
        self._open: dict[Key, list[Session]] = {}
        self._waiting: dict[Key, list[Taker]] = {}
        self._dialing: set[Key] = set()
        self._plain: set[Key] = set()
        self._sweep: Timer | None = None

    def take(self, endpoint: Endpoint, taker: Taker) -> bool:
        """Give the taker a stream, now or later; False when the upstream does not speak HTTP/2."""
        key = endpoint.key
        if key in self._plain:
            return False
        if not self._waiting.get(key):
            for session in self._open.get(key, ()):
                if session.room > 0:
                    session.carry(taker)
                    return True
        self._waiting.setdefault(key, []).append(taker)
        self._dial(endpoint)
        return True

    def _dial(self, endpoint: Endpoint) -> None:
        """Make another connection, unless one is about to offer room."""
        key = endpoint.key
        if key in self._dialing or any(session.settling for session in self._open.get(key, ())):
            return
        self._dialing.add(key)

        def done(wire: Wire | None, error: DialError | None) -> None:
            self._dialing.discard(key)
            if wire is not None and wire.http2:
                session = Session(self._reactor, wire, endpoint, self._changed)
                self._open.setdefault(key, []).append(session)
                self._serve(key, endpoint)
                return
            takers = self._waiting.pop(key, [])
            if wire is None and error is not None:
                for taker in takers:
                    taker.unreachable(error)
            elif wire is not None:
                self._plain.add(key)
                self._pool.adopt(endpoint.classic, wire, takers[0])
                for taker in takers[1:]:
                    self._pool.take(endpoint, taker)

        self._pool.dial(endpoint, done)

    def _serve(self, key: Key, endpoint: Endpoint) -> None:
        """Give streams to those who wait; dial again when some go on waiting."""
        waiting = self._waiting.get(key, [])
        for session in list(self._open.get(key, ())):
            while waiting and session.room > 0:
                session.carry(waiting.pop(0))
        if waiting:
            self._dial(endpoint)

    def _changed(self, session: Session) -> None:
        key = session.endpoint.key
        sessions = self._open.get(key, [])
        if session.leaving and session in sessions:
            sessions.remove(session)
        if self._waiting.get(key):
            self._serve(key, session.endpoint)
        elif not session.leaving and not session.busy and self._sweep is None:
            self._sweep = self._reactor.later(limits.POOL_IDLE_SECONDS, self._swept)

    def _swept(self) -> None:
        """Close what carried nothing for too long; wake up again only while something is idle."""
        self._sweep = None
        oldest = self._reactor.now - limits.POOL_IDLE_SECONDS
        idle = [each for sessions in self._open.values() for each in sessions if not each.busy]
        left = [each.since for each in idle if each.since > oldest]
        for session in [each for each in idle if each.since <= oldest]:
            session.close()
        if left:
            self._sweep = self._reactor.later(max(0.05, min(left) - oldest), self._swept)
