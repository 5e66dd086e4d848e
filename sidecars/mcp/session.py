"""One conversation with one server process: handshake, the list of its tools, calls. No byte of it passes unread.

Rules of this file:
- the sidecar is the server's only client: it makes the handshake itself, announces no capability, and answers pings;
  a server that asks for more (sampling, roots, elicitation) gets an error;
- requests have numbers of the sidecar's own, so that neither side can answer, or cancel, what is not its own;
- tools are offered and called by `offer.allowed` alone; while the list is being read again, calls wait.
"""

from __future__ import annotations

from typing import NamedTuple

from ..kit.reactor import Reactor, Timer
from ..kit.stream import Stream
from . import jsonrpc, limits, offer
from .jsonrpc import Call, Id, Object, Plain, Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .servers import Server

PROTOCOLS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Versions of MCP that are spoken, the newest first."""
STATES = ("initializing", "listing", "ready", "ended")
INITIALIZING, LISTING, READY, ENDED = range(len(STATES))
STARTED, LISTED, CHANGED, GONE = range(4)
TRANSITIONS = {
    (INITIALIZING, STARTED): LISTING,
    (LISTING, LISTED): READY,
    (READY, CHANGED): LISTING,
    (INITIALIZING, GONE): ENDED,
    (LISTING, GONE): ENDED,
    (READY, GONE): ENDED,
}
"""A pair that is missing is a defect and raises; `_changed` and `close` look at the state first."""


class Pending:
    """A call under way: its client's id, and where the answer goes; called once."""

    def __init__(self, client_id: Id, tool: str, answer: Callable[[bytes, str], None]) -> None:
        self.client_id, self.tool, self.answer = client_id, tool, answer
        self.number = 0
        self.timer: Timer | None = None


class Held(NamedTuple):
    """A call that waits for the list of tools."""

    pending: Pending
    params: Object


class Session:
    """The sidecar's end of a server's standard input and output.

    Args:
        reactor: the loop.
        sock: connected to the server; this object owns it.
        server: returns the server's record as it is on disk now; it changes while the session lasts.
        version: the version of MCP that the client asked for.
        ready: called once: with None when calls may come, else with why the server cannot be used.
        gone: called once, after `ready`: the session has ended.

    Attributes:
        state: of `STATES`.
        protocol: the version that the server speaks.
        title: what the server calls itself: name and version.
        used: the loop's time of the last request.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        server: Callable[[], Server | None],
        version: str,
        ready: Callable[[str | None], None],
        gone: Callable[[], None],
    ) -> None:
        self._reactor, self._server, self._ready, self._gone = reactor, server, ready, gone
        self.state = INITIALIZING
        self.protocol = PROTOCOLS[0]
        self.title: Object = {"name": "", "version": ""}
        self.used = reactor.now
        self._says = ""
        self._number = 0
        self._listing = 0
        self._stale = self._told = False
        self._listed_at = reactor.now - limits.RELIST_SECONDS
        self._pages = 0
        self._tools: dict[str, Object] = {}
        self._current: dict[str, Object] = {}
        self._pending: dict[int, Pending] = {}
        self._held: list[Held] = []
        self._buffer = bytearray()
        self._stream = Stream(reactor, sock, self)
        self._timer = self._give_up_later()
        self._send(
            "initialize",
            {
                "protocolVersion": version if version in PROTOCOLS else PROTOCOLS[0],
                "capabilities": {},
                "clientInfo": {"name": "terok", "version": "1"},
            },
        )

    def __repr__(self) -> str:
        return f"<Session {STATES[self.state]} calls={len(self._pending)}>"

    @property
    def busy(self) -> bool:
        """Whether a call is under way, or the handshake."""
        return bool(self._pending or self._held) or self.state == INITIALIZING

    @property
    def current(self) -> offer.Offer:
        """What the server offers now, whether it was accepted or not."""
        return offer.Offer(self._says, self._current)

    # -- what the client may do --

    def offered(self) -> list[Plain]:
        """The tools that agents may use, with the accepted texts."""
        return list(self._allowed().values())

    def instructions(self) -> str:
        """The accepted instructions."""
        server = self._server()
        return server.accepted.instructions if server is not None else ""

    def call(self, number: Id, params: Object, answer: Callable[[bytes, str], None]) -> Pending:
        """Call a tool.

        Args:
            number: the client's.
            params: `name` and `arguments`.
            answer: gets the response for the client, and why it was refused (empty when it was not).
        """
        name = params.get("name")
        pending = Pending(number, name if isinstance(name, str) else "", answer)
        if len(self._pending) + len(self._held) >= limits.CALLS_MAX or self._stream.full:
            self._refuse(pending, "too many calls wait")
        elif self.state == READY:
            self._begin(pending, params)
        elif self.state == ENDED:
            self._refuse(pending, "the server has ended")
        else:
            self._held.append(Held(pending, params))
        return pending

    def cancel(self, pending: Pending) -> None:
        """The client waits no more: tell the server, and drop its answer."""
        self._held = [held for held in self._held if held.pending is not pending]
        if self._pending.pop(pending.number, None) is not None:
            if pending.timer is not None:
                pending.timer.cancel()
            self._say("notifications/cancelled", {"requestId": pending.number})

    def close(self, why: str = "it was ended") -> None:
        """End the session: the server's input ends, and calls that wait get an error."""
        if self.state == ENDED:
            return
        self.state = TRANSITIONS[self.state, GONE]
        self._timer.cancel()
        self._stream.abort()
        waiting = [*self._pending.values(), *(held.pending for held in self._held)]
        self._pending, self._held = {}, []
        for pending in waiting:
            self._refuse(pending, f"the server has ended: {why}")
        self._tell(why)
        self._gone()

    def _tell(self, why: str | None) -> None:
        if not self._told:
            self._told = True
            self._ready(why)

    # -- the server's side: the stream's owner --

    def received(self, data: bytes) -> None:
        """Bytes of the server's standard output."""
        self._buffer += data
        while self.state != ENDED and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).strip()
            del self._buffer[: end + 1]
            if line:
                self._line(line)
        if len(self._buffer) > limits.LINE_MAX:
            self.close(f"it wrote a line of more than {limits.LINE_MAX >> 20} MiB")

    def ended(self) -> None:
        """The server's output has ended."""
        self.close("its program ended")

    def lost(self, error: OSError | None) -> None:
        """The connection is gone."""
        self.close("its program ended")

    def drained(self) -> None:
        """The server has read what was sent."""

    def _line(self, line: bytes) -> None:
        try:
            message = jsonrpc.read(line)
        except jsonrpc.BadMessage:
            return  # some servers print other words before they begin; a lost answer is its call's timeout
        if isinstance(message, Call):
            self._asked(message)
        elif isinstance(message.id, int):
            self._answered(message.id, message)

    def _asked(self, message: Call) -> None:
        if message.id is None:
            if message.method == "notifications/tools/list_changed":
                self._changed()
        elif self._stream.full:
            self.close("it does not read its input")
        elif message.method == "ping":
            self._write(jsonrpc.result(message.id, {}))
        else:
            self._write(jsonrpc.error(message.id, jsonrpc.METHOD_NOT_FOUND, "terok does not pass this on"))

    def _answered(self, number: int, reply: Reply) -> None:
        pending = self._pending.pop(number, None)
        if pending is not None:
            if pending.timer is not None:
                pending.timer.cancel()
            answer = {"error": reply.error} if reply.error is not None else {"result": reply.result}
            pending.answer(jsonrpc.text({"jsonrpc": "2.0", "id": pending.client_id, **answer}), "")
        elif number == self._listing and self.state in (INITIALIZING, LISTING):
            self._listing = 0
            try:
                if reply.error is not None:
                    raise offer.BadOffer("The server answers with an error.")
                (self._initialized if self.state == INITIALIZING else self._page)(reply.result)
            except offer.BadOffer as error:
                self.close(str(error))

    # -- handshake and list --

    def _initialized(self, result: Plain) -> None:
        if not isinstance(result, dict) or result.get("protocolVersion") not in PROTOCOLS:
            raise offer.BadOffer(f"The server speaks none of the versions {', '.join(PROTOCOLS)}.")
        self.protocol = str(result["protocolVersion"])
        self._says = offer.instructions_of(result)
        told = result.get("serverInfo")
        if isinstance(told, dict):
            self.title = {key: str(told.get(key, ""))[:200] for key in ("name", "version")}
        self.state = TRANSITIONS[self.state, STARTED]
        self._say("notifications/initialized", {})
        self._list()

    def _list(self, cursor: str | None = None) -> None:
        if cursor is None:
            self._tools, self._pages, self._stale = {}, 0, False
        self._send("tools/list", {} if cursor is None else {"cursor": cursor})

    def _page(self, result: Plain) -> None:
        tools, cursor = offer.page_of(result)
        self._tools = offer.merged(self._tools, tools)
        self._pages += 1
        if self._pages > limits.PAGES_MAX:
            raise offer.BadOffer(f"The server lists its tools on more than {limits.PAGES_MAX} pages.")
        if cursor is not None:
            self._list(cursor)
            return
        if self._stale:  # it changed while it was read
            self._reactor.later(limits.RELIST_SECONDS, self._relist)
            return
        self._current, self._listed_at = self._tools, self._reactor.now
        self.state = TRANSITIONS[self.state, LISTED]
        self._timer.cancel()
        self._tell(None)
        held, self._held = self._held, []
        for call in held:
            self._begin(call.pending, call.params)

    def _changed(self) -> None:
        if self.state == READY:
            self.state = TRANSITIONS[self.state, CHANGED]
            self._timer = self._give_up_later()
            # a server that says so without end costs no more than a listing in each such time
            self._reactor.later(self._listed_at + limits.RELIST_SECONDS - self._reactor.now, self._relist)
        else:
            self._stale = True

    def _relist(self) -> None:
        if self.state == LISTING:
            self._list()

    def _give_up_later(self) -> Timer:
        return self._reactor.later(limits.START_SECONDS, lambda: self.close("it does not answer"))

    # -- calls --

    def _allowed(self) -> dict[str, Object]:
        server = self._server()
        return {} if server is None else offer.allowed(server.accepted, self._current, server.tools)

    def _begin(self, pending: Pending, params: Object) -> None:
        if pending.tool not in self._allowed():
            self._refuse(pending, self._why_not(pending.tool))
            return
        arguments = params.get("arguments", {})
        pending.number = self._send("tools/call", {"name": pending.tool, "arguments": arguments}, listing=False)
        self._pending[pending.number] = pending
        pending.timer = self._reactor.later(limits.CALL_SECONDS, lambda: self._late(pending))

    def _why_not(self, tool: str) -> str:
        server = self._server()
        if server is None or tool not in server.accepted.tools:
            return "the operator has accepted no tool of this name"
        if server.tools is not None and tool not in server.tools:
            return "the operator does not allow this tool"
        return "the tool's text has changed since the operator accepted it"

    def _late(self, pending: Pending) -> None:
        self.cancel(pending)
        self._refuse(pending, "the server did not answer in time")

    def _refuse(self, pending: Pending, why: str) -> None:
        pending.answer(jsonrpc.error(pending.client_id, jsonrpc.INVALID_PARAMS, f"terok: {why}"), why)

    # -- out --

    def _send(self, method: str, params: Object, *, listing: bool = True) -> int:
        self._number += 1
        if listing:
            self._listing = self._number
        self._write(jsonrpc.call(self._number, method, params))
        return self._number

    def _say(self, method: str, params: Object) -> None:
        self._write(jsonrpc.call(None, method, params))

    def _write(self, line: bytes) -> None:
        self._stream.write(line + b"\n")
