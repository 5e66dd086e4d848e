"""One HTTP connection of an agent: streamable HTTP as MCP has it, one request at a time, each answered with JSON.

The specification lets a server answer with JSON instead of a stream of events, and refuse GET; see "Transports" in the
versions 2025-03-26 and 2025-06-18.
"""

from __future__ import annotations

import re
from typing import Protocol

from ..kit import bodies
from ..kit.answer import answer
from ..kit.codec import Request, parse_request, split_head
from ..kit.reactor import Reactor, Timer
from ..kit.refusal import Refused
from ..kit.stream import Stream
from . import jsonrpc, limits
from .session import PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_TARGET = re.compile(rb"/mcp/[a-z0-9][a-z0-9-]{0,31}")
_ORIGIN = re.compile(rb"https?://(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?")
"""A page of another origin may have reached this address by a name that leads here (DNS rebinding)."""
SESSION = b"mcp-session-id"


class Service(Protocol):
    """What serves the requests of all connections."""

    reactor: Reactor
    hosts: frozenset[bytes]

    def post(self, client: Client, name: str, session: str, message: jsonrpc.Call) -> None:
        """Answer a message, by `client.reply` now or later."""

    def end(self, client: Client, name: str, session: str) -> None:
        """End a session, and answer."""

    def refused(self, refused: Refused) -> None:
        """A request that is no message of MCP."""

    def left(self, client: Client) -> None:
        """The connection is gone."""


class Client:
    """Owner of one connection.

    Args:
        service: serves its requests.
        sock: the connection.

    Attributes:
        cancelled: called when the client goes while its request is under way; set by what serves it.
    """

    def __init__(self, service: Service, sock: socket.socket) -> None:
        self._service = service
        self._buffer = b""
        self._request: Request | None = None
        self._body: bodies.Body | None = None
        self._content = bytearray()
        self._waiting = False
        self._over = False
        self.cancelled: Callable[[], None] | None = None
        self._timer: Timer = service.reactor.later(limits.HEAD_SECONDS, self._late)
        self._stream = Stream(service.reactor, sock, self)

    # -- the stream's owner --

    def received(self, data: bytes) -> None:
        """Bytes of a head or of a body."""
        self._buffer += data
        self._read()

    def ended(self) -> None:
        """The client sends no more: whoever posts a message and leaves does not want its answer."""
        self._stream.abort()

    def lost(self, error: OSError | None) -> None:
        """The connection is gone."""
        if self._over:
            return
        self._over = True
        self._timer.cancel()
        cancelled, self.cancelled = self.cancelled, None
        if cancelled is not None:
            cancelled()
        self._service.left(self)

    def drained(self) -> None:
        """The client has read what was sent."""

    def _late(self) -> None:
        self._stream.abort()

    # -- in --

    def _read(self) -> None:
        try:
            while not self._waiting and not self._stream.dead:
                if self._request is None and not self._head():
                    return
                if not self._more():
                    return
        except Refused as refused:
            self._service.refused(refused)
            self._refuse(refused)

    def _head(self) -> bool:
        end = split_head(self._buffer, limits.HEAD_MAX)
        if not end:
            return False
        head, self._buffer = self._buffer[:end], self._buffer[end:]
        request = parse_request(head)
        _check(request, self._service.hosts)
        self._request, self._body, self._content = request, bodies.reader(request.length), bytearray()
        self._timer.cancel()
        self._timer = self._service.reactor.later(limits.BODY_SECONDS, self._late)
        if request.expects and not self._body.done:
            self._stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _more(self) -> bool:
        """Take what has come of the body; True when the request was served."""
        assert self._request is not None and self._body is not None
        if not self._body.done:
            data, self._buffer = self._buffer, b""
            self._content += self._body.feed(data)
            if len(self._content) > limits.BODY_MAX:
                raise Refused(413, "body-size", f"The message has more than {limits.BODY_MAX >> 20} MiB.")
        if not self._body.done:
            return False
        self._buffer = self._body.rest + self._buffer
        self._timer.cancel()
        self._waiting = True
        self._stream.hold()
        self._serve(self._request, bytes(self._content))
        return True

    def _serve(self, request: Request, content: bytes) -> None:
        name, session = request.target.decode().removeprefix("/mcp/"), _field(request, SESSION).decode("latin-1")
        if request.method == b"DELETE":
            self._service.end(self, name, session)
            return
        try:
            message = jsonrpc.read(content)
        except jsonrpc.BadMessage as bad:
            self.reply(400, jsonrpc.error(None, bad.code, bad.why))
            return
        if isinstance(message, jsonrpc.Reply):
            self.reply(202)  # nothing is ever asked of a client
            return
        self._service.post(self, name, session, message)

    # -- out --

    def reply(self, status: int, body: bytes = b"", *, session: str = "") -> None:
        """Answer the request that is under way."""
        request, self._request, self.cancelled = self._request, None, None
        if self._stream.dead or request is None:
            return
        fields = {"Mcp-Session-Id": session} if session else {}
        keep = request.keep and not self._stream.full
        self._stream.write(answer(status, body, "application/json", close=not keep, fields=fields))
        self._waiting = False
        if not keep:
            self._stream.close()
            return
        self._timer = self._service.reactor.later(limits.SESSION_SECONDS, self._late)
        self._stream.resume()
        if self._buffer:
            self._service.reactor.soon(self._read)

    def _refuse(self, refused: Refused) -> None:
        refusal = refused.refusal
        body = jsonrpc.error(None, jsonrpc.INVALID_REQUEST, f"terok: {refusal.why}")
        fields = {"Allow": "POST, DELETE"} if refusal.status == 405 else {}
        self._stream.write(answer(refusal.status, body, "application/json", close=True, fields=fields))
        self._stream.close()

    def cut(self) -> None:
        """Close the connection, whatever it waits for."""
        self._stream.abort()


def _check(request: Request, hosts: frozenset[bytes]) -> None:
    """Raise Refused for what no client of MCP asks at this address."""
    if _field(request, b"host") not in hosts:
        raise Refused(403, "host", "The Host header is not this address.")
    origin = _field(request, b"origin")
    if origin and not _ORIGIN.fullmatch(origin):
        raise Refused(403, "origin", "A page of another origin may not use this address.")
    if not _TARGET.fullmatch(request.target):
        raise Refused(404, "target", "There is no such address; a server's is /mcp/NAME.")
    if request.method not in (b"POST", b"DELETE"):
        raise Refused(405, "method", "Only POST and DELETE are served.")
    if request.upgrade:
        raise Refused(400, "upgrade", "There is no other protocol here.")
    if request.length > limits.BODY_MAX:
        raise Refused(413, "body-size", f"The message has more than {limits.BODY_MAX >> 20} MiB.")
    kind = _field(request, b"content-type").partition(b";")[0].strip().lower()
    if request.method == b"POST" and kind != b"application/json":
        raise Refused(415, "content-type", "The message is not application/json.")
    if _field(request, b"content-encoding"):
        raise Refused(415, "content-encoding", "The message is compressed.")
    version = _field(request, b"mcp-protocol-version")
    if version and version.decode("latin-1") not in PROTOCOLS:
        raise Refused(400, "protocol-version", "The version of MCP is not spoken here.")


def _field(request: Request, name: bytes) -> bytes:
    """The value of a header that may occur once; empty without it."""
    values = [value for lower, _, value, _ in request.headers if lower == name]
    if len(values) > 1:
        raise Refused(400, "header-twice", f"There are two {name.decode()} headers.")
    return values[0] if values else b""
