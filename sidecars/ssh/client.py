"""One connection of the agent: messages in, answers out in their order, and at most one question for the operator."""

from __future__ import annotations

from time import monotonic

from . import wire
from .agent import Connection, Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..kit.reactor import Reactor
    from ..kit.stream import Stream
    from .agent import Agent
    from .confirm import Pending

    class Server(Protocol):
        """The signer, as a connection sees it."""

        reactor: Reactor
        agent: Agent

        def ask(self, client: Client, question: Question) -> bytes | None: ...
        def moves(self, client: Client) -> None: ...
        def stuck(self, client: Client) -> None: ...
        def drop(self, client: Client, reason: str) -> None: ...
        def left(self, client: Client) -> None: ...


ANSWERS_MAX = 64 << 10
"""Bytes of answers that one turn makes before they are sent."""

TURN_MAX = 64
"""Messages of one connection that are answered before another connection's turn."""

TURN_SECONDS = 0.02
"""How long a turn may take before that; one signature with a large RSA key takes longer already."""


class Client:
    """The owner of one connection's stream.

    Attributes:
        stream: the connection.
        framer: what has arrived of a message.
        since: since when it is in the middle of a message or an answer; meaningful while the server counts it as slow.
        pending, question: the question that the operator has not answered yet; None when there is none.
    """

    __slots__ = ("_server", "stream", "framer", "connection", "since", "pending", "question")

    def __init__(self, server: Server, stream: Stream) -> None:
        self._server, self.stream = server, stream
        self.framer = wire.Framer()
        self.connection = Connection()
        self.since = 0.0
        self.pending: Pending | None = None
        self.question: Question | None = None
        stream.owner = self

    def __repr__(self) -> str:
        return f"<Client {self.stream!r} {self.framer!r}{' asks' if self.pending else ''}>"

    @property
    def unfinished(self) -> str:
        """What it is in the middle of, as the audit says it; empty when it is in the middle of nothing."""
        if self.stream.queued:
            return "did not take its answer"
        return "did not finish its message" if self.framer.pending and self.pending is None else ""

    def received(self, data: bytes) -> None:
        """Answer what is complete."""
        if not self.framer.pending and not self.stream.queued:
            self._server.moves(self)  # its answers have gone out since it was counted as slow
        self.framer.feed(data)
        self.serve()

    def drained(self) -> None:
        """The client takes answers again."""
        if self.pending is None:
            self.serve()

    def ended(self) -> None:
        """The client sends no more; what was answered still goes out, a question is taken back."""
        if self.pending is not None:
            self.stream.abort()
            return
        if self.framer.pending:
            self._server.agent.note("the client left in the middle of a message")
        self.stream.close()

    def lost(self, error: OSError | None) -> None:
        """The connection is gone."""
        self._server.left(self)

    def serve(self) -> None:
        """Answer what has arrived, within one turn's bounds.

        A client may pipeline messages faster than they are answered, and an RSA signature takes milliseconds: behind a
        turn's bounds the rest waits until the other connections had theirs, and meanwhile nothing more is read.
        """
        if self.stream.dead or self.pending is not None:
            return
        agent, answers, size, more = self._server.agent, [], 0, False
        end = monotonic() + TURN_SECONDS
        try:
            while (message := self.framer.next()) is not None:
                answer = agent.handle(self.connection, message)
                if isinstance(answer, Question):
                    refused = self._server.ask(self, answer)
                    if refused is None:
                        break  # what follows is answered behind it, in order
                    answer = refused
                answers.append(answer)
                size += len(answer)
                if len(answers) >= TURN_MAX or size >= ANSWERS_MAX or monotonic() > end:
                    more = True
                    break
        except wire.WireError as error:
            self._server.drop(self, str(error))
            return
        if answers:
            self._server.moves(self)
            self.stream.write(answers[0] if len(answers) == 1 else b"".join(answers))
        self._rest(more=more)

    def _rest(self, *, more: bool) -> None:
        """Decide what is waited for: the operator, room for answers, the next turn, or the client's next bytes."""
        stream = self.stream
        if self.pending is not None:
            stream.hold()  # a client that leaves takes its question with it
        elif stream.full:
            stream.pause()  # until `drained`
        elif more:
            stream.pause()
            self._server.reactor.soon(self.serve)
            return
        else:
            stream.resume()
        if stream.queued or (self.framer.pending and self.pending is None):
            self._server.stuck(self)

    def decided(self, answer: bytes) -> None:
        """The operator's word has come: answer, then go on with what arrived meanwhile."""
        self.stream.write(answer)
        self.serve()
