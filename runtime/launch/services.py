"""Asks each service's package for its part of a container's wiring. The only place that knows what they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...sidecars.store import keys
from ...sidecars.store import tokens as shapes
from ...sidecars.store.store import Store
from ...supervisor.errors import Exit, TerokError
from ...supervisor.layout import Bundle, Layout
from ..config import Config
from ..podman import NetworkPlan
from .plan import PerContainerResources, WiringPlan


def vault_settings(layout: Layout) -> dict[str, Any]:
    """The settings of the vault's sidecar."""
    return {
        "store": layout.vault_db,
        "routes": layout.vault_routes,
        "key_files": keys.key_files(layout),
        "audit": layout.vault_audit,
    }


def ssh_settings(layout: Layout) -> dict[str, Any]:
    """The settings of the signer's sidecar."""
    return {"store": layout.vault_db, "key_files": keys.key_files(layout), "policy": {}}


def gate_settings(layout: Layout) -> dict[str, Any]:
    """The settings of the gate's sidecar."""
    return {"root": layout.gate, "store": layout.vault_db}


def open_store(layout: Layout) -> Store | None:
    """The operator's store, or None when no credential was ever added."""
    try:
        return Store.open(layout.vault_db)
    except TerokError as error:
        if error.code == Exit.NOT_FOUND:
            return None
        raise


def mint(layout: Layout, provider: str) -> str:
    """A phantom token in the shape that the provider's clients accept."""
    return shapes.mint()


def agent_env(layout: Layout, agents: Sequence[str] | None, minted: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that point each agent at the vault.

    Args:
        layout: where the routes are.
        agents: which ones; None: those whose provider has a token.
        minted: the container's token by provider.
    """
    return {}


def settings(plan: WiringPlan, layout: Layout, bundle: Bundle) -> dict[str, dict[str, Any]]:
    """The settings of every sidecar that the plan activates, by the sidecar's name."""
    found: dict[str, dict[str, Any]] = {}
    if plan.broker:
        found["vault"] = vault_settings(layout)
    if plan.ssh:
        found["ssh"] = ssh_settings(layout)
    if plan.gate:
        found["gate"] = gate_settings(layout)
    return found


def shield_files(
    bundle: Bundle,
    *,
    cfg: Config,
    profiles: tuple[str, ...],
    network: NetworkPlan,
    resources: PerContainerResources,
) -> dict[str, Any]:
    """Write the firewall's files into the bundle and return the sidecar JSON's `shield` object.

    Raises:
        TerokError: a profile is unknown.
    """
    raise TerokError("The shield is not part of this build.", fix="--no-shield")
