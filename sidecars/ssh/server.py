"""The sockets of the signer: bounded in connections, bytes and time.

Rules of this file: nothing blocks, no client makes another one wait for long, every bound is a named constant, and an
idle process has no timer.
"""

from __future__ import annotations

from ..kit.accept import Acceptor
from ..kit.reactor import READ, Reactor, Timer
from ..kit.stream import Stream
from . import confirm
from .client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from .agent import Agent, Question

CONNECTIONS_MAX = 256
"""Clients at a time; for one more, the connection that was silent for the longest time is closed."""

PENDING_MAX = 4 << 20
"""Bytes of unfinished messages, of all connections together."""

MESSAGE_SECONDS = 10.0
"""How long a message may take to arrive once it has begun, and a client to take an answer."""

STREAM_LIMITS = {"READ_MAX": 16 << 10, "QUEUE_HIGH": 64 << 10, "QUEUE_LOW": 16 << 10}
"""For `kit.limits`: messages are small, and 256 clients that take no answers must not cost more than 32 MB."""


class Server:
    """Serves an agent on listening sockets.

    Args:
        reactor: the loop, a strict one: when the audit cannot be written, nothing may be signed any more.
        listeners: non-blocking listening sockets; they stay open when `run` returns.
        agent: answers.
        desk: where the operator is asked.
        idle_seconds: return after this long without a connection; 0: never.
    """

    def __init__(
        self,
        reactor: Reactor,
        listeners: Sequence[socket.socket],
        agent: Agent,
        desk: confirm.Desk,
        idle_seconds: float,
    ) -> None:
        self.reactor, self.agent = reactor, agent
        self._desk, self._idle_seconds = desk, idle_seconds
        self._acceptor = Acceptor(reactor, listeners, self._accepted)
        self._clients: dict[Client, None] = {}
        self._slow: dict[Client, None] = {}  # in the middle of a message or an answer
        self._asked: dict[Client, None] = {}  # the operator has not answered yet
        self._idle_since = reactor.now
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"Server(clients={len(self._clients)}, slow={len(self._slow)}, asked={len(self._asked)})"

    def run(self) -> int:
        """Serve until the process has been idle for long enough; returns exit code 0.

        Raises:
            OSError: the audit cannot be written; nothing may be signed then.
        """
        self._acceptor.start()
        self._idle_since = self.reactor.now
        self._tick()
        self.reactor.run()
        return 0

    def close(self) -> None:
        """Close every connection."""
        self._acceptor.stop()
        for client in list(self._clients):
            client.stream.abort()
            self.left(client)
        self.reactor.close()

    # -- connections --

    def _accepted(self, sock: socket.socket) -> None:
        if len(self._clients) >= CONNECTIONS_MAX:
            oldest = min(self._clients, key=lambda client: client.stream.active)
            self.drop(oldest, f"there are more than {CONNECTIONS_MAX}, and it was silent for the longest time")
        self._clients[Client(self, Stream(self.reactor, sock, None))] = None

    def drop(self, client: Client, reason: str) -> None:
        """Close a connection that misbehaved, and say so in the audit."""
        self.agent.note(f"the connection was closed: {reason}")
        client.stream.abort()
        self.left(client)

    def left(self, client: Client) -> None:
        """A connection is gone; the second call for the same one does nothing."""
        if client not in self._clients:
            return
        del self._clients[client]
        self._slow.pop(client, None)
        if not self._clients and self._idle_seconds:
            self._idle_since = self.reactor.now
            self._wake_at(self._idle_since + self._idle_seconds)
        question = self._take_back(client)
        if question is not None:
            self.agent.finish(question, "the connection ended before the operator's answer")

    def stuck(self, client: Client) -> None:
        """A client is in the middle of a message or an answer, from now on if it was not before."""
        if client not in self._slow:
            client.since = self.reactor.now
            self._slow[client] = None
            self._wake_at(client.since + MESSAGE_SECONDS)
        if not client.stream.queued and sum(slow.framer.pending for slow in self._slow) > PENDING_MAX:
            self.drop(client, f"there are more than {PENDING_MAX} bytes of unfinished messages")

    def moves(self, client: Client) -> None:
        """A client has finished a message: its next one has the whole time again."""
        if client in self._slow:
            del self._slow[client]

    # -- time --

    def _wake_at(self, deadline: float) -> None:
        """Have one timer, for the earliest deadline that is known.

        Deadlines come and go with every connection and message, so they are not timers of their own, and one that has
        become void is not taken back: `_tick` looks again. A client cannot fill the loop with timers that way.
        """
        if self._timer is None or self._timer.when > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.reactor.later(deadline - self.reactor.now, self._tick)

    def _tick(self) -> None:
        """Close what took too long, leave when idle, and wait for the next deadline if there is one."""
        self._timer = None
        now = self.reactor.now
        for client in list(self._slow):
            unfinished = client.unfinished
            if not unfinished:
                del self._slow[client]
            elif now - client.since >= MESSAGE_SECONDS:
                self.drop(client, f"the client {unfinished} within {MESSAGE_SECONDS:g} s")
        for client in list(self._asked):
            if client.pending is not None and now >= client.pending.deadline:
                self._decided(client, f"the operator did not confirm within {confirm.SECONDS:g} s")
        deadlines = [client.since + MESSAGE_SECONDS for client in self._slow]
        deadlines += [client.pending.deadline for client in self._asked if client.pending is not None]
        if not self._clients and self._idle_seconds:
            deadlines.append(self._idle_since + self._idle_seconds)
            if deadlines[-1] <= now:
                self.reactor.stop()
                return
        if deadlines:
            self._wake_at(min(deadlines))

    # -- the operator's word --

    def ask(self, client: Client, question: Question) -> bytes | None:
        """Put a question on the desk; the refusal when there is no room for it, None when it lies there."""
        if len(self._asked) >= confirm.QUESTIONS_MAX:
            return self.agent.finish(question, f"{confirm.QUESTIONS_MAX} signatures wait for the operator already")
        try:
            pending = self._desk.ask(self.agent.ask(question), self.reactor.now)
        except OSError as error:
            return self.agent.finish(question, f"the operator could not be asked: {error.strerror}")
        client.pending, client.question = pending, question
        self._asked[client] = None
        self.reactor.watch(pending.fd, READ, lambda _events: self._answered(client))
        self._wake_at(pending.deadline)
        return None

    def _answered(self, client: Client) -> None:
        assert client.pending is not None
        self._decided(client, "" if self._desk.read(client.pending) else "the operator said no")

    def _decided(self, client: Client, refusal: str) -> None:
        question = self._take_back(client)
        assert question is not None
        client.decided(self.agent.finish(question, refusal))

    def _take_back(self, client: Client) -> Question | None:
        """Take a client's question off the desk and return it."""
        pending, question = client.pending, client.question
        if pending is not None:
            del self._asked[client]
            self.reactor.forget(pending.fd)
            self._desk.clear(pending)
            client.pending = client.question = None
        return question
