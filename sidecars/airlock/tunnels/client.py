"""The relay's end: dials directly what goes around the proxy, and asks the helper for all else."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...kit.proxy.dialer import refusal_of
from ...kit.reactor import READ, WRITE, Reactor
from ...kit.refusal import Refusal
from ...kit.stream import Stream
from .settings import MESSAGE_MAX

if TYPE_CHECKING:
    from ...kit.dial import Connected, Dialer, Endpoint
    from ...kit.proxy.egress import Egress


class Tunnels:
    """Makes the relay's connections (`kit.dial.Dialling`).

    Args:
        reactor: the loop.
        link: to the helper, non-blocking.
        way: the proxy and what it carries.
        direct: for what goes around it.
        gone: called once when the helper is gone.
    """

    def __init__(
        self, reactor: Reactor, link: socket.socket, way: Egress, direct: Dialer, gone: Callable[[], None]
    ) -> None:
        self._reactor, self._link, self._way, self._direct, self._gone = reactor, link, way, direct, gone
        self._number = 0
        self._waiting: dict[int, Connected] = {}
        self._queue: deque[bytes] = deque()
        self._mask = READ
        reactor.watch(link.fileno(), READ, self._ready)

    def __repr__(self) -> str:
        return f"<Tunnels {self._way.authority} waiting={len(self._waiting)}>"

    def via(self, host: str) -> str:
        """The proxy, for what it carries."""
        return self._way.authority if self._way.carries(host) else ""

    def dial(self, endpoint: Endpoint, done: Connected) -> None:
        """As `Dialer.dial`; an address is judged here, a name by what it shows."""
        if not self._way.carries(endpoint.host):
            self._direct.dial(endpoint, done)
            return
        refusal = refusal_of(endpoint)
        if refusal is not None:
            self._reactor.soon(lambda: done(None, refusal))
            return
        self._number += 1
        self._waiting[self._number] = done
        self._queue.append(f"{self._number} {endpoint.host} {endpoint.port}".encode("ascii"))
        self._send()

    def _send(self) -> None:
        try:
            while self._queue:
                self._link.send(self._queue[0], socket.MSG_NOSIGNAL)
                self._queue.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._queue.clear()  # it is gone, which the next read shows
        mask = READ | (WRITE if self._queue else 0)
        if mask != self._mask:
            self._mask = mask
            self._reactor.modify(self._link.fileno(), mask)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._send()
        if events & ~WRITE:
            self._receive()

    def _receive(self) -> None:
        try:
            message, fds, _, _ = socket.recv_fds(self._link, MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            message, fds = b"", []
        if not message:
            self._end()
            return
        answer = json.loads(message)
        done = self._waiting.pop(answer["number"])
        if fds:
            sock = socket.socket(fileno=fds[0])
            sock.setblocking(False)
            done(Stream(self._reactor, sock, None), None)
        elif "why" in answer:
            done(None, Refusal(answer["status"], answer["rule"], answer["why"]))
        else:
            done(None, Refusal(502, "proxy-helper", "There was no descriptor left for the connection."))

    def _end(self) -> None:
        self._reactor.forget(self._link.fileno())
        self._link.close()
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(None, Refusal(502, "proxy-helper", "The process that asks the proxy has ended; try again."))
        self._gone()
