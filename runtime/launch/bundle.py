"""Writes every file of a container's state bundle.

`sidecar.json` is written last: a container whose prepare broke off has no wiring, and the hook refuses its start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ...sidecars.airlock.published.settings import Published
from ...sidecars.mcp.names import names
from ...supervisor.ground import layout as places
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import Bundle
from ...supervisor.schema import Mount
from ..host import apparmor, podman
from ..kit import files
from ..kit.config import Config
from . import identity, restricted, services, sidecar_json, tokens
from .plan import META_SCHEMA, Meta, PerContainerResources, WiringPlan
from .request import Request
from .resources import allocate_per_container_resources, choose_host_ports, run_state_dir


@dataclass(frozen=True)
class Written:
    """What was decided on the way: the profiles, the container's environment, notes for the operator."""

    profiles: tuple[str, ...]
    env: dict[str, str]
    notes: list[str]


def write(request: Request, cfg: Config, plan: WiringPlan, network: podman.NetworkPlan) -> Written:
    """Write the bundle of a container; raises TerokError when a profile, an agent or the store is wrong."""
    bundle = Bundle(run_state_dir(cfg, request.container))
    resources = allocate_per_container_resources(cfg, request.container)
    profiles = services.profiles_for(request.profiles, cfg, request.scope) if plan.shield else ()
    who = identity.make(
        plan,
        request.agents or cfg.agents.default,
        cfg=cfg,
        bundle=bundle,
        gate_ssh=request.gate_ssh,
        names_lead_here=plan.shield,
        allow_missing=request.allow_missing or request.agents is None,
    )
    servers = names(cfg.layout.mcp_servers(plan.scope)) if request.mcp and plan.scope is not None else []
    if servers:
        from ...sidecars.mcp.agents import BASE, with_servers

        who.files = with_servers(who.files, who.names, servers)
        who.env["TEROK_MCP_URL"] = BASE
    env = {**service_env(plan, gate_token=who.tokens.get(tokens.GATE)), **who.env}
    confined = apparmor.confinement(cfg.layout) if plan.shield and cfg.shield.dns != "static" else None
    if confined:
        who.notes.append(f"{confined.summary}. `terok setup` shows how to change that.")
    ports = choose_host_ports(request.published, cfg, bundle)
    shield = None
    if plan.shield:
        shield = services.shield_files(
            bundle,
            cfg=cfg,
            profiles=profiles,
            network=network,
            resources=resources,
            dnsmasq_works=cfg.shield.dns != "static" and confined is None,
            udp_ports=request.udp_ports,
            allow=request.allow,
            tls_hosts=who.tls_hosts,
            published=[port.port for port in ports],
        )
    mounts = _home_files(who, bundle, read_only=request.restricted)
    pinned = services.known_hosts(cfg.layout, plan.scope) if plan.ssh else ""
    if pinned:
        files.write(bundle.known_hosts, pinned, mode=0o644)
        mounts.append(Mount(bundle.known_hosts, "/etc/ssh/ssh_known_hosts", read_only=True))
    if shield is not None:
        mounts.append(Mount(bundle.resolv_conf, "/etc/resolv.conf", read_only=True))
        if shield.dnsmasq_conf is None:  # names are resolved on the host, or not at all
            mounts.append(Mount(bundle.hosts, "/etc/hosts", read_only=True))
        if network.mode == podman.AIRLOCK:
            who.notes += services.airlock_notes(bundle)
    if request.restricted:
        mounts += restricted.write_policies(bundle)
    _mark(bundle, once=request.once)
    files.write(bundle.env, env_file(env))
    files.write_json(bundle.meta, asdict(_meta(request, plan, network, resources, profiles, who, ports)))
    document = sidecar_json.build(
        bundle,
        cfg=cfg,
        plan=plan,
        resources=resources,
        published=ports,
        settings=services.settings(
            plan,
            cfg,
            network,
            runtime_dir=resources.container_runtime_dir,
            tls_hosts=who.tls_hosts,
            mcp=bool(servers),
        ),
        shield=shield,
        mounts=mounts,
        tls=bool(who.tls_hosts),
    )
    files.write_json(bundle.sidecar, document)
    return Written(profiles, env, who.notes)


def _mark(bundle: Bundle, *, once: bool) -> None:
    """Whether the poststop hook looks if the container is removed."""
    if once:
        os.close(os.open(bundle.once, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    else:
        files.remove_file(bundle.once)


def _home_files(who: identity.Identity, bundle: Bundle, *, read_only: bool) -> list[Mount]:
    """Write the agents' files into the bundle; returns the mounts that show each in the container user's home."""
    if os.path.isdir(bundle.home):
        import shutil  # 8 ms that most starts do not need

        shutil.rmtree(bundle.home)
    mounts = []
    for path, file in who.files.items():
        source = bundle.home_file(path)
        files.make_dir(os.path.dirname(source))
        files.write(source, file.content, mode=file.mode)
        mounts.append(Mount(source, f"~/{path}", read_only))
    return mounts


def _meta(
    request: Request,
    plan: WiringPlan,
    network: podman.NetworkPlan,
    resources: PerContainerResources,
    profiles: Sequence[str],
    who: identity.Identity,
    published: tuple[Published, ...],
) -> Meta:
    ports = (resources.token_broker_port, resources.ssh_signer_port, resources.gate_port)
    return Meta(
        META_SCHEMA,
        request.container,
        **asdict(plan),
        profiles=tuple(profiles),
        network=network.mode,
        restricted=request.restricted,
        agents=tuple(who.names),
        ports=tuple(port for port in ports if port is not None) or None,
        published=published,
        workspace=request.workspace,
        project_file=request.project_file,
    )


def service_env(plan: WiringPlan, *, gate_token: str | None) -> dict[str, str]:
    """The environment variables that point a container's programs at the services."""
    inside = places.IN_CONTAINER
    variables: dict[str, str] = {}
    if plan.broker:
        variables["TEROK_VAULT_SOCKET"] = places.socket_path(inside, "vault")
        variables["TEROK_VAULT_LOOPBACK_PORT"] = str(places.VAULT_PORT)
    if plan.gate:
        variables["TEROK_GATE_SOCKET"] = places.socket_path(inside, "gate")
        if gate_token:
            variables["TEROK_GATE_TOKEN"] = gate_token
    if plan.ssh:
        variables["SSH_AUTH_SOCK"] = places.socket_path(inside, "ssh")
    return variables


def env_file(environment: Mapping[str, str]) -> str:
    """The text of a podman --env-file: one NAME=VALUE a line, values as they are (podman-run(1)).

    Raises:
        TerokError: a name or value cannot be written to such a file.
    """
    lines = []
    for name, value in environment.items():
        if not name or "=" in name or name[0] == "#" or any(letter in name + value for letter in "\n\r\0"):
            raise TerokError(f"The environment variable {name[:60]!r} cannot be written to an --env-file.")
        lines.append(f"{name}={value}\n")
    return "".join(lines)
