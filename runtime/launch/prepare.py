"""Turns a request into a state bundle on disk and podman's flags: asks the host, then writes.

- `prepare` asks the host: hooks, podman's version, the network that results; then
- `prepare_in` writes, for a container whose network is known (the hook calls it for a container that has annotations
  alone): under the lock of all containers, `bundle.write` writes the files; a prepare that fails leaves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...sidecars.shield import special
from ...supervisor.ground import layout as places
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle, check_name, outer_uid
from ..host import podman, publish, seccomp
from ..host.flags import Words, without
from ..host.hooks import require_hooks
from ..kit import files
from ..kit.alive import refuse_if_running
from ..kit.config import Config
from . import bundle as bundle_files
from . import restricted, services
from .plan import WiringPlan
from .request import Request, decide
from .teardown import take_back


@dataclass(frozen=True)
class Prepared:
    """The result: podman's flags, the plan, the environment, and notes for the operator."""

    flags: list[str]
    plan: WiringPlan
    network: podman.NetworkPlan
    bundle: Bundle
    env: dict[str, str]
    notes: list[str]

    def podmans(self, words: Sequence[str]) -> list[str]:
        """The operator's words for Podman, without what terok does itself: in the airlock, publishing ports."""
        return without(words, "publish", "publish-all") if self.network.mode == podman.AIRLOCK else list(words)


def prepare(
    request: Request, cfg: Config, environ: Mapping[str, str], *, asked: podman.VersionAsked | None = None
) -> Prepared:
    """Decide the network that this host gives the container, and write its bundle.

    Args:
        request: what is wanted.
        cfg: the configuration.
        environ: the operator's environment variables.
        asked: a question for podman's version that is under way already.

    Raises:
        SystemExit: the hooks are not installed; its message names `terok setup`.
        TerokError: the name, a profile or the configuration is wrong, or the container is running.
    """
    require_hooks(cfg.layout, environ)
    version = (asked or podman.ask_version(environ)).answer()
    return prepare_in(request, cfg, plan_network(request, cfg, environ, version))


def mode_of(request: Request, cfg: Config) -> str:
    """The network mode that a request asks for, or the configuration. Without the shield there is no airlock."""
    if request.network is None and cfg.network.mode == podman.AIRLOCK and not request.shield:
        return "auto"
    return request.network or cfg.network.mode


def with_ports(request: Request, cfg: Config, words: Words) -> Request:
    """The request with the ports that podman's words publish; raises TerokError when they cannot be."""
    if mode_of(request, cfg) == podman.AIRLOCK:
        return replace(request, published=publish.tcp_ports(words))
    return replace(request, udp_ports=publish.udp_ports(words))


def plan_network(
    request: Request, cfg: Config, environ: Mapping[str, str], version: tuple[int, ...]
) -> podman.NetworkPlan:
    """The network that the container will have; raises TerokError when it can't or must not have it."""
    mode = mode_of(request, cfg)
    if mode == podman.AIRLOCK and not request.shield:
        raise TerokError(
            "The airlock is a part of the shield, which is switched off.",
            fix="remove --no-shield, or use --network auto or none",
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


def prepare_in(request: Request, cfg: Config, network: podman.NetworkPlan) -> Prepared:
    """Write the bundle of a container whose network is known; raises TerokError as `prepare` does."""
    check_name(request.container)
    if request.scope is not None:
        check_name(request.scope)
    plan, notes = decide(request, cfg)
    if request.scope is not None and not request.allow_missing:
        services.require_scope(cfg.layout, request.scope)
    files.make_dir(cfg.layout.containers)
    with files.locked(cfg.layout.containers_lock):
        bundle = cfg.layout.bundle(request.container)
        refuse_if_running(bundle)
        anew = not os.path.exists(bundle.root)
        try:
            written = bundle_files.write(request, cfg, plan, network)
        except BaseException:
            if anew:  # a prepare that is refused leaves nothing
                take_back(request.container, cfg)
            raise
    flags = _podman_flags(plan, written.profiles, network, bundle)
    # the hook mounts over it; `terok uninstall` removes it, and Podman refuses the start
    flags += ["--volume", f"{cfg.layout.presence}:{places.IN_CONTAINER}:ro"]
    if network.flag and not request.own_seccomp:
        flags += _seccomp(bundle)
    if cfg.run.init:
        flags.append("--init")
    if request.restricted:
        flags += restricted.flags(cfg.restricted)
    return Prepared(flags, plan, network, bundle, written.env, [*notes, *written.notes])


def _seccomp(bundle: Bundle) -> list[str]:
    profile = seccomp.find()
    if profile is None:
        return []
    files.write_json(bundle.seccomp, seccomp.narrowed(profile))
    return ["--security-opt", f"seccomp={bundle.seccomp}"]


def _podman_flags(plan: WiringPlan, profiles: Sequence[str], network: podman.NetworkPlan, bundle: Bundle) -> list[str]:
    flags = ["--name", bundle.name, "--annotation", f"{places.ANNOTATION_SIDECAR}={bundle.sidecar}"]
    if plan.shield:
        # podman before 5 splits an annotation's value at commas
        flags += ["--annotation", f"{places.ANNOTATION_PROFILES}={':'.join(profiles)}"]
        flags += ["--annotation", f"{places.ANNOTATION_STATE_DIR}={bundle.root}"]
    # the host's proxy variables may hold a password, and lead nowhere from inside
    flags += ["--network", network.flag, "--env-file", bundle.env, "--http-proxy=false"]
    if network.mode == podman.AIRLOCK:
        # podman writes the host's own address into /etc/hosts otherwise, which leads nowhere from inside
        flags += ["--add-host", f"{special.HOST_NAME}:{special.HOST}"]
    elif network.host is not None:  # `services.mode: tcp`: Podman may map the name to another address
        flags += ["--add-host", f"{special.HOST_NAME}:{network.host}"]
    # with one of these two a process could change the rules, or set the mark that reaches the forwarder
    return [*flags, "--cap-drop", "NET_ADMIN", "--cap-drop", "NET_RAW"]
