"""The vault's part of the sidecar JSON: written by the launch, read by `main`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...supervisor.ground.layout import TLS_PORT, handover_socket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...supervisor.ground.layout import Layout


def settings_for(layout: Layout, *, audit_required: bool = True, tls_hosts: Sequence[str] = ()) -> dict[str, object]:
    """The `settings` object of the vault's sidecar.

    Args:
        layout: where everything is.
        tls_hosts: the brokered hosts, each as `host:port`: connections to them are terminated with the container's own
            authority, which is in the store. None: TLS is off.
        audit_required: refuse requests that cannot be audited (a full disk); False serves them all the same.
    """
    return {
        "store": layout.vault_db,
        "routes": layout.vault_routes,
        "gates": layout.vault_gates,
        "key_files": [layout.unlocked_key, layout.vault_key],
        "audit": layout.vault_audit,
        "refresh": layout.vault_refresh,
        "usage": layout.vault_usage,
        "audit_required": audit_required,
        "tls_hosts": list(tls_hosts),
    }


def tls_listeners(runtime_dir: str, *, airlock: bool) -> list[dict[str, object]]:
    """Where connections to brokered hosts arrive: from the relay, or in the other network modes straight from a rule.

    Args:
        runtime_dir: the container's.
        airlock: the container is in the airlock.
    """
    if airlock:
        return [{"kind": "handover", "path": handover_socket(runtime_dir)}]
    return [{"kind": "netns", "port": TLS_PORT}]
