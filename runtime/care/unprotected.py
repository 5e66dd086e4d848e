"""Which containers run, or would start, without what their annotations ask for: Podman is asked."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from ...supervisor import pod
from ...supervisor.ground import paste
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import ANNOTATION_SIDECAR, ANNOTATIONS
from ..host import podman
from ..kit.alive import container_alive
from ..kit.env import Env

CLOSED_NETWORKS = ("none", "airlock")
"""Networks of a container that reaches nothing without the hook."""


@dataclass(frozen=True)
class Known:
    """A container as Podman describes it.

    bundle: what its state bundle is called: its name, or with annotations alone its short id.
    mounts_presence: it mounts the directory that `terok uninstall` removes, so it does not start without the hooks.
    annotated: it has `terok.*` annotations. `podman container clone` drops them and keeps the mounts.
    """

    name: str
    bundle: str
    running: bool
    pid: int
    network: str
    mounts_presence: bool
    annotated: bool = True


def ours(env: Env, *, running: bool = False) -> list[Known]:
    """Podman's containers with `terok.*` annotations, and clones of such; empty without Podman.

    Args:
        env: whose Podman.
        running: those that run only.
    """
    try:
        listed = podman.call(["ps", "--quiet", "--no-trunc", *([] if running else ["--all"])], env.environ)
        identities = listed.out.decode().split()
        if listed.code != 0 or not identities:
            return []
        described = podman.call(["container", "inspect", "--", *identities], env.environ)
        rows = json.loads(described.out or b"[]")
    except (TerokError, ValueError):
        return []
    return [known for row in rows if isinstance(row, dict) and (known := _known(row, env)) is not None]


def _known(row: dict[str, object], env: Env) -> Known | None:
    config, state, host = (row.get(key) or {} for key in ("Config", "State", "HostConfig"))
    annotations = (config.get("Annotations") if isinstance(config, dict) else None) or {}
    mounts = row.get("Mounts") or []
    sources = [mount.get("Source") for mount in mounts if isinstance(mount, dict)] if isinstance(mounts, list) else []
    annotated = isinstance(annotations, dict) and not set(annotations).isdisjoint(ANNOTATIONS)
    if not annotated and env.layout.presence not in sources:
        return None
    name = str(row.get("Name", "")).lstrip("/")
    return Known(
        name,
        name if ANNOTATION_SIDECAR in annotations or not annotated else str(row.get("Id", ""))[:12],
        bool(state.get("Running")) if isinstance(state, dict) else False,
        int(state.get("Pid") or 0) if isinstance(state, dict) else 0,
        str(host.get("NetworkMode", "")) if isinstance(host, dict) else "",
        env.layout.presence in sources,
        annotated,
    )


def never_supervised(env: Env) -> list[Known]:
    """Running containers that ask for services of terok and never had a supervisor since they were started.

    One whose supervisor was killed is not among them: its firewall is still in force. Nor is one that joined the
    network of another, which the supervisor of that one serves.
    """
    alone = [known for known in ours(env, running=True) if not container_alive(env.layout.bundle(known.bundle))]
    served = pod.served(env.layout.containers) if alone else {}
    return [known for known in alone if pod.network_of(known.pid) not in served]


def fix(known: Known, env: Env) -> str:
    """The command that gives such a container its protection."""
    if not known.annotated:
        return f"podman rm --force {paste.quoted(known.name)}, and start a new one with terok run"
    if os.path.exists(env.layout.bundle(known.bundle).sidecar):
        return paste.command("terok", "heal", known.name)
    return f"terok setup, then podman restart {paste.quoted(known.name)}"


def left_open(env: Env) -> list[Known]:
    """Containers that would start, or go on, without protection when the hooks are gone."""
    return [
        known for known in ours(env) if known.running or not (known.mounts_presence or known.network in CLOSED_NETWORKS)
    ]
