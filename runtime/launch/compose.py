"""Turns a request into a state bundle on disk and podman's flags.

The order matters: `sidecar.json` is written last, so that a container whose launch broke off has no wiring and the
hook refuses its start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...sidecars.store.store import Store
from ...supervisor import layout as places
from ...supervisor.errors import Exit, TerokError
from ...supervisor.layout import Bundle, check_name, outer_uid
from .. import podman
from ..config import Config
from . import files, services, tokens, wiring
from .live import refuse_if_running
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
        profiles: shield profiles; None: those of the configuration.

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


def launch(request: Request, cfg: Config, environ: Mapping[str, str]) -> Launch:
    """`compose` with everything that can be asked for.

    Args:
        request: what is wanted.
        cfg: the configuration.
        environ: the operator's environment variables.

    Raises:
        SystemExit, TerokError: as `compose`.
    """
    from ..hooks import require_hooks

    require_hooks(cfg.layout, environ)
    check_name(request.container)
    if request.scope is not None:
        check_name(request.scope)
    plan, notes = decide(request, cfg)
    network = _network(request, cfg, environ)
    files.make_dir(cfg.layout.containers)
    with files.locked(os.path.join(cfg.layout.containers, ".lock")):
        refuse_if_running(cfg.layout.bundle(request.container))
        bundle = Bundle(run_state_dir(cfg, request.container))
        resources = allocate_per_container_resources(cfg, request.container)
        notes += _write(request, cfg, plan, network, bundle, resources)
    return Launch(_flags(request, plan, network, bundle, cfg), plan, network, bundle, notes)


def _network(request: Request, cfg: Config, environ: Mapping[str, str]) -> podman.NetworkPlan:
    return podman.plan_network(
        request.network or cfg.network.mode,
        rootless=outer_uid() != 0,
        podman=podman.version(environ),
        programs=podman.network_programs(environ),
        forwarder=cfg.shield.forwarder,
        host_loopback=cfg.services.mode == "tcp",
        resolvers=podman.host_resolvers(),
    )


def _write(
    request: Request,
    cfg: Config,
    plan: WiringPlan,
    network: podman.NetworkPlan,
    bundle: Bundle,
    resources: PerContainerResources,
) -> list[str]:
    """Write every file of the bundle; returns notes for people."""
    notes: list[str] = []
    profiles = request.profiles or cfg.shield.profiles
    minted = _tokens(plan, cfg, bundle, notes)
    environment = {
        **wiring.service_env(plan, gate_token=minted.get(tokens.GATE)),
        **services.agent_env(cfg.layout, request.agents or cfg.agents.default, minted),
    }
    mounts: list[dict[str, Any]] = []
    shield = None
    if plan.shield:
        shield = services.shield_files(bundle, cfg=cfg, profiles=profiles, network=network, resources=resources)
        mounts.append({"source": bundle.resolv_conf, "target": "/etc/resolv.conf", "read_only": True})
    files.write(bundle.env, env_file(environment))
    files.write_json(bundle.meta, _meta(request, plan, network, resources, profiles))
    document = wiring.document(
        bundle,
        cfg=cfg,
        plan=plan,
        resources=resources,
        settings=services.settings(plan, cfg.layout, bundle),
        shield=shield,
        mounts=mounts,
    )
    files.write_json(bundle.sidecar, document)
    return notes


def _tokens(plan: WiringPlan, cfg: Config, bundle: Bundle, notes: list[str]) -> dict[str, str]:
    """One token for each credential of the scope, and the gate's; none when the scope has no store yet."""
    if plan.scope is None or not (plan.broker or plan.gate):
        return {}
    store = services.open_store(cfg.layout)
    if store is None:
        notes.append(f"The vault is empty: `terok vault add {plan.scope} PROVIDER` gives the scope a credential.")
        return {}
    with store:
        providers = _providers(store, plan)
        if plan.broker and not [each for each in providers if each != tokens.GATE]:
            notes.append(f"Scope {plan.scope} has no credential: `terok vault add {plan.scope} PROVIDER` adds one.")
        return tokens.ensure(
            store,
            bundle,
            scope=plan.scope,
            providers=providers,
            mint=lambda provider: services.mint(cfg.layout, provider),
        )


def _providers(store: Store, plan: WiringPlan) -> list[str]:
    found = [entry.name for entry in store.describe("credential", plan.scope)] if plan.broker else []
    return [*found, *([tokens.GATE] if plan.gate else [])]


def _meta(
    request: Request,
    plan: WiringPlan,
    network: podman.NetworkPlan,
    resources: PerContainerResources,
    profiles: Sequence[str],
) -> dict[str, Any]:
    ports = [resources.token_broker_port, resources.ssh_signer_port, resources.gate_port]
    return {
        "schema": META_SCHEMA,
        "container": request.container,
        **plan.to_dict(),
        "profiles": list(profiles) if plan.shield else [],
        "network": network.mode,
        "restricted": request.restricted,
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


def _flags(request: Request, plan: WiringPlan, network: podman.NetworkPlan, bundle: Bundle, cfg: Config) -> list[str]:
    profiles = request.profiles or cfg.shield.profiles
    flags = ["--name", request.container, "--annotation", f"{places.ANNOTATION_SIDECAR}={bundle.sidecar}"]
    if plan.shield:
        # podman before 5 splits an annotation's value at commas
        flags += ["--annotation", f"{places.ANNOTATION_PROFILES}={':'.join(profiles)}"]
        flags += ["--annotation", f"{places.ANNOTATION_STATE_DIR}={bundle.root}"]
    flags += ["--network", network.flag, "--env-file", bundle.env]
    # without these two a process can neither change the rules nor set the mark that reaches the forwarder
    return [*flags, "--cap-drop", "NET_ADMIN", "--cap-drop", "NET_RAW"]


def read_plan(cfg: Config, container: str) -> WiringPlan | None:
    """The plan that `meta.json` holds; None when the container was never prepared.

    Raises:
        TerokError: the file is there and makes no sense.
    """
    bundle = cfg.layout.bundle(container)
    meta = files.read_json(bundle.meta)
    if meta is None:
        return None
    try:
        return WiringPlan.from_dict(meta)
    except (ValueError, AttributeError) as error:
        raise TerokError(f"{bundle.meta} is damaged: {error}.", fix=f"terok cleanup {container}") from error


def require_bundle(cfg: Config, container: str) -> Bundle:
    """The bundle of a container that was prepared; raises TerokError (NOT_FOUND) when there is none."""
    bundle = cfg.layout.bundle(container)
    if container not in containers(cfg):
        raise TerokError(
            f"No container {container} was prepared by terok.", fix="terok status lists them", code=Exit.NOT_FOUND
        )
    return bundle
