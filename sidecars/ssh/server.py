"""The sockets of the signer: one epoll loop, bounded in connections, bytes and time.

A request on a kept connection costs a recv, a send and an epoll_wait; asyncio would add 50 ms to the start, 8 MB of
memory, and half again to each request. Rules of this file: nothing blocks, no client makes another one wait for long,
every bound is a named constant, and an idle process has no timer.
"""

from __future__ import annotations

import select
import socket
import time

from . import wire
from .agent import Agent, Connection, Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS_MAX = 256
"""Clients at a time; for one more the connection that was silent for the longest time is closed."""

READ_SIZE = 64 << 10
PENDING_MAX = 4 << 20
"""Bytes of unfinished messages, of all connections together."""

ANSWERS_MAX = 128 << 10
"""Bytes of answers that wait for one client; until it takes them, nothing more is read from it."""

TURN_MAX = 64
"""Messages of one connection that are answered before another connection's turn."""

MESSAGE_SECONDS = 10.0
"""How long a message may take to arrive once it has begun, and a client to take an answer."""

_READ = select.EPOLLIN | select.EPOLLRDHUP
_WRITE = select.EPOLLOUT


class _Client:
    """One connection: what arrived, what waits to be sent, and since when it is in the middle of something."""

    __slots__ = ("answers", "connection", "events", "framer", "last", "since", "sock")

    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock = sock
        self.framer = wire.Framer()
        self.connection = Connection()
        self.answers = b""
        self.events = _READ
        self.last = now
        self.since = 0.0


class Server:
    """Serves an agent on listening sockets.

    Args:
        listeners: non-blocking listening sockets; they stay open when `run` returns.
        agent: answers.
        idle_seconds: return after this long without a connection; 0: never.
    """

    def __init__(self, listeners: Sequence[socket.socket], agent: Agent, idle_seconds: float) -> None:
        self._agent, self._idle_seconds = agent, idle_seconds
        self._epoll = select.epoll()
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._clients: dict[int, _Client] = {}
        self._busy: dict[int, _Client] = {}  # more messages of theirs have arrived than one turn answers
        self._slow: dict[int, _Client] = {}  # in the middle of a message or an answer
        self._idle_since = time.monotonic()
        for fd in self._listeners:
            self._epoll.register(fd, select.EPOLLIN)

    def run(self) -> int:
        """Serve until the process has been idle for long enough; returns exit code 0.

        Raises:
            OSError: the audit cannot be written.
        """
        while True:
            now = time.monotonic()
            wait = self._expire(now)
            if wait is not None and wait <= 0 and not self._clients:
                return 0
            for fd, events in self._epoll.poll(0 if self._busy else wait):
                if fd in self._listeners:
                    self._accept(self._listeners[fd])
                else:
                    self._ready(fd, events)
            for client in list(self._busy.values()):
                self._serve(client)

    def close(self) -> None:
        """Close every connection."""
        for fd in list(self._clients):
            self._close(fd)
        self._epoll.close()

    def _expire(self, now: float) -> float | None:
        """Close what took too long; seconds until the next deadline, None when there is none."""
        if self._slow:
            for fd, client in list(self._slow.items()):
                if now - client.since >= MESSAGE_SECONDS:
                    what = "did not take its answer" if client.answers else "did not finish its message"
                    self._drop(fd, f"the client {what} within {MESSAGE_SECONDS:g} s")
        if self._slow:
            return max(0.0, min(client.since for client in self._slow.values()) + MESSAGE_SECONDS - now)
        if self._clients or not self._idle_seconds:
            return None
        return max(0.0, self._idle_since + self._idle_seconds - now)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # the client has left, or descriptors ran out
            return
        sock.setblocking(False)
        now = time.monotonic()
        if len(self._clients) >= CONNECTIONS_MAX:
            oldest = min(self._clients, key=lambda fd: self._clients[fd].last)
            self._drop(oldest, f"more than {CONNECTIONS_MAX} connections at a time")
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = sock.fileno()
        self._clients[fd] = _Client(sock, now)
        self._epoll.register(fd, _READ)

    def _ready(self, fd: int, events: int) -> None:
        client = self._clients.get(fd)
        if client is None:
            return
        if client.answers:
            self._send(client)
            if fd in self._clients and not client.answers:
                self._serve(client)
            return
        if fd in self._busy:
            return
        try:
            data = client.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(fd, client)
            return
        client.framer.feed(data)
        client.last = time.monotonic()
        self._serve(client)

    def _serve(self, client: _Client) -> None:
        """Answer what has arrived, within one turn's bounds."""
        fd = client.sock.fileno()
        framer = client.framer
        answers: list[bytes] = []
        size = 0
        try:
            for _ in range(TURN_MAX):
                message = framer.next()
                if message is None:
                    self._busy.pop(fd, None)
                    break
                answer = self._agent.handle(client.connection, message)
                if isinstance(answer, Question):
                    answer = self._agent.finish(answer, "the operator cannot be asked for a confirmation yet")
                answers.append(answer)
                size += len(answer)
                if size >= ANSWERS_MAX:
                    self._busy[fd] = client
                    break
            else:
                self._busy[fd] = client
        except wire.WireError as error:
            self._drop(fd, str(error))
            return
        if answers:
            self._slow.pop(fd, None)
            client.answers = answers[0] if len(answers) == 1 else b"".join(answers)
        self._send(client)

    def _send(self, client: _Client) -> None:
        fd = client.sock.fileno()
        if client.answers:
            try:
                sent = client.sock.send(client.answers)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(fd)
                return
            client.answers = client.answers[sent:]
        if client.answers:
            self._busy.pop(fd, None)
        wanted = _WRITE if client.answers else _READ
        if wanted != client.events:
            client.events = wanted
            self._epoll.modify(fd, wanted)
        self._note_progress(fd, client)

    def _note_progress(self, fd: int, client: _Client) -> None:
        if client.answers or (client.framer.pending and fd not in self._busy):
            if fd not in self._slow:
                client.since = time.monotonic()
                self._slow[fd] = client
            if not client.answers and sum(each.framer.pending for each in self._slow.values()) > PENDING_MAX:
                self._drop(fd, f"more than {PENDING_MAX} bytes of unfinished messages")
        elif fd in self._slow:
            del self._slow[fd]

    def _end(self, fd: int, client: _Client) -> None:
        if client.framer.pending:
            self._agent.note("the client left in the middle of a message")
        self._close(fd)

    def _drop(self, fd: int, reason: str) -> None:
        self._close(fd)
        self._agent.note(f"the connection was closed: {reason}")

    def _close(self, fd: int) -> None:
        client = self._clients.pop(fd)
        self._busy.pop(fd, None)
        self._slow.pop(fd, None)
        client.sock.close()
        if not self._clients:
            self._idle_since = time.monotonic()
