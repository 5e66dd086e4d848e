"""The MCP sidecar's process: splits in two before the first byte arrives.

This process stays the keeper, which may run Podman and reads nothing hostile. The front is forked from it: it speaks
with agents and servers, and keeps no right but to read the scope's list of servers.
"""

from __future__ import annotations

import os
import resource
import signal
import socket

from ...supervisor.ground import kernel, sockets
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.confine import confine
from ..kit.halves.keeper import fork_front
from ..kit.reactor import Reactor
from . import limits
from .keeper import Keeper
from .service import Service, Shelf
from .settings import Settings, read_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kit.context import Context


def main(context: Context) -> int:
    """Serve `context`'s listeners; returns 0 when idle."""
    if context.scope is None:
        raise TerokError("MCP servers belong to a scope.", code=Exit.USAGE)
    settings = read_settings(context.settings)
    kernel.forbid_dumps()
    link, pid = fork_front(context, lambda theirs: front(context, settings, theirs), parent=os.getpid())
    keeper = Keeper(settings.directory, settings.podman, settings.environment, context.audit, link, pid)
    try:
        return keeper.run()
    finally:
        keeper.end()


def front(context: Context, settings: Settings, link: int) -> int:
    """The half that reads what agents and servers write."""
    reactor = Reactor()

    def open_server(name: str) -> socket.socket | None:
        try:
            here, there = socket.socketpair()
        except OSError:
            return None
        with there:
            try:
                sockets.send_fds(link, name.encode(), [there.fileno()])
            except OSError:
                here.close()
                return None
        return here

    service = Service(
        reactor,
        [listener for _, listener in context.listeners],
        Shelf(settings.directory),
        open_server,
        context.audit,
        scope=context.scope or "",
        idle_seconds=context.idle_seconds,
    )
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = limits.MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(limits.MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    confine(read=[settings.directory])
    reactor.on_signal(signal.SIGTERM, service.stop)
    service.start()
    reactor.run()
    return 0
