"""Asks each service's package for its part of a container's wiring. The only place that knows what they are called."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...sidecars.airlock import settings as airlock_settings
from ...sidecars.airlock.tunnels import settings as tunnel_settings
from ...sidecars.gate import config as gate_config
from ...sidecars.kit.addresses import own_addresses
from ...sidecars.mcp import settings as mcp_settings
from ...sidecars.roster import brokered
from ...sidecars.shield import airlock, dnsmasq
from ...sidecars.shield import bundle as shield_bundle
from ...sidecars.shield import profiles as shield_profiles
from ...sidecars.shield.reader import settings as audit_settings
from ...sidecars.shield.targets import BELOW
from ...sidecars.ssh import policy as ssh_policy
from ...sidecars.ssh import settings as ssh_settings
from ...sidecars.store.store import Store
from ...sidecars.vault import settings as vault_settings
from ...supervisor.ground import paste, process
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle, Layout
from ...supervisor.schema import Shield
from ..host import podman
from ..host.podman import AIRLOCK, NetworkPlan
from ..kit import egress, gates
from ..kit.config import Config
from .plan import PerContainerResources, WiringPlan


def open_store(layout: Layout, *, create: bool = False) -> Store | None:
    """The operator's store; None when there is none yet, unless `create` makes an empty one without any key."""
    try:
        return Store.open(layout.vault_db, create=create)
    except TerokError as error:
        if error.code == Exit.NOT_FOUND:
            return None
        raise


def settings(
    plan: WiringPlan, cfg: Config, network: NetworkPlan, *, runtime_dir: str, tls_hosts: Sequence[str], mcp: bool
) -> dict[str, dict[str, object]]:
    """The settings of every sidecar that the plan activates, by the sidecar's name.

    Args:
        runtime_dir: the container's.
        tls_hosts: its brokered hosts, each as `host:port`.
        mcp: it may use its scope's MCP servers, and there are some.
    """
    parts: dict[str, dict[str, object]] = {}
    layout, way = cfg.layout, egress.egress(cfg.network)
    if plan.broker:
        gates.publish(layout)
        parts["vault"] = vault_settings.settings_for(layout, tls_hosts=tls_hosts, way=way)
    if plan.ssh:
        parts["ssh"] = ssh_settings.settings_for(layout)
    if plan.gate and plan.scope is not None:
        parts["gate"] = gate_config.settings_for(layout, plan.scope, way)
    if mcp and plan.scope is not None:
        program = podman.which("podman", os.environ) or "podman"
        parts["mcp"] = mcp_settings.settings_for(layout.mcp_servers(plan.scope), program, os.environ)
    if plan.shield:
        parts["audit"] = audit_settings.settings_for()
        if network.mode == AIRLOCK or tls_hosts:
            told = (cfg.notify.command or ()) if network.mode == AIRLOCK else ()  # elsewhere the relay asks nothing
            parts["airlock"] = airlock_settings.settings_for(runtime_dir, tls_hosts, told, os.environ)
            if way.host:
                parts["airlock"]["tunnels"] = tunnel_settings.settings_for(layout, way)
    return parts


def known_hosts(layout: Layout, scope: str | None) -> str:
    """The hosts that the keys of a scope are pinned to, as a known_hosts file; empty when there are none."""
    store = open_store(layout) if scope is not None else None
    if store is None:
        return ""
    with store:
        keys = [entry.meta for entry in store.describe(ssh_settings.KIND) if scope in entry.meta.get("scopes", ())]
    return "".join(f"{line}\n" for line in ssh_policy.known_hosts(key.get("policy", {}).get(scope, {}) for key in keys))


def shield_files(
    bundle: Bundle,
    *,
    cfg: Config,
    profiles: Sequence[str],
    network: NetworkPlan,
    resources: PerContainerResources,
    dnsmasq_works: bool,
    udp_ports: Sequence[int] = (),
    allow: Sequence[str] = (),
    tls_hosts: Sequence[str] = (),
    published: Sequence[int] = (),
) -> Shield:
    """Write the firewall's files into the bundle and return where they are.

    In the airlock brokered hosts are allowed like others, and the relay knows which they are; elsewhere only they have
    synthetic addresses. Without `dnsmasq_works` the allowed names are resolved statically, whatever dnsmasq was built
    with.

    Raises:
        TerokError: a profile is unknown.
    """
    ports = (resources.token_broker_port, resources.ssh_signer_port, resources.gate_port)
    gateway = network.host
    written = shield_bundle.prepare(
        bundle,
        profiles=profiles,
        also=(*allow, *(tls_hosts if network.mode == AIRLOCK else ())),
        brokered=() if network.mode == AIRLOCK else [brokered.parse(host)[0] for host in tls_hosts],
        user_profiles=cfg.layout.profiles,
        forwarder=network.forwarder,
        features=dnsmasq_features() if dnsmasq_works else dnsmasq.Features(),
        services=[(gateway, port) for port in ports if port is not None] if gateway else [],
        published=published,
        published_udp=udp_ports,
        audit_group=audit_settings.GROUP,
        in_airlock=network.mode == AIRLOCK,
        ask=cfg.shield.unknown == "ask",
        own=() if network.mode == AIRLOCK else sorted(own_addresses()),
    )
    return Shield(**written)


def airlock_notes(bundle: Bundle) -> list[str]:
    """What the container's profiles ask for and the airlock does not give."""
    state = shield_bundle.read_state(bundle)
    notes = []
    udp = airlock.not_carried(state.model)
    if udp:
        listed = ", ".join(udp[:5]) + (" ..." if len(udp) > 5 else "")
        notes.append(f"The airlock carries TCP only, not {listed}: use --network slirp4netns or pasta for UDP.")
    patterns = [str(target) for target in state.model.names() if target.kind == BELOW]
    if patterns and not state.has_dnsmasq:
        listed = ", ".join(patterns[:5]) + (" ..." if len(patterns) > 5 else "")
        notes.append(f"Without dnsmasq 2.86 or newer, names below {listed} do not resolve: install dnsmasq.")
    return notes


def dnsmasq_features() -> dnsmasq.Features:
    """What the installed dnsmasq can do; nothing when there is none."""
    path = process.find("dnsmasq")
    if path is None:
        return dnsmasq.Features()
    return dnsmasq.features(process.run([path, "--version"], timeout=10).out.decode(errors="replace"))


def profiles_for(wanted: tuple[str, ...] | None, cfg: Config, scope: str | None) -> tuple[str, ...]:
    """The shield profiles of a container: those named, else the configuration's and the one named like the scope."""
    if wanted is not None:
        return wanted
    own = (scope,) if scope is not None and scope in available_profiles(cfg.layout) else ()
    return tuple(dict.fromkeys((*cfg.shield.profiles, *own)))


def available_profiles(layout: Layout) -> list[str]:
    """Names of the shield profiles that there are."""
    return list(shield_profiles.available(layout.profiles))


def require_scope(layout: Layout, scope: str) -> None:
    """Raise TerokError (NOT_FOUND) when nothing is stored for the scope."""
    if not scope_known(layout, scope):
        raise TerokError(
            f"There is no scope {scope}: no credential, SSH key, mirror or profile has that name.",
            fix=paste.command("terok", "vault", "add", scope, "PROVIDER"),
            code=Exit.NOT_FOUND,
        )


def scope_known(layout: Layout, scope: str) -> bool:
    """Whether anything is stored for the scope: a credential, an SSH key, a mirror or a shield profile."""
    if scope in available_profiles(layout) or os.path.isdir(layout.gate_home(scope).root):
        return True
    store = open_store(layout)
    if store is None:
        return False
    with store:
        return any(entry.scope == scope or scope in entry.meta.get("scopes", []) for entry in store.describe())
