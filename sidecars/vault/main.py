"""The vault's process: confine, serve, leave when idle."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys

from ...supervisor.errors import Exit, TerokError
from ..kit.confine import confine
from ..kit.context import Context
from ..store.keys import prepare
from ..store.store import Store
from .dial import Dialer, trust_stores
from .keeper import Keeper
from .reactor import Reactor
from .service import Service

RESOLVER_FILES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/localtime",
)
DNS_PORT = 53


def main(context: Context) -> int:
    """Serve the container's vault; returns the process's exit code."""
    settings = context.settings
    key_files = [str(path) for path in settings["key_files"]]
    routes = str(settings["routes"])
    try:
        prepare(key_files)
        store = Store.open(str(settings["store"]), read_only=True)
    except TerokError as error:
        print(f"vault: {error}", file=sys.stderr)
        return Exit.FAILURE
    reactor = Reactor()
    keeper = Keeper(store, routes, key_files, context.container)
    keeper.look()
    service = Service(reactor, keeper, Dialer(reactor), [each for _, each in context.listeners], context.idle_seconds)
    warm()
    confine(
        read=[*RESOLVER_FILES, os.path.dirname(routes), *map(os.path.dirname, key_files), *trust_paths(keeper)],
        connect_ports=[DNS_PORT, *keeper.reach().ports],
    )
    reactor.on_signal(signal.SIGTERM, service.stop)
    service.start()
    reactor.run()
    return Exit.OK


def trust_paths(keeper: Keeper) -> list[str]:
    """Files and directories of certificate authorities, the system's and the routes', and what their links point to."""
    found = {path for pair in trust_stores() for path in pair if path} | keeper.reach().bundles
    return sorted(found | {os.path.realpath(path) for path in found} | {"/usr/share/ca-certificates"})


def warm() -> None:
    """Load what would be loaded on the first use: afterwards Landlock hides the libraries.

    The resolver's modules (nsswitch.conf(5)) are shared objects that the first look-up loads.
    """
    import cryptography.exceptions
    import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401 - loaded for its own sake

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        socket.getaddrinfo(b"localhost", 443, type=socket.SOCK_STREAM)
    except OSError:
        pass
