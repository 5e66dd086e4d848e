"""The vault's service for one container: takes connections, admits requests, keeps the books."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..kit import limits as shared
from ..kit.dial import Dialer
from ..kit.reactor import READ, Reactor
from ..kit.refusal import Refusal
from ..kit.stream import Stream
from . import limits
from .books.watch import Books
from .client import Client
from .decide import decide
from .exchange import Exchange
from .heads import Heads, Seen
from .keeper import Keeper, Loaded
from .renew import Renewer
from .upstream.pool import Pool

if TYPE_CHECKING:
    from .heads import Admitted


class Service:
    """Serves the listeners until it is idle or told to stop.

    Args:
        reactor: the loop.
        keeper: tokens, routes, credentials.
        books: audit, usage, limits, echo guard.
        renewer: refreshes logins.
        dialer: connections upstream.
        listeners: non-blocking listening sockets.
        idle_seconds: leave after this long without a client; 0: stay.
    """

    def __init__(
        self,
        reactor: Reactor,
        keeper: Keeper,
        books: Books,
        renewer: Renewer,
        dialer: Dialer,
        listeners: Sequence[socket.socket],
        idle_seconds: int,
    ) -> None:
        self.reactor, self.keeper, self.books = reactor, keeper, books
        self.pool = Pool(reactor, dialer)
        self.heads = Heads()
        self.stopping = False
        self._renewer, self._reach, self._generation = renewer, keeper.reach(), keeper.generation
        books.renewal = self._renew
        self._listeners = list(listeners)
        self._clients: set[Client] = set()
        self._clients_max = clients_max()
        self._accepting = False
        self._idle_seconds = idle_seconds
        self._idle_since = reactor.now

    # --- connections ---

    def start(self) -> None:
        """Accept from now on."""
        self._accept_on()
        if self._idle_seconds:
            self.reactor.later(self._idle_seconds, self._idle)

    def _accept_on(self) -> None:
        if not self._accepting and not self.stopping:
            self._accepting = True
            for listener in self._listeners:
                self.reactor.watch(listener.fileno(), READ, self._acceptor(listener))

    def _accept_off(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self.reactor.forget(listener.fileno())

    def _acceptor(self, listener: socket.socket) -> Callable[[int], None]:
        tcp = listener.family == socket.AF_INET

        def accept(_events: int) -> None:
            for _ in range(shared.ACCEPTS_A_TURN):
                if len(self._clients) >= self._clients_max:
                    self._accept_off()
                    return
                try:
                    sock, _ = listener.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    return
                except OSError:
                    # out of descriptors: whoever waits stays in the kernel's queue until something is closed
                    self._accept_off()
                    self.reactor.later(shared.ACCEPT_RETRY_SECONDS, self._accept_on)
                    return
                sock.setblocking(False)
                if tcp:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients.add(Client(self, Stream(self.reactor, sock, None)))

        return accept

    def left(self, client: Client) -> None:
        """A client's connection is gone."""
        self._clients.discard(client)
        if not self._clients:
            self._idle_since = self.reactor.now
            if self.stopping:
                self.reactor.stop()
        if not self._accepting and len(self._clients) < self._clients_max:
            self._accept_on()

    def _idle(self) -> None:
        left = self._idle_since + self._idle_seconds - self.reactor.now
        if self._clients:
            self.reactor.later(self._idle_seconds, self._idle)
        elif left > 0:
            self.reactor.later(left, self._idle)
        else:
            self.reactor.stop()

    def stop(self) -> None:
        """Finish what runs, within `STOP_SECONDS`; then leave. New clients wait in the kernel's queue."""
        self.retire()
        self.reactor.later(limits.STOP_SECONDS, self._cut)

    def _cut(self) -> None:
        for client in list(self._clients):
            client.cut(Refusal(503, "stopping", "The vault was stopped.", "send it again", retry_after=1))
        self.reactor.soon(self.reactor.stop)

    # --- requests ---

    def admit(self, client: Client, seen: Seen) -> Exchange | Refusal:
        """Decide about a request: an exchange that can start, or why not (audited already)."""
        keeper = self.keeper
        keeper.look(self.reactor.now)
        if keeper.generation != self._generation:
            self._changed()
        found = seen.admitted(keeper.generation) or self._decide(seen)
        if isinstance(found, Refusal):
            self.books.refused(found, seen.request)
            return found
        plan, loaded = found.plan, found.loaded
        refusal = self.books.admit(plan)
        if refusal is not None:
            self.books.refused(refusal, seen.request)
            return refusal
        wait = self._renewer.must_wait(plan.grant, plan.route, loaded)
        added = None if wait else keeper.added(loaded, plan.target)
        exchange = Exchange(client, self.books, self.pool, found, added, self.reactor.now)
        if wait:
            self._renewer.ask(plan.grant, None, self._renewed(exchange))
        return exchange

    def _decide(self, seen: Seen) -> Admitted | Refusal:
        """Find the plan and the credential for a head, and keep them with it; or why there are none."""
        keeper = self.keeper
        plan = decide(seen.request, keeper.places, keeper.lookup, keeper.route)
        if isinstance(plan, Refusal):
            return plan
        loaded = keeper.credential(plan.grant)
        if isinstance(loaded, Refusal):
            return loaded
        if not self._reach.covers(plan.target.endpoint):
            why = "The vault starts again, because its routes lead elsewhere now."
            return Refusal(503, "restart", why, "send it again", plan.route.name, plan.scope, 1)
        return seen.admit(keeper.generation, plan, loaded)

    def _renew(self, exchange: Exchange) -> bool:
        """The upstream said 401: have the login refreshed, when it is one."""
        if self._renewer.missing or not self._renewer.can(exchange.plan.route, exchange.loaded):
            return False
        self._renewer.ask(exchange.grant, exchange.loaded.version, self._renewed(exchange))
        return True

    def _renewed(self, exchange: Exchange) -> Callable[[Loaded | Refusal], None]:
        def done(found: Loaded | Refusal) -> None:
            if isinstance(found, Refusal):
                exchange.stop(found)
                return
            exchange.plan.target.added = None  # made with the credential before
            exchange.again(found, self.keeper.added(found, exchange.plan.target))

        return done

    def _changed(self) -> None:
        """Tokens, routes or credentials were read again: go on, or start again when the confinement no longer fits."""
        self._generation = self.keeper.generation
        self.heads.forget()
        if not self._reach.holds(self.keeper.reach()) or (self._renewer.missing and self.keeper.logins()):
            self.retire()

    def retire(self) -> None:
        """Finish what runs and leave; the supervisor starts the vault again at the next connection."""
        self.stopping = True
        self._accept_off()
        for client in list(self._clients):
            client.stop()
        if not self._clients:
            self.reactor.stop()


def clients_max() -> int:
    """How many clients fit: each may need a descriptor of its own and one upstream, and the pool some."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.CLIENTS_MAX
    return max(1, min(limits.CLIENTS_MAX, (soft - limits.DESCRIPTORS_RESERVED) // 3))
