"""The process that asks the proxy for a container's connections: forked by the relay before its confinement.

The relay reads what the container sends, so it holds no secret. The proxy's credential, and whatever the proxy answers,
are this process's, which gets names and ports and parses no byte of the container's.

- A question is one message: `number host port`. The answer has the same number, and a connected socket or a reason.
- Through a proxy with http:// the socket is the connection itself. With https:// the bytes pass through this process.
- It ends when the relay has ended. The relay ends when this process has: a confined relay can fork no other one.
"""

from __future__ import annotations

import gc
import json
import os
import socket
from functools import partial

from ....supervisor.ground import process
from ....supervisor.ground.errors import Exit, TerokError
from ...kit.confine import RESOLVER_FILES, confine
from ...kit.dial import Dialling, Endpoint
from ...kit.proxy.dialer import Authorization, dialer_for, no_authorization
from ...kit.reactor import READ, Reactor
from ...kit.refusal import Refusal
from ...kit.stream import Stream
from ..descriptors import connections_max
from .settings import MESSAGE_MAX, Settings

DNS_PORT = 53


def start(settings: Settings) -> socket.socket:
    """Fork it, while nothing is open that it must not have. Returns the relay's end, non-blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def body() -> int:
        os.setsid()
        process.reset_signals()
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        return serve(theirs, settings)

    process.fork(body)
    theirs.close()
    ours.setblocking(False)
    return ours


def serve(link: socket.socket, settings: Settings) -> int:
    """Answer questions until the relay is gone; returns the exit code."""
    from ...store import keys

    connections_max()
    keys.prepare(settings.key_files)
    reactor = Reactor()
    authorization = open_credential(settings)
    dialer = dialer_for(reactor, settings.egress, authorization)
    _confine(settings)
    gc.collect()
    gc.freeze()
    link.setblocking(True)
    reactor.watch(link.fileno(), READ, lambda _events: _hear(reactor, link, dialer))
    reactor.run()
    return 0


def open_credential(settings: Settings) -> Authorization:
    """What reads the credential: the store is opened here, before the confinement; without a vault there is none."""
    from ...store import proxy
    from ...store.store import Store

    try:
        store = Store.open(settings.store, read_only=True)
    except TerokError as error:
        return no_authorization if error.code == Exit.NOT_FOUND else partial(_raise, error)
    import cryptography.exceptions
    import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401 - Landlock hides it later

    return proxy.reader(store, settings.key_files, settings.egress.authority)


def _raise(error: TerokError) -> str:
    raise error


def _confine(settings: Settings) -> None:
    way = settings.egress
    read = [*RESOLVER_FILES, *map(os.path.dirname, settings.key_files)]
    if way.tls:
        from ...kit.tls import layer

        read += layer.trust_paths(way.files)
    try:
        socket.getaddrinfo(b"localhost", way.port, type=socket.SOCK_STREAM)  # loads the resolver's modules
    except OSError:
        pass
    confine(read=read, connect_ports=[DNS_PORT, *way.ports])


def _hear(reactor: Reactor, link: socket.socket, dialer: Dialling) -> None:
    try:
        message = link.recv(MESSAGE_MAX, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    except OSError:
        message = b""
    if not message:
        reactor.stop()
        return
    number, host, port = message.decode("ascii").split(" ")
    # the relay has judged the name or address; what no proxy is asked for is judged again by the dialler
    endpoint = Endpoint(host, int(port), tls=False, judge=lambda _address: "")
    dialer.dial(endpoint, partial(_answer, link, int(number)))


def _answer(link: socket.socket, number: int, stream: Stream | None, refusal: Refusal | None) -> None:
    """Blocks while the relay's queue is full: the relay never waits for this process, so it reads."""
    reason = {} if refusal is None else {"status": refusal.status, "rule": refusal.rule, "why": refusal.why}
    message = json.dumps({"number": number, **reason}).encode()
    try:
        if stream is None:
            link.send(message, socket.MSG_NOSIGNAL)
            return
        with stream.hand_over() as sock:
            socket.send_fds(link, [message], [sock.fileno()], socket.MSG_NOSIGNAL)
    except OSError:
        pass  # the relay is gone, which the next read shows
