"""The sockets of the signer: one epoll loop, bounded in connections, bytes and time.

A request on a kept connection costs a recv, a send and an epoll_wait; asyncio would add 50 ms to the start, 8 MB of
memory, and half again to each request. Rules of this file: nothing blocks, no client makes another one wait for long,
every bound is a named constant, and an idle process has no timer.
"""

from __future__ import annotations

import select
import socket
import time

from . import confirm, wire
from .agent import Agent, Connection, Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS_MAX = 256
"""Clients at a time; for one more, the connection that was silent for the longest time is closed."""

ACCEPTS_MAX = 32
"""Connections that are taken in before those that are there get their turn."""

READ_SIZE = 16 << 10
PENDING_MAX = 4 << 20
"""Bytes of unfinished messages, of all connections together."""

ANSWERS_MAX = 128 << 10
"""Bytes of answers that wait for one client; until it takes them, nothing more is read from it."""

TURN_MAX = 64
"""Messages of one connection that are answered before another connection's turn."""

TURN_SECONDS = 0.02
"""How long a turn may take before that; one signature with a large RSA key takes longer already."""

MESSAGE_SECONDS = 10.0
"""How long a message may take to arrive once it has begun, and a client to take an answer."""

_READ = select.EPOLLIN | select.EPOLLRDHUP
_WRITE = select.EPOLLOUT
_GONE = select.EPOLLRDHUP


class _Client:
    """One connection: what arrived, what waits to be sent, and since when it is in the middle of something.

    pending, question: the question that the operator has not answered yet; None when there is none.
    """

    __slots__ = ("answers", "connection", "events", "fd", "framer", "last", "pending", "question", "since", "sock")

    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock, self.fd = sock, sock.fileno()
        self.framer = wire.Framer()
        self.connection = Connection()
        self.answers = b""
        self.events = _READ
        self.last = now
        self.since = 0.0
        self.pending: confirm.Pending | None = None
        self.question: Question | None = None


class Server:
    """Serves an agent on listening sockets.

    Args:
        listeners: non-blocking listening sockets; they stay open when `run` returns.
        agent: answers.
        desk: where the operator is asked.
        idle_seconds: return after this long without a connection; 0: never.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], agent: Agent, desk: confirm.Desk, idle_seconds: float
    ) -> None:
        self._agent, self._desk, self._idle_seconds = agent, desk, idle_seconds
        self._epoll = select.epoll()
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._clients: dict[int, _Client] = {}
        self._busy: dict[int, _Client] = {}  # more messages of theirs have arrived than one turn answers
        self._slow: dict[int, _Client] = {}  # in the middle of a message or an answer
        self._asked: dict[int, _Client] = {}  # by the descriptor of the operator's answer
        self._idle_since = self._now = time.monotonic()
        for fd in self._listeners:
            self._epoll.register(fd, select.EPOLLIN)

    def __repr__(self) -> str:
        counts = (len(self._clients), len(self._busy), len(self._slow), len(self._asked))
        return "Server(clients={}, busy={}, slow={}, asked={})".format(*counts)

    def run(self) -> int:
        """Serve until the process has been idle for long enough; returns exit code 0.

        Raises:
            OSError: the audit cannot be written; nothing may be signed then.
        """
        poll, clients = self._epoll.poll, self._clients
        while True:
            wait = self._expire()
            if wait is not None and wait <= 0 and not clients:
                return 0
            events = poll(0 if self._busy else wait)
            self._now = time.monotonic()
            for fd, _ in events:
                if fd in clients:
                    self._ready(clients[fd])
                elif fd in self._listeners:
                    self._accept(self._listeners[fd])
                elif fd in self._asked:
                    self._answered(self._asked[fd])
            if self._busy:
                for client in list(self._busy.values()):
                    self._serve(client)

    def close(self) -> None:
        """Close every connection."""
        for client in list(self._clients.values()):
            self._close(client)
        self._epoll.close()

    # -- deadlines --

    def _expire(self) -> float | None:
        """Close what took too long; seconds until the next deadline, None when there is none."""
        deadlines = []
        for client in list(self._slow.values()) if self._slow else ():
            if self._now - client.since >= MESSAGE_SECONDS:
                what = "did not take its answer" if client.answers else "did not finish its message"
                self._drop(client, f"the client {what} within {MESSAGE_SECONDS:g} s")
            else:
                deadlines.append(client.since + MESSAGE_SECONDS)
        for client in list(self._asked.values()) if self._asked else ():
            assert client.pending is not None
            if self._now >= client.pending.deadline:
                self._decided(client, f"the operator did not confirm within {confirm.SECONDS:g} s")
            else:
                deadlines.append(client.pending.deadline)
        if not self._clients and self._idle_seconds:
            deadlines.append(self._idle_since + self._idle_seconds)
        return max(0.0, min(deadlines) - self._now) if deadlines else None

    # -- connections --

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                sock, _ = listener.accept()
            except OSError:  # nobody is left in the queue, or descriptors ran out
                return
            sock.setblocking(False)
            if len(self._clients) >= CONNECTIONS_MAX:
                oldest = min(self._clients.values(), key=lambda client: client.last)
                self._drop(oldest, f"there are more than {CONNECTIONS_MAX}, and it was silent for the longest time")
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = _Client(sock, self._now)
            self._clients[client.fd] = client
            self._epoll.register(client.fd, _READ)

    def _ready(self, client: _Client) -> None:
        if client.answers:
            self._send(client)
            if client.sock.fileno() >= 0 and not client.answers:
                self._serve(client)
            return
        if client.pending is not None:
            self._close(client)
            return
        if client.fd in self._busy:
            return
        try:
            data = client.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            client.framer.feed(data)
            client.last = self._now
            self._serve(client)
            return
        if client.framer.pending:
            self._agent.note("the client left in the middle of a message")
        self._close(client)

    def _serve(self, client: _Client) -> None:
        """Answer what has arrived, within one turn's bounds."""
        answers: list[bytes] = []
        size = 0
        busy = False
        end = time.monotonic() + TURN_SECONDS
        try:
            while (message := client.framer.next()) is not None:
                answer = self._agent.handle(client.connection, message)
                if isinstance(answer, Question):
                    refused = self._ask(client, answer)
                    if refused is None:
                        break
                    answer = refused
                answers.append(answer)
                size += len(answer)
                if len(answers) >= TURN_MAX or size >= ANSWERS_MAX or time.monotonic() > end:
                    busy = True
                    break
        except wire.WireError as error:
            self._drop(client, str(error))
            return
        if busy:
            self._busy[client.fd] = client
        elif client.fd in self._busy:
            del self._busy[client.fd]
        if answers:
            self._slow.pop(client.fd, None)
            client.answers += answers[0] if len(answers) == 1 else b"".join(answers)
        self._send(client)

    def _send(self, client: _Client) -> None:
        if client.answers:
            try:
                sent = client.sock.send(client.answers)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(client)
                return
            client.answers = client.answers[sent:]
        if client.answers:
            wanted = _WRITE
            self._busy.pop(client.fd, None)
        else:
            wanted = _READ if client.pending is None else _GONE
        if wanted != client.events:
            client.events = wanted
            self._epoll.modify(client.fd, wanted)
        if client.answers or (client.framer.pending and client.pending is None and client.fd not in self._busy):
            self._stuck(client)
        elif client.fd in self._slow:
            del self._slow[client.fd]

    def _stuck(self, client: _Client) -> None:
        if client.fd not in self._slow:
            client.since = self._now
            self._slow[client.fd] = client
        if not client.answers and sum(each.framer.pending for each in self._slow.values()) > PENDING_MAX:
            self._drop(client, f"there are more than {PENDING_MAX} bytes of unfinished messages")

    def _drop(self, client: _Client, reason: str) -> None:
        self._agent.note(f"the connection was closed: {reason}")
        self._close(client)

    def _close(self, client: _Client) -> None:
        del self._clients[client.fd]
        self._busy.pop(client.fd, None)
        self._slow.pop(client.fd, None)
        client.sock.close()
        if not self._clients:
            self._idle_since = time.monotonic()
        question = self._take_back(client)
        if question is not None:
            self._agent.finish(question, "the connection ended before the operator's answer")

    # -- the operator's word --

    def _ask(self, client: _Client, question: Question) -> bytes | None:
        """Put a question on the desk; the refusal when there is no room for it, None when it lies there."""
        if len(self._asked) >= confirm.QUESTIONS_MAX:
            return self._agent.finish(question, f"{confirm.QUESTIONS_MAX} signatures wait for the operator already")
        try:
            client.pending = self._desk.ask(self._agent.ask(question), self._now)
        except OSError as error:
            return self._agent.finish(question, f"the operator could not be asked: {error.strerror}")
        client.question = question
        self._asked[client.pending.fd] = client
        self._epoll.register(client.pending.fd, select.EPOLLIN)
        return None

    def _answered(self, client: _Client) -> None:
        assert client.pending is not None
        self._decided(client, "" if self._desk.read(client.pending) else "the operator said no")

    def _decided(self, client: _Client, refusal: str) -> None:
        question = self._take_back(client)
        assert question is not None
        client.answers += self._agent.finish(question, refusal)
        self._serve(client)

    def _take_back(self, client: _Client) -> Question | None:
        """Take a client's question off the desk and return it."""
        pending, question = client.pending, client.question
        if pending is not None:
            del self._asked[pending.fd]
            self._epoll.unregister(pending.fd)
            self._desk.clear(pending)
            client.pending = client.question = None
        return question
