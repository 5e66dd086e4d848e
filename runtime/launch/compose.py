"""Turns a request into a state bundle on disk and podman's flags.

The order matters: `sidecar.json` is written last, so that a container whose launch broke off has no wiring and the
hook refuses its start.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...supervisor.ground import layout as places
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle, check_name, outer_uid
from ..host import apparmor, podman
from ..host.hooks import require_hooks
from ..kit import files
from ..kit.alive import refuse_if_running
from ..kit.config import Config
from . import identity, restricted, services, tokens, wiring
from .cleanup import take_back
from .plan import PerContainerResources, WiringPlan
from .request import Request, decide
from .resources import allocate_per_container_resources, containers, run_state_dir

META_SCHEMA = 1


@dataclass(frozen=True)
class Launch:
    """What a launch made: podman's flags, the plan, and what to tell people."""

    flags: list[str]
    plan: WiringPlan
    network: podman.NetworkPlan
    bundle: Bundle
    env: dict[str, str]
    notes: list[str]


def compose(
    container: str,
    *,
    cfg: Config,
    shield: bool,
    gate: bool,
    broker: bool,
    scope: str | None,
    profiles: Sequence[str] | None = None,
) -> tuple[list[str], WiringPlan]:
    """Write the wiring of one container and return podman's flags for it, and what is active.

    Mints the tokens that the active subsystems need, makes the container's directories (0700) and writes its state
    bundle with `meta.json`. Doing it again for the same container and scope gives the same tokens and ports.

    Args:
        container: the container's name; it must not be running.
        cfg: the configuration (`config.load(os.environ)`).
        shield, gate, broker: whether the firewall, the git gate, and the vault are wanted; the SSH signer follows
            `ssh.enabled` of the configuration.
        scope: whose credentials, keys and mirrors; with None, the subsystems that need a scope are left out, with a
            note on stderr.
        profiles: shield profiles; None: those of the configuration, and the one named like the scope.

    Raises:
        SystemExit: the hooks are not installed; its message names `terok setup`.
        TerokError: the name, a profile or the configuration is wrong, or the container is running.
    """
    request = Request(
        container,
        shield=shield,
        gate=gate,
        broker=broker,
        scope=scope,
        profiles=None if profiles is None else tuple(profiles),
    )
    made = launch(request, cfg, os.environ)
    for note in made.notes:
        print(note, file=sys.stderr)
    return made.flags, made.plan


def launch(
    request: Request, cfg: Config, environ: Mapping[str, str], *, asked: podman.VersionAsked | None = None
) -> Launch:
    """`compose` with everything that can be asked for.

    Args:
        request: what is wanted.
        cfg: the configuration.
        environ: the operator's environment variables.
        asked: a question for podman's version that is under way already.

    Raises:
        SystemExit, TerokError: as `compose`.
    """
    require_hooks(cfg.layout, environ)
    version = (asked or podman.ask_version(environ)).answer()
    return wire(request, cfg, plan_network(request, cfg, environ, version))


def plan_network(
    request: Request, cfg: Config, environ: Mapping[str, str], version: tuple[int, ...]
) -> podman.NetworkPlan:
    """The network that the container will have; raises TerokError when it can't or must not have it."""
    mode = request.network or cfg.network.mode
    if mode == podman.AIRLOCK and not request.shield:
        raise TerokError(
            "The airlock is a part of the shield, which is switched off.",
            fix="remove --no-shield, or use --network none",
            code=Exit.USAGE,
        )
    return podman.plan_network(
        mode,
        rootless=outer_uid() != 0,
        podman=version,
        programs=podman.network_programs(environ),
        forwarder=cfg.shield.forwarder,
        host_loopback=cfg.services.mode == "tcp" and request.shield,
        resolvers=podman.host_resolvers(),
    )


def wire(request: Request, cfg: Config, network: podman.NetworkPlan) -> Launch:
    """Write the bundle of a container whose network is known; raises TerokError as `compose` does."""
    check_name(request.container)
    if request.scope is not None:
        check_name(request.scope)
    plan, notes = decide(request, cfg)
    files.make_dir(cfg.layout.containers)
    with files.locked(cfg.layout.containers_lock):
        bundle = cfg.layout.bundle(request.container)
        refuse_if_running(bundle)
        anew = not os.path.exists(bundle.root)
        try:
            made = _write(request, cfg, plan, network)
        except BaseException:
            if anew:  # a launch that is refused leaves nothing
                take_back(request.container, cfg)
            raise
    flags = _flags(plan, made.profiles, network, bundle)
    if cfg.run.init:
        flags.append("--init")
    if request.restricted:
        flags += restricted.flags(cfg.restricted)
    return Launch(flags, plan, network, bundle, made.env, [*notes, *made.notes])


@dataclass(frozen=True)
class _Written:
    """What `_write` decided on the way."""

    profiles: tuple[str, ...]
    env: dict[str, str]
    notes: list[str]


def _write(request: Request, cfg: Config, plan: WiringPlan, network: podman.NetworkPlan) -> _Written:
    """Write every file of the bundle."""
    bundle = Bundle(run_state_dir(cfg, request.container))
    resources = allocate_per_container_resources(cfg, request.container)
    profiles = services.profiles_for(request.profiles, cfg, request.scope) if plan.shield else ()
    made = identity.make(plan, request.agents or cfg.agents.default, cfg=cfg, bundle=bundle)
    env = {**wiring.service_env(plan, gate_token=made.tokens.get(tokens.GATE)), **made.env}
    confined = apparmor.confinement(cfg.layout) if plan.shield and cfg.shield.dns != "static" else None
    if confined:
        made.notes.append(f"{confined.summary}. `terok setup` prints how to change that.")
    works = cfg.shield.dns != "static" and confined is None
    shield = _shield(plan, cfg, profiles, network, bundle, resources, dnsmasq_works=works, udp_ports=request.udp_ports)
    mounts = _home_files(made, bundle, read_only=request.restricted)
    if shield is not None:
        mounts.append({"source": bundle.resolv_conf, "target": "/etc/resolv.conf", "read_only": True})
        if shield["dnsmasq_conf"] is None:  # names are resolved on the host, or not at all
            mounts.append({"source": bundle.hosts, "target": "/etc/hosts", "read_only": True})
        if network.mode == podman.AIRLOCK:
            made.notes += services.airlock_notes(bundle)
    if request.restricted:
        mounts += restricted.write_policies(bundle)
    files.write(bundle.env, env_file(env))
    files.write_json(bundle.meta, _meta(request, plan, network, resources, profiles, made))
    document = wiring.document(
        bundle,
        cfg=cfg,
        plan=plan,
        resources=resources,
        settings=services.settings(plan, cfg.layout, network),
        shield=shield,
        mounts=mounts,
    )
    files.write_json(bundle.sidecar, document)
    return _Written(profiles, env, made.notes)


def _shield(
    plan: WiringPlan,
    cfg: Config,
    profiles: Sequence[str],
    network: podman.NetworkPlan,
    bundle: Bundle,
    resources: PerContainerResources,
    *,
    dnsmasq_works: bool,
    udp_ports: Sequence[int],
) -> dict[str, Any] | None:
    if not plan.shield:
        return None
    return services.shield_files(
        bundle,
        cfg=cfg,
        profiles=profiles,
        network=network,
        resources=resources,
        dnsmasq_works=dnsmasq_works,
        udp_ports=udp_ports,
    )


def _home_files(made: identity.Identity, bundle: Bundle, *, read_only: bool) -> list[dict[str, Any]]:
    """Write the agents' files into the bundle; returns the mounts that show each in the container user's home."""
    if os.path.isdir(bundle.home):
        shutil.rmtree(bundle.home)
    mounts = []
    for path, file in made.files.items():
        source = bundle.home_file(path)
        files.make_dir(os.path.dirname(source))
        files.write(source, file.content, mode=file.mode)
        mounts.append({"source": source, "target": f"~/{path}", "read_only": read_only})
    return mounts


def _meta(
    request: Request,
    plan: WiringPlan,
    network: podman.NetworkPlan,
    resources: PerContainerResources,
    profiles: Sequence[str],
    made: identity.Identity,
) -> dict[str, Any]:
    ports = [resources.token_broker_port, resources.ssh_signer_port, resources.gate_port]
    return {
        "schema": META_SCHEMA,
        "container": request.container,
        **plan.to_dict(),
        "profiles": list(profiles),
        "network": network.mode,
        "restricted": request.restricted,
        "agents": made.names,
        "ports": ports if ports[0] is not None else None,
    }


def env_file(environment: Mapping[str, str]) -> str:
    """The text of a podman --env-file: one NAME=VALUE a line, values as they are (podman-run(1)).

    Raises:
        TerokError: a name or value can't be written in such a file.
    """
    lines = []
    for name, value in environment.items():
        if not name or "=" in name or name[0] == "#" or any(letter in name + value for letter in "\n\r\0"):
            raise TerokError(f"The environment variable {name[:60]!r} can't be written into an --env-file.")
        lines.append(f"{name}={value}\n")
    return "".join(lines)


def _flags(plan: WiringPlan, profiles: Sequence[str], network: podman.NetworkPlan, bundle: Bundle) -> list[str]:
    flags = ["--name", bundle.name, "--annotation", f"{places.ANNOTATION_SIDECAR}={bundle.sidecar}"]
    if plan.shield:
        # podman before 5 splits an annotation's value at commas
        flags += ["--annotation", f"{places.ANNOTATION_PROFILES}={':'.join(profiles)}"]
        flags += ["--annotation", f"{places.ANNOTATION_STATE_DIR}={bundle.root}"]
    # the host's proxy variables may hold a password, and lead nowhere from inside
    flags += ["--network", network.flag, "--env-file", bundle.env, "--http-proxy=false"]
    # with one of these two a process could change the rules, or set the mark that reaches the forwarder
    return [*flags, "--cap-drop", "NET_ADMIN", "--cap-drop", "NET_RAW"]


def require_bundle(cfg: Config, container: str) -> Bundle:
    """The bundle of a container that was prepared; raises TerokError (NOT_FOUND) when there is none."""
    bundle = cfg.layout.bundle(container)
    if container not in containers(cfg):
        raise TerokError(
            f"No container {container} was prepared by terok.", fix="terok status lists them", code=Exit.NOT_FOUND
        )
    return bundle
