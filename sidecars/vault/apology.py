"""What a container is told when its vault cannot open: one sentence as 503, instead of a connection that never answers.

The process then leaves, and the next connection tries again; so a vault that is created meanwhile works at once.
"""

from __future__ import annotations

import json

from ...supervisor.ground.errors import TerokError
from ..kit.accept import Acceptor
from ..kit.answer import answer as http_answer
from ..kit.codec import split_head
from ..kit.reactor import Reactor
from ..kit.refusal import Refused
from ..kit.stream import Stream
from .limits import HEAD_MAX, RETRY_SECONDS

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


def serve(listeners: Sequence[socket.socket], error: TerokError) -> None:
    """Give the answer to every client, until none has come for half a second."""
    _Apology(listeners, answer(error)).run()


class _Apology:
    """Who is being told, and when to leave."""

    def __init__(self, listeners: Sequence[socket.socket], response: bytes) -> None:
        self.reactor = Reactor()
        self.response = response
        self._acceptor = Acceptor(self.reactor, listeners, self._accepted)
        self._clients = 0
        self._last = self.reactor.now

    def run(self) -> None:
        """Serve until none was there for a while."""
        self._acceptor.start()
        self.reactor.later(LEAVE_SECONDS, self._look)
        self.reactor.run()
        self._acceptor.stop()
        self.reactor.close()

    def _accepted(self, sock: socket.socket) -> None:
        self._clients += 1
        _Client(self, Stream(self.reactor, sock, None))

    def left(self) -> None:
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

    def __init__(self, apology: _Apology, stream: Stream) -> None:
        self._apology, self._stream = apology, stream
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
            complete = bool(split_head(self._buffer, HEAD_MAX))
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
        response = self._apology.response
        return response[: response.index(b"\r\n\r\n") + 4] if self._buffer.startswith(b"HEAD ") else response

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
