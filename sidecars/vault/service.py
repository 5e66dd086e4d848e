"""The vault's service for one container: takes connections, admits requests, keeps the books."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..kit import limits as shared
from ..kit.accept import Acceptor, Idle
from ..kit.codec import Request, parse_request
from ..kit.dial import Dialling
from ..kit.reactor import Reactor
from ..kit.refusal import Refusal
from ..kit.stream import Stream
from . import limits
from .books.watch import Books
from .client import Client
from .decide import Plan, decide
from .gated.body import Held
from .heads import Heads
from .inject import NOTHING, Loaded
from .keeper import Keeper
from .relay.exchange import Exchange
from .renew import Renewer
from .storage import decide_storage
from .tls.asked import decide_at
from .upstream.pool import Pool

if TYPE_CHECKING:
    from ..kit.tls.layer import TlsStream
    from .tls.door import Door
    from .tls.links import Link
    from .tls.site import Site, Sites


_DESCRIPTORS_EACH = 4


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
        sites: the brokered hosts, whose connections come through a door (`open_door`).
    """

    def __init__(
        self,
        reactor: Reactor,
        keeper: Keeper,
        books: Books,
        renewer: Renewer,
        dialer: Dialling,
        listeners: Sequence[socket.socket],
        idle_seconds: int,
        sites: Sites | None = None,
    ) -> None:
        self.reactor, self.keeper, self.books = reactor, keeper, books
        self.pool = Pool(reactor, dialer)
        self.heads = Heads()
        self.stopping = False
        self._renewer, self._reach, self._generation = renewer, keeper.reach(), keeper.generation
        books.renewal = self._renew
        self._acceptor = Acceptor(reactor, listeners, self._accepted)
        self._sites = sites
        self._door: Door | None = None
        self._clients: set[Client] = set()
        self._clients_max = clients_max()
        self._queues = shared.QUEUE_HIGH, shared.QUEUE_LOW, shared.READ_MAX
        self._idle = Idle(reactor, idle_seconds, lambda: self._crowd() > 0)

    # --- connections ---

    def open_door(self, door: Door) -> None:
        """Take connections to brokered hosts too; before `start`."""
        self._door = door

    def start(self) -> None:
        """Accept from now on."""
        self._accept()
        self._idle.start()

    def _accept(self) -> None:
        """Accept when there is room for another client, and not otherwise."""
        room = not self.stopping and self._crowd() < self._clients_max
        for way in (self._acceptor, self._door):
            if way is not None:
                (way.start if room else way.stop)()

    def _crowd(self) -> int:
        return len(self._clients) + (len(self._door) if self._door is not None else 0)

    def _accepted(self, sock: socket.socket) -> None:
        self._add(Client(self, Stream(self.reactor, sock, None)))

    def admit(self, wire: TlsStream, site: Site, link: Link) -> None:
        """A client of a brokered host, its TLS up; `link`: of the relay that passed it on."""
        link.cut = wire.abort
        self._add(Client(self, wire, site, link))

    def turned_away(self, host: str, refusal: Refusal) -> None:
        """A connection to a brokered host that was not served, or carried no request."""
        self.books.turned_away(host, refusal)

    def _add(self, client: Client) -> None:
        self._clients.add(client)
        self._share()
        self.crowd_changed()

    def _share(self) -> None:
        """Let all clients' queues together hold `QUEUES_MAX` at most, about: what a container may make us keep."""
        high, low, read = self._queues
        share = max(shared.READ_MIN, limits.QUEUES_MAX // (2 * max(1, len(self._clients))))
        shared.QUEUE_HIGH, shared.QUEUE_LOW, shared.READ_MAX = min(high, share), min(low, share // 4), min(read, share)

    def left(self, client: Client) -> None:
        """A client's connection is gone."""
        self._clients.discard(client)
        if client.link is not None:
            client.link.close()
        self._share()
        self.crowd_changed()

    def crowd_changed(self) -> None:
        """A client came or left, or one that is not served yet."""
        crowd = self._crowd()
        if not crowd:
            self._idle.begins()
            if self.stopping:
                self.reactor.stop()
        self._accept()

    def stop(self) -> None:
        """Finish what runs, within `STOP_SECONDS`; then leave. New clients wait in the kernel's queue."""
        self.retire()
        self.reactor.later(limits.STOP_SECONDS, self._cut)

    def _cut(self) -> None:
        for client in list(self._clients):
            client.cut(Refusal(503, "stopping", "The vault was stopped.", "send it again", retry_after=1))
        if self._door is not None:
            self._door.close()
        self.reactor.soon(self.reactor.stop)

    # --- requests ---

    def look(self) -> None:
        """Notice what changed in the store and the routes; at most once in a turn of the loop."""
        self.keeper.look(self.reactor.now)
        if self.keeper.generation != self._generation:
            self._changed()

    def serve(self, client: Client, head: bytes, rest: bytes) -> None:
        """Decide about a request: give the client an exchange that starts, or the refusal, audited already.

        Raises:
            Refused: the head cannot be read.
        """
        self.look()
        heads = self.heads if client.site is None else client.site.heads
        plan = heads.find(head)
        if plan is None:
            request = parse_request(head)
            decision = self._decide(request, client.site)
            if isinstance(decision, Refusal):
                self._refuse(client, request, decision, rest)
                return
            plan = decision
            heads.keep(head, plan)
        if plan.judge is None:
            self._begin(client, plan, rest)
        else:
            client.take(self._held(client, plan), rest, wait=False)

    def _held(self, client: Client, plan: Plan) -> Held:
        def refuse(refusal: Refusal, whole: bool) -> None:
            self.books.refused(refusal, plan.request, client.host)
            client.refuse(refusal, close=not whole or not plan.request.keep)

        return Held(client, plan, self.reactor.now, lambda body: self._begin(client, plan, body), refuse)

    def _begin(self, client: Client, plan: Plan, rest: bytes) -> None:
        """Admit a request and start its exchange; `rest` came behind its head."""
        loaded = self.keeper.credential(plan.grant) if plan.ours else NOTHING
        refusal = loaded if isinstance(loaded, Refusal) else self.books.admit(plan)
        if refusal is not None or isinstance(loaded, Refusal):
            assert refusal is not None
            self._refuse(client, plan.request, refusal, rest)
            return
        wait = self._renewer.must_wait(plan.grant, plan.route, loaded)
        exchange = Exchange(client, self.books, self.pool, plan, loaded, self.reactor.now)
        client.take(exchange, rest, wait=wait)
        if wait:
            self._renewer.ask(plan.grant, None, self._renewed(exchange))

    def _refuse(self, client: Client, request: Request, refusal: Refusal, rest: bytes) -> None:
        self.books.refused(refusal, request, client.host)
        client.refuse(refusal, close=bool(request.length or rest) or not request.keep)

    def _decide(self, request: Request, site: Site | None) -> Plan | Refusal:
        """Where a request goes, when its upstream is within the confinement."""
        keeper = self.keeper
        if site is None:
            away = decide_storage(request, keeper.places, keeper.lookup, keeper.storage(), keeper.is_upstream)
            plan = away or decide(request, keeper.places, keeper.lookup, keeper.route)
        else:
            here = keeper.at(site.host, site.port)
            plan = decide_at(site, request, keeper.places, keeper.lookup, keeper.route, here)
        if isinstance(plan, Refusal) or self._reach.covers(plan.target.endpoint):
            return plan
        why = "The vault starts again, because its routes lead elsewhere now."
        return Refusal(503, "restart", why, "send it again", plan.grant.provider, plan.grant.scope, 1)

    def _renew(self, exchange: Exchange) -> bool:
        """The upstream said 401: have the login refreshed, when it is one."""
        if self._renewer.missing or not self._renewer.can(exchange.plan.route, exchange.loaded):
            return False
        self._renewer.ask(exchange.plan.grant, exchange.loaded.version, self._renewed(exchange))
        return True

    def _renewed(self, exchange: Exchange) -> Callable[[Loaded | Refusal], None]:
        def done(outcome: Loaded | Refusal) -> None:
            if isinstance(outcome, Refusal):
                exchange.stop(outcome)
                return
            exchange.again(outcome)

        return done

    def _changed(self) -> None:
        """Tokens, routes or credentials were read again: go on, or start again when the confinement no longer fits."""
        self._generation = self.keeper.generation
        self.heads.forget()
        if self._sites is not None:
            self._sites.forget()
        if self._door is not None:
            self._door.renew()
        if not self._reach.holds(self.keeper.reach()) or (self._renewer.missing and self.keeper.logins()):
            self.retire()

    def retire(self) -> None:
        """Finish what runs and leave; the supervisor starts the vault again at the next connection."""
        self.stopping = True
        for client in list(self._clients):
            client.stop()
        self.crowd_changed()


def clients_max() -> int:
    """How many clients fit, after the limit of descriptors was raised as far as it goes.

    Each may need a descriptor of its own, one upstream and a link; and the pool some.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.CLIENTS_MAX * _DESCRIPTORS_EACH + limits.DESCRIPTORS_RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        top = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
            soft = top
        except (OSError, ValueError):
            pass  # fewer clients then
    if soft == resource.RLIM_INFINITY:
        return limits.CLIENTS_MAX
    return max(1, min(limits.CLIENTS_MAX, (soft - limits.DESCRIPTORS_RESERVED) // _DESCRIPTORS_EACH))
