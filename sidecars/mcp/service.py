"""Serves the agents' requests: sessions by their id, methods by a table, every call and refusal in the audit."""

from __future__ import annotations

import os
import socket

from ...supervisor.ground import paste
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import MCP_PORT
from ..kit.accept import Acceptor, Idle
from ..kit.audit import Lenient
from ..kit.reactor import Reactor
from ..kit.refusal import Refused
from . import jsonrpc, limits, servers
from .client import Client
from .jsonrpc import Call, Id
from .servers import Server
from .session import Pending, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..kit.audit import Audit


class Shelf:
    """The scope's servers as they are on disk; a file is read again when it has changed.

    Args:
        directory: the scope's.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._known: dict[str, tuple[tuple[int, int], Server | None]] = {}

    def get(self, name: str) -> Server | None:
        """A server; None when there is none of that name, or its file is damaged."""
        try:
            status = os.stat(servers.path_of(self._directory, name))
        except OSError:
            return None
        mark = status.st_mtime_ns, status.st_ino
        if name not in self._known or self._known[name][0] != mark:
            try:
                self._known[name] = mark, servers.load(self._directory, name)
            except TerokError:
                self._known[name] = mark, None
        return self._known[name][1]


class Service:
    """The MCP sidecar of one container.

    Args:
        reactor: the loop.
        listeners: where agents connect.
        shelf: the scope's servers.
        open_server: starts a server of a name and returns the stream of its input and output; None: it cannot.
        audit: the container's audit log.
        scope: for the commands in refusals.
        idle_seconds: leave after this long without a connection or session; 0: stay.
        port: at which agents see it.
    """

    def __init__(
        self,
        reactor: Reactor,
        listeners: Sequence[socket.socket],
        shelf: Shelf,
        open_server: Callable[[str], socket.socket | None],
        audit: Audit,
        *,
        scope: str,
        idle_seconds: int,
        port: int = MCP_PORT,
    ) -> None:
        self.reactor, self._shelf, self._open, self._scope = reactor, shelf, open_server, scope
        self.hosts = frozenset(f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost"))
        self._audit = Lenient(audit, reactor, "mcp")
        self._acceptor = Acceptor(reactor, listeners, self._accepted)
        self._stopping = False
        self._clients: set[Client] = set()
        self._sessions: dict[str, tuple[str, Session]] = {}
        self._calls: dict[tuple[str, Id], tuple[Pending, Client]] = {}
        self._idle = Idle(reactor, idle_seconds, lambda: bool(self._clients or self._sessions))

    def start(self) -> None:
        """Accept from now on."""
        self._acceptor.start()
        self._idle.start()

    def stop(self) -> None:
        """End every session and connection, and the loop."""
        self._stopping = True
        self._acceptor.stop()
        for _, session in list(self._sessions.values()):
            session.close()
        for client in list(self._clients):
            client.cut()
        self.reactor.later(0, self.reactor.stop)

    def _accepted(self, sock: socket.socket) -> None:
        self._clients.add(Client(self, sock))
        if len(self._clients) >= limits.CLIENTS_MAX:
            self._acceptor.stop()

    def left(self, client: Client) -> None:
        """A connection is gone."""
        self._clients.discard(client)
        if not self._stopping:
            self._acceptor.start()
        self._idle.begins()

    def refused(self, refused: Refused) -> None:
        """A request that is no message of MCP."""
        # clients try GET for a stream of events, and other addresses for a login, before they go on without
        if refused.refusal.rule not in ("method", "target"):
            self._audit.write("request", verdict="refused", rule=refused.refusal.rule, reason=refused.refusal.why)

    # -- requests --

    def post(self, client: Client, name: str, session: str, message: Call) -> None:
        """Answer a message, now or later."""
        if message.method == "initialize" and message.id is not None:
            self._begin(client, name, message)
            return
        found = self._sessions.get(session)
        if found is None or found[0] != name:
            status, why = (404, "the session has ended") if session else (400, "the Mcp-Session-Id header is missing")
            client.reply(status, jsonrpc.error(message.id, jsonrpc.INVALID_REQUEST, why))
            return
        found[1].used = self.reactor.now
        if message.id is None:
            if message.method == "notifications/cancelled":
                self._cancel(session, message)
            client.reply(202)
            return
        handler = METHODS.get(message.method)
        if handler is None:
            self._audit.write("method", verdict="refused", server=name, method=message.method, reason=NOT_PASSED_ON)
            client.reply(200, jsonrpc.error(message.id, jsonrpc.METHOD_NOT_FOUND, f"terok: {NOT_PASSED_ON}"))
            return
        handler(self, client, session, message, message.id)

    def end(self, client: Client, name: str, session: str) -> None:
        """End a session, and answer."""
        found = self._sessions.get(session)
        if found is None or found[0] != name:
            client.reply(404, jsonrpc.error(None, jsonrpc.INVALID_REQUEST, "the session has ended"))
            return
        found[1].close()
        client.reply(200)

    def _begin(self, client: Client, name: str, message: Call) -> None:
        """A new session: start the server, and answer when it has told what it offers."""
        number = message.id
        assert number is not None
        why = self._why_no_session(name)
        sock = self._open(name) if not why else None
        if sock is None:
            self._fail(client, name, number, why or "it could not be started")
            return
        version = message.params.get("protocolVersion")
        identity = os.urandom(16).hex()

        def ready(problem: str | None) -> None:
            if problem is not None:
                self._fail(client, name, number, problem)
                return
            result: jsonrpc.Object = {
                "protocolVersion": session.protocol,
                "capabilities": {"tools": {}},
                "serverInfo": session.title,
            }
            if session.instructions():
                result["instructions"] = session.instructions()
            client.reply(200, jsonrpc.result(number, result), session=identity)

        def gone() -> None:
            self._sessions.pop(identity, None)
            self._idle.begins()

        sock.setblocking(False)
        session = Session(
            self.reactor, sock, lambda: self._shelf.get(name), version if isinstance(version, str) else "", ready, gone
        )
        self._sessions[identity] = name, session
        client.cancelled = session.close
        self.reactor.later(limits.SESSION_SECONDS, lambda: self._look(identity))

    def _why_no_session(self, name: str) -> str:
        """Why no session can begin; empty when there is room, after the session that was idle longest has ended."""
        if self._shelf.get(name) is None:
            return "the scope has no server of this name"
        if len(self._sessions) < limits.SESSIONS_MAX:
            return ""
        idle = [session for _, session in self._sessions.values() if not session.busy]
        if not idle:
            return "too many sessions are busy"
        min(idle, key=lambda session: session.used).close()
        return ""

    def _fail(self, client: Client, name: str, number: Id, why: str) -> None:
        command = paste.command("terok", "mcp", "show", name, "--scope", self._scope)
        self._audit.write("session", verdict="refused", server=name, reason=f"The server cannot be used: {why}")
        text = f"terok: the server {name} cannot be used: {why}. On the host: {command}"
        client.reply(200, jsonrpc.error(number, jsonrpc.INTERNAL_ERROR, text))

    def _look(self, identity: str) -> None:
        found = self._sessions.get(identity)
        if found is None:
            return
        left = found[1].used + limits.SESSION_SECONDS - self.reactor.now
        if found[1].busy or left > 0:
            self.reactor.later(max(left, 60.0), lambda: self._look(identity))
        else:
            found[1].close("no request came")

    # -- methods --

    def _ping(self, client: Client, session: str, message: Call, number: Id) -> None:
        client.reply(200, jsonrpc.result(number, {}))

    def _list(self, client: Client, session: str, message: Call, number: Id) -> None:
        client.reply(200, jsonrpc.result(number, {"tools": self._sessions[session][1].offered()}))

    def _call(self, client: Client, session: str, message: Call, number: Id) -> None:
        name, served = self._sessions[session]
        began, size = self.reactor.now, len(jsonrpc.text(message.params))
        key = session, number
        if key in self._calls:
            client.reply(200, jsonrpc.error(number, jsonrpc.INVALID_REQUEST, "a request with this id is under way"))
            return

        def answered(response: bytes, why: str) -> None:
            self._calls.pop(key, None)
            self._note(name, message, why, size, len(response), self.reactor.now - began)
            client.reply(200, response)

        def leave() -> None:
            self._calls.pop(key, None)
            served.cancel(pending)

        client.cancelled = leave
        pending = served.call(number, message.params, answered)
        if client.cancelled is not None:  # not answered yet
            self._calls[key] = pending, client

    def _note(self, name: str, message: Call, why: str, size: int, answer: int, seconds: float) -> None:
        tool = message.params.get("name")
        fields: dict[str, object] = {"server": name, "tool": tool[:128] if isinstance(tool, str) else ""}
        if why:
            command = paste.command("terok", "mcp", "pin", name, "--scope", self._scope)
            fields |= {"reason": why, "allow": command if why.startswith(("the operator", "the tool")) else ""}
        else:
            fields |= {"bytes_in": size, "bytes_out": answer, "ms": round(seconds * 1000, 1)}
        self._audit.write("call", verdict="refused" if why else "allowed", **fields)

    def _cancel(self, session: str, message: Call) -> None:
        number = message.params.get("requestId")
        if isinstance(number, str | int) and (found := self._calls.pop((session, number), None)):
            pending, client = found
            self._sessions[session][1].cancel(pending)
            client.reply(200, jsonrpc.error(number, jsonrpc.INVALID_REQUEST, "the request was cancelled"))


NOT_PASSED_ON = "only tools are passed on; this method is not"
METHODS = {"ping": Service._ping, "tools/list": Service._list, "tools/call": Service._call}
"""Methods that an agent may use once its session has begun."""
