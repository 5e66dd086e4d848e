"""One connection of the container: what it shows, where it may go, and the bytes both ways.

Rules of this file:
- nothing goes upstream, and nothing is dialled, before the policy has allowed it;
- a name that the connection shows is compared with the one that its address stands for;
- a connection to a brokered host is handed to the vault unread, and never goes out;
- a connection whose name has to be asked about waits for the operator's decision, and is read no further;
- every connection leaves a line when it begins and one when it ends, and a refused one a line with the reason.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ...supervisor.ground import paste
from ..kit.dial import Endpoint
from ..kit.reactor import ERROR, HANGUP, READ, READ_HANGUP, Timer
from ..kit.refusal import Refused
from ..kit.tls import hello
from ..kit.tls.peek import WAIT, Peek
from ..shield.special import HOST_NAME
from .duct import READ_SIZE
from .heads import SWITCHED, forbidden
from .policy import Proof, Route, Verdict
from .shown import Shown
from .spliced import ABORT, Spliced
from .states import State

if TYPE_CHECKING:
    from typing import Protocol

    from ..kit.dial import Dialling
    from ..kit.reactor import Reactor
    from ..kit.refusal import Refusal
    from ..kit.stream import Stream
    from .asking import Asking
    from .handover import Gift, Handover
    from .pipes import Pipes
    from .policy import Policy

    class Service(Protocol):
        """The relay, as a connection sees it."""

        reactor: Reactor
        dialer: Dialling
        pipes: Pipes
        policy: Policy
        handover: Handover
        asking: Asking

        def clock(self) -> float: ...
        def dialable(self, address: str, port: int) -> str: ...
        def opened(self, flow: Flow) -> int: ...
        def closed(self, flow: Flow, number: int, moved: list[int], seconds: float, why: str) -> None: ...
        def handed(self, flow: Flow) -> int: ...
        def failed(self, flow: Flow, why: str) -> None: ...
        def refused(self, name: str, route: Route, verdict: Verdict) -> None: ...
        def left(self, flow: Flow) -> None: ...


SHOW_SECONDS = 10.0
"""How long a client may take to show the name that it wants."""
LINGER_SECONDS = 1.0
"""How long a refused client may take to read why."""


class Flow:
    """One accepted connection.

    Args:
        service: the relay.
        client: the container's end, non-blocking.
        route: where its address leads.
    """

    __slots__ = (
        "_service", "_client", "_server", "_state", "_seen", "_timer", "_shown", "_mask", "_spliced",
        "_began", "_number", "_peek", "_gift", "_once", "route", "address", "via", "verdict", "_reply",
    )  # fmt: skip

    def __init__(self, service: Service, client: socket.socket, route: Route) -> None:
        self._service, self._client, self.route = service, client, route
        self._server: socket.socket | None = None
        self._state = State.SHOWING
        self._seen = b""
        self._timer: Timer | None = None
        self._shown = Shown(service, route)
        self._mask = 0
        self._spliced: Spliced | None = None
        self._began = service.reactor.now
        self._number = 0
        self._reply = b""
        self._peek = Peek(client) if route.unread else None
        self._gift: Gift | None = None
        self._once = False  # the operator has allowed this connection, and nothing more
        self.address = route.address
        self.via = ""  # the proxy that connects for us: it knows the address, and this side does not
        self.verdict = Verdict(False, "")

    def __repr__(self) -> str:
        return f"<Flow {self._state.value} {self.name or self.address or self.route.pattern}:{self.route.port}>"

    def start(self) -> None:
        """Wait for what the connection has to show, or connect at once."""
        if self.route.brokered or self.route.proof in (Proof.NONE, Proof.TLS_IF_ANY):
            self._dial()
            return
        self._timer = self._service.reactor.later(SHOW_SECONDS, self._late)
        self._watch(READ if self._peek is None else WAIT)

    # --- showing ---------------------------------------------------------------------------------------------

    def _show(self, events: int) -> None:
        """More of the first bytes."""
        try:
            data = self._peek.more(events) if self._peek is not None else self._client.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data is None:
            return
        if not data:
            self._close()
            return
        self._seen += data
        try:
            passed = self._shown.judge(self._seen)
        except hello.Incomplete:
            if len(self._seen) > hello.BUFFER_MAX:
                self._refuse(Verdict(False, "the ClientHello is too long"))
        except hello.Malformed as error:
            self._refuse(Verdict(False, error.why))
        except Refused as refused:
            self._refuse(Verdict(False, refused.refusal.why, refused.refusal.allow))
        else:
            if passed is not None:
                self._seen = passed
                self._dial()

    def _late(self) -> None:
        self._refuse(Verdict(False, f"the client showed no name within {SHOW_SECONDS:g} s"))

    # --- dialling ----------------------------------------------------------------------------------------

    def _dial(self) -> None:
        service, port = self._service, self.route.port
        verdict = self._verdict()
        if verdict.ask:
            self._ask(verdict)
            return
        if not verdict.allowed:  # it may have been denied meanwhile
            self._refuse(verdict)
            return
        self.verdict = verdict
        self._stop_timer()
        self._watch(0)
        if (self.name, port) in service.policy.brokered:
            self._hand_over()
            return
        if self._peek is not None:
            self._peek.take()
        self._state = State.DIALLING
        host = self.name or self.address
        if host == HOST_NAME:
            endpoint = Endpoint("127.0.0.1", port, tls=False, judge=lambda _address: "")
        else:
            endpoint = Endpoint(host, port, tls=False, judge=lambda address: service.dialable(address, port))
        self.via = service.dialer.via(endpoint.host)
        service.dialer.dial(endpoint, self._dialled)

    def _ask(self, verdict: Verdict) -> None:
        self._stop_timer()
        self._state = State.ASKING
        self._watch(READ_HANGUP)  # a client that gives up is noticed; what it sends stays in the kernel
        why = self._service.asking.hold(self.name, self.route.port, self._settled)
        if why:
            self._refuse(Verdict(False, why, verdict.allow))

    def _settled(self, why: str) -> None:
        """The question has been answered: `why` is empty when the connection may go on."""
        verdict = self._verdict()
        self._once = not why and verdict.ask
        if why:
            self._refuse(Verdict(False, why, verdict.allow))
        else:
            self._dial()

    def _hand_over(self) -> None:
        if self._shown.requests is not None:
            self._refuse(Verdict(False, f"{self.name} is reached over TLS only"))
            return
        if self._peek is not None:
            self._peek.leave()
        self._state = State.HANDING
        give = self._service.handover.give
        self._gift = give(self._client, self.name, self.route.port, self._handed, self._over)

    def _handed(self, why: str) -> None:
        if not why:
            self._state = State.HANDED
            self._client.close()
            self._number = self._service.handed(self)
            return
        self._gift = None
        try:
            self._seen = self._client.recv(READ_SIZE)  # unread bytes would turn the alert into a reset
        except OSError:
            self._seen = b""
        self._refuse(Verdict(False, why, paste.command("terok", "status")), hello.INTERNAL_ERROR)

    def _over(self) -> None:
        """The vault has closed it."""
        self._gift = None
        self._close()

    def _verdict(self) -> Verdict:
        """What the policy says now."""
        policy, now, port = self._service.policy, self._service.clock(), self.route.port
        if not self.name:
            return policy.judge_address(self.address, port, now)
        verdict = policy.judge_name(self.name, port, now)
        return Verdict(True, "asked", word="allowed-once") if verdict.ask and self._once else verdict

    def _dialled(self, stream: Stream | None, refusal: Refusal | None) -> None:
        if self._state is not State.DIALLING:
            if stream is not None:
                stream.abort()
            return
        if stream is None:
            assert refusal is not None
            self._service.failed(self, refusal.why)
            self._close(abort=True)
            return
        self._server = stream.hand_over()
        try:
            peer = self._server.getpeername()
            self.address = self.address if self.via else str(peer[0])
        except OSError as error:
            self._service.failed(self, f"the connection ended at once: {error.strerror}")
            self._close(abort=True)
            return
        self._open(self._server)

    def _open(self, server: socket.socket) -> None:
        self._state = State.OPEN
        server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        service = self._service
        spliced = Spliced(service.reactor, service.pipes, self._client, server, self._moved, self._stopped)
        self._spliced = spliced
        seen, self._seen = self._seen, b""
        spliced.up.push(seen)
        requests = self._shown.requests
        if requests is not None:
            spliced.up.gate = requests.feed
            if requests.switching:
                spliced.down.gate = self._answered
        elif self.route.proof is Proof.TLS_IF_ANY:
            spliced.up.gate = self._sniff
        self._number = service.opened(self)
        spliced.start()

    # --- open ------------------------------------------------------------------------------------------------

    def _sniff(self, data: bytes) -> bytes:
        """The first bytes of a connection to one exact name: a ClientHello has to name it, anything else passes."""
        assert self._spliced is not None
        self._seen += data
        if hello.looks_like_tls(self._seen):
            try:
                self._shown.judge_hello(self._seen)
            except hello.Incomplete:
                return b""
            except hello.Malformed as error:
                raise Refused(403, "hello", error.why) from error
        self._spliced.up.gate = None
        seen, self._seen = self._seen, b""
        return seen

    def _answered(self, data: bytes) -> bytes:
        """The beginning of the answer to a request to switch protocols."""
        requests = self._shown.requests
        assert requests is not None and self._spliced is not None
        up, down = self._spliced.up, self._spliced.down
        self._reply += data
        if len(self._reply) < len(SWITCHED) and SWITCHED.startswith(self._reply):
            return b""
        down.gate = None
        if self._reply.startswith(SWITCHED):
            up.push(requests.switched())
            up.gate = None
        else:
            up.push(requests.stayed())
        reply, self._reply = self._reply, b""
        self._service.reactor.soon(self._spliced.start)
        return reply

    def _moved(self, abort: bool) -> None:
        """Both directions are done."""
        self._close(abort=abort)

    def _stopped(self, refusal: Refusal) -> None:
        """What the client sends may not pass."""
        self._refuse(Verdict(False, refusal.why, refusal.allow))

    def judge_again(self) -> None:
        """After a change of policy: end the connection when it is not allowed any more."""
        if self._state not in (State.ASKING, State.OPEN, State.DIALLING, State.HANDING, State.HANDED):
            return
        verdict = self._verdict()
        if self._state is State.ASKING:
            if not verdict.ask:
                self._service.asking.answered(self.name, self.route.port, "" if verdict.allowed else verdict.why)
            return
        if verdict.allowed and self.name not in ("", HOST_NAME) and self.address and self._state is State.OPEN:
            refusal = self._service.dialable(self.address, self.route.port)
            verdict = Verdict(not refusal, refusal)
        if not verdict.allowed:
            self.cut(verdict.why)

    # --- end ---------------------------------------------------------------------------------------------------

    def _refuse(self, verdict: Verdict, alert: int = hello.UNRECOGNIZED_NAME) -> None:
        """Say no in the client's protocol, write it down, and close."""
        self._service.refused(self.name, self.route, verdict)
        if self._peek is not None and self._state in (State.SHOWING, State.ASKING):
            self._peek.take()
        if hello.looks_like_tls(self._seen):
            answer = hello.alert(alert)
        elif self._shown.requests is not None:
            answer = forbidden(verdict.why, verdict.allow)
        else:
            self._close(abort=True, why="refused")
            return
        self._end_server("refused")
        try:
            self._client.send(answer)
            self._client.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(abort=True)
            return
        self._state = State.LINGERING
        self._timer = self._service.reactor.later(LINGER_SECONDS, self._close)
        self._watch(READ)

    def _linger(self) -> None:
        try:
            if self._client.recv(READ_SIZE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close()

    def cut(self, why: str) -> None:
        """End it at once; both sides see a reset."""
        self._close(abort=True, why=why)

    def _end_server(self, why: str) -> None:
        """Write the last line of an open connection, and close what leads out."""
        self._stop_timer()
        if self._state in (State.OPEN, State.HANDED):
            seconds = round(self._service.reactor.now - self._began, 3)
            moved = [self._spliced.up.moved, self._spliced.down.moved] if self._spliced is not None else []
            self._service.closed(self, self._number, moved, seconds, why)
        if self._spliced is not None:
            self._spliced.stop()
            self._spliced = None
        if self._server is not None:
            self._server.close()
            self._server = None

    def _close(self, *, abort: bool = False, why: str = "") -> None:
        if self._state is State.CLOSED:
            return
        if abort:
            for sock in (self._client, self._server):
                if sock is not None and sock.fileno() >= 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        self._end_server(why)
        if self._gift is not None:
            self._gift.cut()
        if self._state is State.ASKING:
            self._service.asking.withdraw(self.name, self.route.port, self._settled)
        self._state = State.CLOSED
        self._watch(0)
        self._client.close()
        self._service.left(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- events ----------------------------------------------------------------------------------------------

    def _watch(self, mask: int) -> None:
        """Wait for these events of the client; without any it is not watched, or its hang-up would come for ever."""
        before, self._mask = self._mask, mask
        fd, reactor = self._client.fileno(), self._service.reactor
        if before == mask:
            return
        if not before:
            reactor.watch(fd, mask, self._ready)
        elif mask:
            reactor.modify(fd, mask)
        else:
            reactor.forget(fd)

    def _ready(self, events: int) -> None:
        if self._state is State.SHOWING:
            self._show(events)
        elif self._state is State.LINGERING:
            self._linger()
        elif events & (HANGUP | ERROR) or self._state is State.ASKING:
            self._close(abort=True)

    @property
    def name(self) -> str:
        """What it leads to; "" for an address, and until it has shown that."""
        return self._shown.name
