"""Watches the requests of one HTTP/1 connection: each must name the host that the connection leads to. Pure.

Bytes go on as they came, once the request that they belong to has been judged.
"""

from __future__ import annotations

from collections.abc import Callable

from ..kit.bodies import Body, reader
from ..kit.codec import parse_request, split_head
from ..kit.refusal import Refused

HEAD_MAX = 64 << 10
SWITCHED = b"HTTP/1.1 101"
"""How the answer to an accepted request to switch protocols begins."""


class Requests:
    """Feeds on what the client sends.

    Args:
        judge: raises Refused for a host, given in lower case and without its port, that is not the connection's.
        port: the connection's port; a Host header may repeat it.

    Attributes:
        started: how many request heads were let through.
        switching: the first request asks for WebSocket; what follows is held until `switched` or `stayed` is called.
    """

    def __init__(self, judge: Callable[[str], None], port: int) -> None:
        self._judge, self._port = judge, port
        self._held = b""
        self._body: Body | None = None
        self._opaque = False
        self.started = 0
        self.switching = False

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; returns what may be sent on.

        Raises:
            Refused: a head that cannot be read in one way, or that names another host.
        """
        if self._opaque:
            return data
        data, self._held = self._held + data, b""
        passed: list[bytes] = []
        while data and not self.switching:
            if self._body is not None:
                data = self._feed_body(data, passed)
                continue
            size = split_head(data, HEAD_MAX)
            if not size:
                break
            self._head(data[:size])
            passed.append(data[:size])
            data = data[size:]
        self._held = data
        return b"".join(passed)

    def _feed_body(self, data: bytes, passed: list[bytes]) -> bytes:
        assert self._body is not None
        self._body.feed(data)
        if not self._body.done:
            passed.append(data)
            return b""
        rest = self._body.rest
        passed.append(data[: len(data) - len(rest)])
        self._body = None
        return rest

    def _head(self, head: bytes) -> None:
        request = parse_request(head)
        host = next((value for lower, _, value, _ in request.headers if lower == b"host"), b"")
        self._judge(_host(host, self._port))
        self.started += 1
        body = reader(request.length)
        self._body = None if body.done else body
        self.switching = request.upgrade == b"websocket" and self.started == 1

    def switched(self) -> bytes:
        """The server has accepted: everything from here on is one opaque stream. Returns what was held."""
        self._opaque, self.switching = True, False
        held, self._held = self._held, b""
        return held

    def stayed(self) -> bytes:
        """The server goes on with HTTP. Returns what may be sent on of what was held; raises Refused as `feed`."""
        self.switching = False
        held, self._held = self._held, b""
        return self.feed(held) if held else b""


def _host(value: bytes, port: int) -> str:
    text = value.decode("ascii").lower()  # the codec lets nothing else through
    name, colon, number = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        name = text
    elif number not in ("", str(port)):
        raise Refused(403, "host-port", f"The Host header names port {number}, and the connection leads to {port}.")
    if not name:
        raise Refused(403, "no-host", "The request names no host.")
    return name


def forbidden(why: str, allow: str) -> bytes:
    """The answer to a refused request: the reason, and the command that would allow it."""
    text = f"terok: {why}\n" + (f"{allow}\n" if allow else "")
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(text)}"
    return f"{head}\r\nConnection: close\r\n\r\n{text}".encode("ascii", "replace")
