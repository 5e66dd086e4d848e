"""The relay's process: reads its policy, confines itself, serves until it is idle or stopped."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

from ...supervisor.ground.errors import TerokError
from ..kit.audit import Audit
from ..kit.confine import RESOLVER_FILES, confine
from ..kit.context import Context
from ..kit.dial import Dialer, Dialling
from ..kit.reactor import Reactor
from ..roster import brokered
from .asking import directory
from .notify import Notifier
from .service import Service
from .tunnels.settings import Settings, read_settings


def main(context: Context) -> int:
    """Serve the container's connections; returns the process's exit code."""
    tunnels = start_tunnels(context.settings.get("tunnels"))
    reactor = Reactor()
    audit = Audit(context.bundle.audit, "shield")
    audit.open_old()
    pending = directory(context.bundle.airlock_pending)
    dialer = dialer_of(reactor, tunnels)
    service = Service(
        reactor,
        [sock for _, sock in context.listeners],
        context.bundle.airlock_policy,
        audit,
        container=context.container,
        told=open_told(context.bundle.airlock_told),
        idle_seconds=context.idle_seconds,
        brokered=frozenset(map(brokered.parse, context.settings.get("brokered", ()))),
        handover=str(context.settings.get("handover", "")),
        pending=pending,
        decisions=context.bundle.airlock_decisions,
        notifier=start_notifier(context),
        dialer=dialer,
    )
    warm()
    # the ports that may be connected to change with the policy, and Landlock cannot be loosened: none is named here
    shown = [os.path.dirname(pending)] if pending else []
    confine(read=[*RESOLVER_FILES, context.bundle.airlock], write=shown, connect_ports=None)
    gc.collect()
    gc.freeze()
    reactor.on_signal(signal.SIGTERM, reactor.stop)
    reactor.on_signal(signal.SIGHUP, service.changed)
    service.start()
    reactor.run()
    return 0


def dialer_of(reactor: Reactor, tunnels: tuple[Settings, socket.socket] | None) -> Dialling:
    """What connects: directly, or through the proxy; when the process that asks the proxy ends, so does this one."""
    if tunnels is None:
        return Dialer(reactor)
    settings, link = tunnels
    from .tunnels.client import Tunnels

    return Tunnels(reactor, link, settings.egress, Dialer(reactor), reactor.stop)


def start_tunnels(document: object) -> tuple[Settings, socket.socket] | None:
    """Start what asks the proxy; None without one. Raises ValueError for settings that are not understood."""
    settings = read_settings(document)
    if settings is None or not settings.egress.host:
        return None
    from .tunnels import helper

    return settings, helper.start(settings)


def open_told(path: str) -> int:
    """The pipe in which verbs hear that their change is in force (fifo(7)); -1 when it cannot be made."""
    try:
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            pass
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1


def start_notifier(context: Context) -> Notifier | None:
    """The process that runs `notify.command`; None without one, or when it cannot be started: questions still wait."""
    command = context.settings.get("notify")
    if not command:
        return None
    try:
        return Notifier(command, context.settings.get("notify_environment", {}), context.container)
    except (OSError, TerokError) as error:
        print(f"airlock: notify.command cannot be run: {error}", file=sys.stderr)
        return None


def warm() -> None:
    """Load what the first look-up loads, the resolver's modules (nsswitch.conf(5)): Landlock hides them afterwards."""
    try:
        socket.getaddrinfo(b"localhost", 443, type=socket.SOCK_STREAM)
    except OSError:
        pass
