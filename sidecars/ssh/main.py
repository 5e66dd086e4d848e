"""The signer's process: opens the store, confines itself, serves the agent protocol until it is idle or stopped."""

from __future__ import annotations

import os
import signal
import sys

from ...supervisor.ground.errors import Exit, TerokError
from ..kit import limits
from ..kit.confine import confine
from ..kit.reactor import Reactor
from ..store import keys as vault_keys
from ..store.store import Store
from .agent import Agent
from .confirm import Desk
from .keyring import Keyring, Unavailable
from .server import STREAM_LIMITS, Server
from .settings import Settings, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from ..kit.context import Context

NO_VAULT_SECONDS = 1.0
"""Without a vault the process leaves this soon after its last client: confined, it could not open one made later."""


def main(context: Context) -> int:
    """Serve `context`'s listeners; returns 0 when idle."""
    signal.signal(signal.SIGTERM, _leave)
    settings = parse(context.settings)
    limits.change(STREAM_LIMITS, {})
    vault_keys.prepare(settings.key_files)
    store = _open(settings)
    keyring = Keyring(store, settings.key_files, context.scope, settings.policy)
    desk = Desk(context.bundle.confirm)
    _warm(keyring)
    confine(
        read=sorted({os.path.dirname(path) for path in settings.key_files}),
        write=[context.bundle.confirm],
        connect_ports=(),
    )
    idle = context.idle_seconds if store is not None else min(context.idle_seconds or 1.0, NO_VAULT_SECONDS)
    agent = Agent(keyring, context.audit)
    listeners = [listener for _, listener in context.listeners]
    server = Server(Reactor(strict=True), listeners, agent, desk, idle)
    try:
        return server.run()
    finally:
        server.close()
        agent.close()
        if store is not None:
            store.close()


def _open(settings: Settings) -> Store | None:
    try:
        return Store.open(settings.store, read_only=True)
    except TerokError as error:
        if error.code == Exit.NOT_FOUND:
            return None
        raise


def _warm(keyring: Keyring) -> None:
    """Import what the first request needs while the libraries can still be read."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    AESGCM(bytes(32))
    try:
        keyring.refresh()
    except Unavailable:
        pass


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
