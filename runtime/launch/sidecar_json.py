"""Builds the sidecar JSON of one container: what the hook and the supervisor are told; pure."""

from __future__ import annotations

from collections.abc import Sequence

from ...sidecars.airlock import settings as airlock
from ...sidecars.airlock.published import settings as publish
from ...sidecars.mcp import settings as mcp
from ...sidecars.shield.reader import settings as audit
from ...sidecars.vault import settings as vault
from ...supervisor import schema
from ...supervisor.ground import layout as places
from ...supervisor.ground import netlink
from ...supervisor.ground.layout import Bundle
from ..kit.config import Config, GateConfig, SshConfig, VaultConfig
from .plan import PerContainerResources, WiringPlan


def build(
    bundle: Bundle,
    *,
    cfg: Config,
    plan: WiringPlan,
    resources: PerContainerResources,
    settings: dict[str, dict[str, object]],
    shield: schema.Shield | None,
    mounts: list[schema.Mount],
    published: Sequence[publish.Published] = (),
    tls: bool = False,
) -> dict[str, object]:
    """The sidecar JSON as plain data, already checked by the schema that the supervisor uses.

    Args:
        bundle: the container's state bundle.
        cfg: decides when sidecars start and how long they stay idle.
        plan: which subsystems are active.
        resources: the runtime directory and the ports.
        settings: each sidecar's own part, by name; one that is not here is not started.
        shield: the firewall's files, or None.
        mounts: further bind mounts.
        published: ports that terok publishes.
        tls: brokered hosts are terminated.

    Raises:
        TerokError: the result is not what the schema allows; nothing was written.
    """
    runtime_dir = resources.container_runtime_dir
    sections: dict[str, VaultConfig | SshConfig | GateConfig] = {"vault": cfg.vault, "ssh": cfg.ssh, "gate": cfg.gate}
    loopback = {"vault": places.VAULT_PORT, "gate": places.GATE_PORT, "mcp": places.MCP_PORT}
    host_ports = {"vault": resources.token_broker_port, "ssh": resources.ssh_signer_port, "gate": resources.gate_port}
    own_listeners = {"audit": audit.listeners(), "airlock": airlock.listeners()}
    idle = {
        "audit": audit.IDLE_SECONDS,
        "airlock": airlock.IDLE_SECONDS,
        "publish": publish.IDLE_SECONDS,
        "mcp": mcp.IDLE_SECONDS,
    }
    if published:
        ipv6 = netlink.has_ipv6()
        own_listeners["publish"] = publish.listeners(published, ipv6=ipv6)
        settings = {**settings, "publish": publish.settings_for(published, ipv6=ipv6)}
    sidecars: list[dict[str, object]] = []
    for name, own in settings.items():
        listeners = list(own_listeners.get(name, ()))
        section = sections.get(name)
        if name in places.SOCKETS:
            listeners.append({"kind": "unix", "path": places.socket_path(runtime_dir, name)})
        if name in loopback:
            listeners.append({"kind": "netns", "port": loopback[name]})
        if name == "vault" and tls:
            listeners += vault.tls_listeners(runtime_dir)
        if (port := host_ports.get(name)) is not None:
            listeners.append({"kind": "tcp", "port": port})
        sidecars.append(
            {
                "name": name,
                "start": section.start if section else "demand",
                "idle_seconds": section.idle_seconds if section else idle[name],
                "listeners": listeners,
                "settings": own,
            }
        )
    result: dict[str, object] = {
        "schema": schema.VERSION,
        "container": bundle.name,
        "scope": plan.scope,
        "bundle": bundle.root,
        "runtime_dir": runtime_dir,
        "sidecars": sidecars,
        "mounts": [{"source": runtime_dir, "target": places.IN_CONTAINER, "read_only": True}, *map(vars, mounts)],
        "shield": None if shield is None else _shield(shield),
    }
    if tls:
        result["trust"] = True
    schema.parse(result)
    return result


def _shield(shield: schema.Shield) -> dict[str, object]:
    """The schema has no null for the loopback's file: it is left out."""
    return {name: value for name, value in vars(shield).items() if value is not None or name != "loopback"}
