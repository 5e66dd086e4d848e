"""What a container is told when its vault cannot open: one sentence as 503, instead of a connection that never answers.

The process then leaves, and the next connection tries again; so a vault that is created meanwhile works at once.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from ...supervisor.ground.errors import TerokError
from ..kit.accept import Acceptor
from ..kit.answer import answer as http_answer
from ..kit.codec import split_head
from ..kit.reactor import READ, Reactor
from ..kit.refusal import Refused
from ..kit.stream import Stream
from ..kit.tls import hello
from .limits import HEAD_MAX, RETRY_SECONDS
from .tls.links import REFUSED, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

READ_SECONDS = 1.0
"""How long the head of a request is waited for, so that the answer is not lost in a reset."""
LEAVE_SECONDS = 0.5


def answer(error: TerokError) -> bytes:
    """The response that says why, in the shape of every other refusal of the vault; it closes the connection."""
    message = f"terok vault: {error.what}"
    body = json.dumps({"type": "error", "error": {"type": "terok_vault_error", "message": message}, "allow": error.fix})
    fields = {"X-Terok-Reason": "no-vault", "Retry-After": str(RETRY_SECONDS)}
    return http_answer(503, body.encode(), "application/json", close=True, fields=fields)


class Ways(NamedTuple):
    """The listening sockets of a vault: its own addresses, and where connections to brokered hosts come in.

    Attributes:
        plain: HTTP.
        links: messages of the relay (`tls/links.py`).
    """

    plain: Sequence[socket.socket]
    links: Sequence[socket.socket] = ()


def serve(ways: Ways, error: TerokError) -> None:
    """Give the answer to every client, until none has come for half a second."""
    _Apology(ways, answer(error), error.what).run()


class _Apology:
    """Who is being told, and when to leave."""

    def __init__(self, ways: Ways, response: bytes, why: str) -> None:
        self.reactor = Reactor()
        self.why = why
        self._acceptors = [
            Acceptor(self.reactor, ways.plain, lambda sock: self._accepted(sock, response)),
            Acceptor(self.reactor, ways.links, self._linked),
        ]
        self._clients = 0
        self._last = self.reactor.now

    def run(self) -> None:
        """Serve until none was there for a while."""
        for acceptor in self._acceptors:
            acceptor.start()
        self.reactor.later(LEAVE_SECONDS, self._look)
        self.reactor.run()
        for acceptor in self._acceptors:
            acceptor.stop()
        self.reactor.close()

    def _accepted(self, sock: socket.socket, response: bytes) -> None:
        self._clients += 1
        _Client(self, Stream(self.reactor, sock, None), response)

    def _linked(self, sock: socket.socket) -> None:
        self._clients += 1
        Link(self, sock).look(READ)

    def received(self, _link: Link, _message: bytes, connection: socket.socket | None) -> bytes:
        """The relay is told, and tells its client."""
        if connection is not None:
            connection.close()
        return REFUSED + self.why.encode()

    def left(self, _link: object = None) -> None:
        """A client is gone."""
        self._clients -= 1
        self._last = self.reactor.now

    def _look(self) -> None:
        left = LEAVE_SECONDS if self._clients else self._last + LEAVE_SECONDS - self.reactor.now
        if left > 0:
            self.reactor.later(left, self._look)
        else:
            self.reactor.stop()


class _Client:
    """The owner of one client's stream: answers the first head, or whatever came until then."""

    def __init__(self, apology: _Apology, stream: Stream, said: bytes) -> None:
        self._apology, self._stream, self._said = apology, stream, said
        self._buffer = b""
        self._told = False
        stream.owner = self
        self._timer = apology.reactor.later(READ_SECONDS, self._late)

    def received(self, data: bytes) -> None:
        """Wait for the end of the head; what comes behind the answer is dropped."""
        if self._told:
            return
        self._buffer += data
        try:
            complete = hello.looks_like_tls(self._buffer) or bool(split_head(self._buffer, HEAD_MAX))
        except Refused:
            complete = True
        if complete:
            self._tell()

    def _tell(self) -> None:
        self._told = True
        self._stream.write(self._response())
        self._stream.end()  # and read on until `_late`: a close while the client still sends would reset it away

    def _response(self) -> bytes:
        """A request for a head gets no body (RFC 9110, section 9.3.2)."""
        said = self._said
        return said[: said.find(b"\r\n\r\n") + 4] if self._buffer.startswith(b"HEAD ") else said

    def _late(self) -> None:
        if not self._told:
            self._stream.write(self._response())
        self._stream.close()

    def ended(self) -> None:
        """The client sends no more."""
        if not self._told:
            self._tell()
        self._stream.close()

    def drained(self) -> None:
        """Nothing waits for this."""

    def lost(self, error: OSError | None) -> None:
        """The connection is gone."""
        self._timer.cancel()
        self._apology.left()
