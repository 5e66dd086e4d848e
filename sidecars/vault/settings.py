"""The vault's part of the sidecar JSON: written by the launch, read by `main`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import handover_socket
from ..kit.proxy import egress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...supervisor.ground.layout import Layout
    from ..kit.proxy.egress import Egress


GATES = "gates.json"
"""Beside the routes: sidecar JSON of an older version does not name it."""
_PATHS = ("store", "routes", "audit", "refresh", "usage")
_FIELDS = {*_PATHS, "gates", "key_files", "audit_required", "tls_hosts", "limits", "egress"}


class Settings(NamedTuple):
    """The vault's settings, checked.

    Attributes:
        store, routes, gates, audit, refresh, usage: paths, as in `layout.py`.
        key_files: where the vault's key may be.
        audit_required: refuse requests that cannot be audited.
        tls_hosts: the brokered hosts, each as `host:port`.
        limits: changed limits, by name.
        egress: how upstreams are reached.
    """

    store: str
    routes: str
    gates: str
    audit: str
    refresh: str
    usage: str
    key_files: tuple[str, ...]
    audit_required: bool
    tls_hosts: tuple[str, ...]
    limits: dict[str, float]
    egress: Egress


def read_settings(document: Mapping[str, object]) -> Settings:
    """Check a settings object; what an older version did not write has its default.

    Raises:
        TerokError: a field is missing, unknown or of the wrong type.
    """
    paths = {name: value for name in _PATHS if isinstance(value := document.get(name), str)}
    gates = document.get("gates", os.path.join(os.path.dirname(paths.get("routes", "")), GATES))
    key_files, hosts = _texts(document.get("key_files")), _texts(document.get("tls_hosts", ()))
    required, limits = document.get("audit_required", True), document.get("limits", {})
    try:
        way = egress.from_dict(document.get("egress"))
    except ValueError:
        way = None
    if (
        way is not None
        and document.keys() <= _FIELDS
        and len(paths) == len(_PATHS)
        and isinstance(gates, str)
        and key_files is not None
        and hosts is not None
        and isinstance(required, bool)
        and isinstance(limits, dict)
    ):
        return Settings(
            **paths,
            gates=gates,
            key_files=key_files,
            audit_required=required,
            tls_hosts=hosts,
            limits=limits,
            egress=way,
        )
    raise TerokError("The vault's settings in the sidecar JSON are not understood.", fix="run `terok prepare` again")


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        return None
    return tuple(value)


def settings_for(
    layout: Layout, *, audit_required: bool = True, tls_hosts: Sequence[str] = (), way: Egress = egress.NO_PROXY
) -> dict[str, object]:
    """The `settings` object of the vault's sidecar.

    Args:
        layout: where everything is.
        tls_hosts: the brokered hosts, each as `host:port`: connections to them are terminated with the container's own
            authority, which is in the store. None: TLS is off.
        audit_required: refuse requests that cannot be audited (a full disk); False serves them all the same.
        way: how upstreams are reached.
    """
    from ..store.keys import key_files

    return {
        "store": layout.vault_db,
        "routes": layout.vault_routes,
        "gates": layout.vault_gates,
        "key_files": key_files(layout),
        "audit": layout.vault_audit,
        "refresh": layout.vault_refresh,
        "usage": layout.vault_usage,
        "audit_required": audit_required,
        "tls_hosts": list(tls_hosts),
        "egress": way.to_dict(),
    }


def tls_listeners(runtime_dir: str) -> list[dict[str, object]]:
    """Where connections to brokered hosts arrive, from the relay.

    Args:
        runtime_dir: the container's.
    """
    return [{"kind": "handover", "path": handover_socket(runtime_dir)}]
