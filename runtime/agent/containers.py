"""What Podman and terok's own files say about the containers that terok prepared; hands the terminal over to one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from ...supervisor.ground import process
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Layout
from ..host import podman
from ..kit import alive, files
from ..kit.env import Env
from .recipes import WORKSPACE


@dataclass(frozen=True)
class Known:
    """One container.

    Attributes:
        name, image: Podman's words.
        state: `running`, `exited`, `created`, ...
        workspace: the project's directory on the host; None without.
        scope: whose credentials it has; None without.
        project_file: the digest of the project file that it was made with; empty without.
        command: what it runs.
        tty: it has a terminal.
        restricted: it was made with `--restricted`.
        once: Podman removes it when it ends.
    """

    name: str
    image: str
    state: str
    workspace: str | None
    scope: str | None
    project_file: str
    command: tuple[str, ...]
    tty: bool
    restricted: bool = False
    once: bool = False

    @property
    def running(self) -> bool:
        """Whether it runs, paused or not."""
        return self.state in ("running", "paused")


def of_workspace(layout: Layout, workspace: str) -> list[str]:
    """The containers that were made for a project's directory, by terok's own files alone: Podman takes 50 ms for one.

    A label would not do: the labels of an image become those of its containers.
    """
    return [name for name in alive.containers(layout) if _meta(layout, name).get("workspace") == workspace]


def look(name: str, env: Env) -> Known | None:
    """A container by its name; None when Podman has none.

    Raises:
        TerokError: Podman's answer was not understood.
    """
    result = podman.call(["container", "inspect", "--", name], env.environ)
    if result.code != 0:
        return None
    try:
        document = json.loads(result.out)[0]
        mounts = {mount["Destination"]: mount["Source"] for mount in document["Mounts"]}
        config = document["Config"]
        meta = _meta(env.layout, name)
        scope = meta.get("scope")
        return Known(
            name=document["Name"],
            image=document["ImageName"],
            state=document["State"]["Status"],
            workspace=str(meta.get("workspace") or "") or mounts.get(WORKSPACE),
            scope=str(scope) if scope else None,
            project_file=str(meta.get("project_file") or ""),
            command=tuple(config.get("Cmd") or ()),
            tty=bool(config.get("Tty")),
            restricted=meta.get("restricted") is True,
            once=bool(document["HostConfig"].get("AutoRemove")),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TerokError(f"podman's description of {name} was not understood: {error}.") from error


def _meta(layout: Layout, name: str) -> dict[str, object]:
    meta = files.read_json(layout.bundle(name).meta)
    return meta if isinstance(meta, dict) else {}


def require(name: str, env: Env) -> Known:
    """`look`, or TerokError (NOT_FOUND)."""
    container = look(name, env)
    if container is None:
        raise TerokError(f"There is no container {name}.", fix="terok ps lists them", code=Exit.NOT_FOUND)
    return container


def become(words: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by podman with `words`: the terminal is the container's from then on."""
    process.replace([podman.find(environ), *words], environ)
