"""The functions of the Python API for orchestrators; `launch/__init__.py` exports them."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from ...supervisor.ground import process
from ...supervisor.ground.errors import Exit, TerokError
from ..host import podman
from ..host.flags import parse
from ..host.publish import parse_ports, refuse_published
from ..kit.config import Config
from .plan import WiringPlan
from .prepare import prepare
from .refusals import reject_managed_flags, reject_managed_volumes
from .request import Request
from .teardown import tear_down


def compose(
    container: str,
    *,
    cfg: Config,
    shield: bool,
    gate: bool,
    broker: bool,
    scope: str | None,
    profiles: Sequence[str] | None = None,
    publish: Sequence[str] = (),
    allow_missing: bool = False,
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
        publish: values of podman's --publish, which terok carries out in the airlock; in the other network modes give
            them to podman instead.
        allow_missing: prepare although nothing is stored for the scope yet: its services then give errors until
            something is.

    Raises:
        SystemExit: the hooks are not installed; its message names `terok setup`.
        TerokError: the name, a profile, a port or the configuration is wrong, there is no such scope (NOT_FOUND), or
            the container is running.
    """
    if publish and cfg.network.mode != podman.AIRLOCK:
        raise TerokError(
            f"With network.mode {cfg.network.mode}, Podman publishes ports, not terok.",
            fix="give --publish to podman",
            code=Exit.USAGE,
        )
    request = Request(
        container,
        shield=shield,
        gate=gate,
        broker=broker,
        scope=scope,
        profiles=None if profiles is None else tuple(profiles),
        published=parse_ports(publish),
        allow_missing=allow_missing,
    )
    prepared = prepare(request, cfg, os.environ)
    for note in prepared.notes:
        print(note, file=sys.stderr)
    return prepared.flags, prepared.plan


def cleanup(container: str, *, cfg: Config) -> bool:
    """Revoke the container's tokens and delete its state.

    Args:
        container: its name; the container itself is not touched.
        cfg: the configuration.

    Returns:
        True when there was something, False when there was nothing; calling it again is harmless.

    Raises:
        TerokError: the name is bad, or the container is running (REFUSED).
    """
    return tear_down(container, cfg=cfg, force=False)


def exec_podman(sandbox_args: Sequence[str], podman_args: Sequence[str]) -> NoReturn:
    """Replace this process by `podman run`; does not return.

    Args:
        sandbox_args: the flags that `compose` returned.
        podman_args: what the user typed after `--`: podman's flags, the image, its command.

    Raises:
        TerokError: the user's words collide with a managed flag or mount, or ask podman to publish a port of a
            container without a network; or podman is missing.
    """
    reject_managed_flags(podman_args)
    if "none" in [flag.value for flag in parse(sandbox_args).flags if flag.name == "network"]:
        refuse_published(parse(podman_args))
    reject_managed_volumes(podman_args)
    process.replace(podman.run_argv(os.environ, sandbox_args, podman_args), os.environ)


def format_args(args: Sequence[str], *, output_json: bool) -> str:
    """The printable form of an argument list: a JSON list, or words that a POSIX shell reads back unchanged."""
    return json.dumps(list(args)) if output_json else shlex.join(args)
