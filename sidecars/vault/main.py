"""The vault's process: confine, serve, leave when idle."""

from __future__ import annotations

import gc
import os
import signal
import socket
import ssl
import sys

from ...supervisor.ground.errors import Exit, TerokError
from ..kit.confine import RESOLVER_FILES, confine
from ..kit.context import Context
from ..kit.proxy.dialer import dialer_for
from ..kit.reactor import Reactor
from ..kit.tls.layer import trust_paths
from ..login.helper import Helper
from ..login.refresh import needed
from ..store import proxy
from ..store.keys import prepare
from ..store.light import sqlite3
from ..store.store import Store
from . import apology, limits
from .apology import Ways
from .books.journal import Journal
from .books.ledger import Counts, Ledger
from .books.watch import Books
from .keeper import Keeper
from .renew import Renewer
from .service import Service
from .settings import Settings, read_settings
from .tls.site import Sites

DNS_PORT = 53
GC_THRESHOLDS = (20_000, 20, 50)


def main(context: Context) -> int:
    """Serve the container's vault; returns the process's exit code."""
    try:
        settings = read_settings(context.settings)
        limits.change(settings.limits)
        prepare(settings.key_files)
        helper = start_helper(context.container, settings)
        reactor = Reactor()
        store = Store.open(settings.store, read_only=True)
        keeper = Keeper(store, settings.routes, settings.gates, list(settings.key_files), context.container)
        books = open_books(reactor, context, settings)
    except (TerokError, OSError, sqlite3.Error) as error:
        return apologise(context, error)
    keeper.look(reactor.now)
    ways, sites = ways_of(context), Sites(settings.tls_hosts)
    renewer = Renewer(reactor, keeper, helper)
    way = settings.egress
    dialer = dialer_for(reactor, way, proxy.reader(store, settings.key_files, way.authority))
    service = Service(reactor, keeper, books, renewer, dialer, ways.plain, context.idle_seconds, sites)
    if sites:
        open_door(service, sites, ways, context.bundle.tls_spare)
    confine_vault(keeper, settings)
    # what lives now lives to the end: the collector need not look at it again, nor often at what requests leave
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    reactor.on_signal(signal.SIGTERM, service.stop)
    service.start()
    reactor.run()
    books.close()
    if helper is not None:
        helper.close()
    return Exit.OK


def apologise(context: Context, error: Exception) -> int:
    """Tell every client why the vault does not open; the next connection after that finds another try."""
    print(f"vault: {error}", file=sys.stderr)
    known = error if isinstance(error, TerokError) else TerokError(f"The vault does not open: {type(error).__name__}.")
    confine()
    apology.serve(ways_of(context), known)
    return Exit.OK if known.code == Exit.NOT_FOUND else Exit.FAILURE


def ways_of(context: Context) -> Ways:
    """The listening sockets by what comes in through them."""
    links = [sock for listener, sock in context.listeners if listener.kind == "handover"]
    return Ways([sock for _, sock in context.listeners if sock not in links], links)


def open_door(service: Service, sites: Sites, ways: Ways, spare: str) -> None:
    """Let connections to brokered hosts in; what signs their certificates is loaded here, before the confinement.

    Args:
        spare: path of the certificate that serves while the vault is locked; it need not exist.
    """
    from .tls.door import Door
    from .tls.leaves import Leaves
    from .tls.leaves import warm as warm_leaves

    warm_leaves()
    try:
        with open(spare, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        content = b""
    leaves = Leaves(service.keeper.authority, content)
    service.open_door(Door(service.reactor, service, sites, leaves, ways.links))


def start_helper(container: str, settings: Settings) -> Helper | None:
    """The process that refreshes logins, when this container may use one; forked while nothing is open yet."""
    with Store.open(settings.store, read_only=True) as store:
        scopes = {token.scope for token in store.tokens(container)}
        if not any(needed(store, scope) for scope in scopes):
            return None
    return Helper.start(
        store=settings.store,
        routes=settings.routes,
        key_files=list(settings.key_files),
        directory=settings.refresh,
        way=settings.egress,
    )


def open_books(reactor: Reactor, context: Context, settings: Settings) -> Books:
    """The books, with their files open: no file is opened by its path once the process is confined."""
    counts = Counts(Ledger(settings.usage), context.container)
    journal = Journal(settings.audit)
    return Books(reactor, context.container, context.audit, journal, counts, required=settings.audit_required)


def confine_vault(keeper: Keeper, settings: Settings) -> int:
    """Give up everything but the vault's own files, the resolver's, the authorities' and the ports of the routes.

    Nothing can be written or executed, and no file opened but these; what was opened before stays open. Returns the
    Landlock ABI.
    """
    warm()
    return confine(
        read=[
            *RESOLVER_FILES,
            os.path.dirname(settings.routes),
            *map(os.path.dirname, settings.key_files),
            *trust_paths([*keeper.reach().bundles, *settings.egress.files]),
        ],
        connect_ports=[DNS_PORT, *keeper.reach().ports, *settings.egress.ports],
    )


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
