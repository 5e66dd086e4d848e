"""The front: the half of a gate that reads the container's bytes.

Confined to git's own files, the mirror (reading) and one scratch directory (writing), without any network, and without
a secret. Each connection has a process of its own, so a slow or broken one affects no other; code is shared with
the parent, which costs little, and a waiting connection costs nothing until it says something.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback

from ....supervisor.ground import kernel, process
from ...kit.accept import Acceptor
from ...kit.confine import confine
from ...kit.reactor import READ, Reactor, Timer
from .. import config, git
from ..config import Limits
from . import channel
from .connection import Connection
from .serve import Front

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from ...kit.context import Context
    from ..site import Site

TOKENS_SECONDS = 10.0
NO_GATE_SECONDS = 1
"""A scope without a gate: confined, this process could not read one that is added later, so it leaves soon."""


def main(context: Context, site: Site, keeper: int) -> int:
    """Accept connections until none was open for `context.idle_seconds`; returns 0 then."""
    listeners = [listener for _, listener in context.listeners]
    limits, idle_seconds = Limits(), NO_GATE_SECONDS
    if os.path.exists(site.home.config):
        limits, idle_seconds = config.load(site.home).limits, context.idle_seconds
    tokens = Tokens(site, keeper)
    tokens.current()
    confine_to(site)
    served = Front(site, keeper, tokens)
    return _Door(listeners, served, limits, idle_seconds).run()


def confine_to(site: Site) -> None:
    """Give up everything but git's own files, the scope's mirror (reading) and the scratch directory (writing)."""
    read, execute = git.grants()
    confine(read=[*read, site.home.root], write=[site.incoming, "/dev/null"], execute=execute, connect_ports=())


class Tokens:
    """The digests of the tokens that are good here, asked for again when the vault's files have changed.

    stat(2) is all that a confined process can do with these files, and all that is needed.
    """

    def __init__(self, site: Site, keeper: int) -> None:
        self._files = (site.store, f"{site.store}-wal")
        self._keeper = keeper
        self._seen: list[tuple[int, int]] | None = None
        self._digests: list[bytes] = []

    def current(self) -> list[bytes]:
        """SHA-256 of each token."""
        now = [_mark(path) for path in self._files]
        if now != self._seen:
            digests: list[bytes] = []
            for answer in channel.ask(self._keeper, {"op": "tokens"}, seconds=TOKENS_SECONDS):
                digests += [bytes.fromhex(text) for text in answer.get("digests", ())]
            self._seen, self._digests = now, digests
        return self._digests


def _mark(path: str) -> tuple[int, int]:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return info.st_mtime_ns, info.st_size


class _Door:
    """Forks a process for each connection, up to the limit; beyond that connections wait, they are not refused."""

    def __init__(self, listeners: list[socket.socket], served: Front, limits: Limits, idle_seconds: int) -> None:
        self._reactor = Reactor(strict=True)
        self._listeners = listeners
        self._acceptor = Acceptor(self._reactor, listeners, self._accepted)
        self._served, self._limits, self._idle_seconds = served, limits, idle_seconds
        self._children: set[int] = set()  # pidfds
        self._quiet_since = self._reactor.now
        self._idle: Timer | None = None

    def run(self) -> int:
        """Serve until idle."""
        self._acceptor.start()
        self._quiet()
        self._reactor.run()
        return 0

    def _quiet(self) -> None:
        self._quiet_since = self._reactor.now
        if self._idle_seconds and not self._children and self._idle is None:
            self._idle = self._reactor.later(self._idle_seconds, self._leave)

    def _leave(self) -> None:
        self._idle = None
        left = self._quiet_since + self._idle_seconds - self._reactor.now
        if not self._children and left <= 0:
            self._reactor.stop()
        elif not self._children:
            self._idle = self._reactor.later(left, self._leave)

    def _accepted(self, client: socket.socket) -> None:
        parent = os.getpid()
        with client:
            self._served.tokens.current()  # here, so that the next connections' processes have them too
            pid = process.fork(lambda: self._serve(client, parent))
            child = process.pidfd(pid)
        self._children.add(child)
        self._reactor.watch(child, READ, lambda _events: self._ended(child))
        if len(self._children) >= self._limits.connections:
            self._acceptor.stop()

    def _ended(self, child: int) -> None:
        self._reactor.forget(child)
        self._children.remove(child)
        os.close(child)
        _reap()
        self._acceptor.start()
        self._quiet()

    def _serve(self, client: socket.socket, parent: int) -> int:
        """In the child: serve one connection, in a loop of its own; the parent's has the parent's descriptors."""
        kernel.die_with_parent(parent, signal.SIGKILL)
        self._reactor.close()
        for fd in (*(listener.fileno() for listener in self._listeners), *self._children):
            os.close(fd)
        _limit(self._limits)
        try:
            connection = Connection(Reactor(strict=True), client, idle_seconds=self._limits.idle_seconds)
            self._served.serve(connection)
            connection.close()
        except Exception:  # noqa: BLE001 - one connection's fault ends that connection; the log has the whole of it
            traceback.print_exc(file=sys.stderr)
            return 70
        return 0


def _limit(limits: Limits) -> None:
    """Bound what this process and each of its children may use (setrlimit(2))."""
    for what, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _reap() -> None:
    """Collect every child that has ended; as pid 1 of its namespace this process also gets git's orphans."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
