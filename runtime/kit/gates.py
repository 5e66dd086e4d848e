"""Tells the vault which repositories have a gate: `gates.json`, written anew from every gate's own file."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, flock

from ...sidecars.gate import config
from ...sidecars.gate.forge.address import parse_url
from ...sidecars.gate.site import Site
from ...sidecars.store.keys import key_files
from ...sidecars.vault.gated import gates
from ...supervisor.ground import durable
from ...supervisor.ground.errors import TerokError
from .egress import egress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...supervisor.ground.layout import Layout
    from .config import Config


def publish(layout: Layout) -> None:
    """Write `gates.json`; called after each change of a gate, and at every launch.

    A gate whose file cannot be read counts as one before every repository: the vault then writes to no forge for that
    scope, until the file is right again.
    """
    names = sorted(os.listdir(layout.gate)) if os.path.isdir(layout.gate) else []
    os.makedirs(layout.vault, mode=0o700, exist_ok=True)
    lock = os.open(layout.vault_gates + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        flock(lock, LOCK_EX)
        guarded = {scope: gate for scope in names if (gate := _gate(layout, scope)) is not None}
        content = gates.dump(guarded)
        if _read(layout.vault_gates) != content:
            durable.replace(layout.vault_gates, content, only_writer=True)
    finally:
        os.close(lock)


def scopes(layout: Layout) -> list[str]:
    """The scopes that have a gate, sorted."""
    names = sorted(os.listdir(layout.gate)) if os.path.isdir(layout.gate) else []
    return [name for name in names if _is_gate(layout, name)]


def _is_gate(layout: Layout, scope: str) -> bool:
    try:
        return os.path.exists(layout.gate_home(scope).config)
    except TerokError:  # no name of a scope
        return False


def site(cfg: Config, scope: str) -> Site:
    """A scope's gate as the operator's verbs see it: without a container."""
    layout = cfg.layout
    files = tuple(key_files(layout))
    return Site("", scope, layout.gate_home(scope), "", layout.vault_db, files, egress(cfg.network))


def _gate(layout: Layout, scope: str) -> gates.Gate | None:
    """What the vault must know of a scope's gate; None: nothing."""
    try:
        home = layout.gate_home(scope)
        if not os.path.exists(home.config):
            return None
        settings = config.load(home)
        if settings.direct == "allow":
            return None
        address = parse_url(settings.url)
    except TerokError:
        return gates.UNKNOWN
    return gates.Gate(address.host.lower(), address.repository) if address.kind != "file" else None


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
