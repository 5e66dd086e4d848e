"""The front: the half of a gate that reads the container's bytes.

Confined to git's own files, the mirror (reading) and one scratch directory (writing), without any network, and without
a secret. Each connection has a process of its own, so a slow or broken one concerns nobody else; code is shared with
the parent, which costs little, and a waiting connection costs nothing until it says something.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time
import traceback

from ....supervisor.ground import kernel, process
from ...kit.confine import confine
from .. import config, git
from ..config import Limits
from . import channel
from .serve import Front
from .wire import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    return _Acceptor(listeners, served, limits, idle_seconds).run()


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
                digests += [bytes.fromhex(each) for each in answer.get("digests", ())]
            self._seen, self._digests = now, digests
        return self._digests


def _mark(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


class _Acceptor:
    """Forks a process for each connection, up to the limit; beyond that connections wait, they are not refused."""

    def __init__(self, listeners: list[socket.socket], served: Front, limits: Limits, idle_seconds: int) -> None:
        self._listeners = {each.fileno(): each for each in listeners}
        self._served, self._limits, self._idle_seconds = served, limits, idle_seconds
        self._children: dict[int, int] = {}

    def run(self) -> int:
        """Serve until idle."""
        quiet_since = time.monotonic()
        while True:
            waiting = select.poll()
            for fd in self._children:
                waiting.register(fd, select.POLLIN)
            if len(self._children) < self._limits.connections:
                for fd in self._listeners:
                    waiting.register(fd, select.POLLIN)
            ready = [fd for fd, _ in waiting.poll(self._patience(quiet_since))]
            for fd in ready:
                if fd in self._listeners:
                    self._accept(self._listeners[fd])
                else:
                    del self._children[fd]
                    os.close(fd)
            _reap()
            if ready or self._children:
                quiet_since = time.monotonic()
            elif self._idle_seconds and time.monotonic() - quiet_since >= self._idle_seconds:
                return 0

    def _patience(self, quiet_since: float) -> float | None:
        if self._children or not self._idle_seconds:
            return None
        return max(0.0, quiet_since + self._idle_seconds - time.monotonic()) * 1000

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the client left before its turn, or another poll of the same event was faster
        parent = os.getpid()
        with client:
            self._served.tokens.current()  # here, so that the next connections' processes have them too
            pid = process.fork(lambda: self._serve(client, parent))
            self._children[process.pidfd(pid)] = pid

    def _serve(self, client: socket.socket, parent: int) -> int:
        kernel.die_with_parent(parent, signal.SIGKILL)
        for fd in (*self._listeners, *self._children):
            os.close(fd)
        _limit(self._limits)
        try:
            self._served.serve(Connection(client, idle_seconds=self._limits.idle_seconds))
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
