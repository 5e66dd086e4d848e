"""The vault's part of the sidecar JSON: written by the launch, read by `main`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...supervisor.ground.layout import Layout


def settings_for(layout: Layout, *, audit_required: bool = True) -> dict[str, object]:
    """The `settings` object of the vault's sidecar.

    Args:
        layout: where everything is.
        audit_required: refuse requests that cannot be audited (a full disk); False serves them all the same.
    """
    return {
        "store": layout.vault_db,
        "routes": layout.vault_routes,
        "key_files": [layout.unlocked_key, layout.vault_key],
        "audit": layout.vault_audit,
        "refresh": layout.vault_refresh,
        "usage": layout.vault_usage,
        "audit_required": audit_required,
    }
