"""Asks Podman about the containers that terok prepared, and hands the terminal over to one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from ...supervisor.ground import process
from ...supervisor.ground.errors import Exit, TerokError
from ..host import podman
from .recipes import WORKSPACE

LABEL_WORKSPACE, LABEL_FILE = "terok.workspace", "terok.project-file"
"""Labels of a container: the project's directory, and the digest of the project file that it was made with."""


@dataclass(frozen=True)
class Known:
    """One container as Podman describes it.

    Attributes:
        name, image: Podman's words.
        state: `running`, `exited`, `created`, ...
        workspace: the project's directory on the host; None without.
        project_file: the digest of the project file that it was made with; empty without.
        command: what it runs.
        tty: it has a terminal.
    """

    name: str
    image: str
    state: str
    workspace: str | None
    project_file: str
    command: tuple[str, ...]
    tty: bool

    @property
    def running(self) -> bool:
        """Whether it runs, paused or not."""
        return self.state in ("running", "paused")


def look(name: str, environ: Mapping[str, str]) -> Known | None:
    """A container by its name; None when Podman has none.

    Raises:
        TerokError: Podman's answer was not understood.
    """
    result = podman.call(["container", "inspect", "--", name], environ)
    if result.code != 0:
        return None
    try:
        document = json.loads(result.out)[0]
        mounts = {mount["Destination"]: mount["Source"] for mount in document["Mounts"]}
        config = document["Config"]
        labels = config.get("Labels") or {}
        return Known(
            name=document["Name"],
            image=document["ImageName"],
            state=document["State"]["Status"],
            workspace=labels.get(LABEL_WORKSPACE) or mounts.get(WORKSPACE),
            project_file=labels.get(LABEL_FILE, ""),
            command=tuple(config.get("Cmd") or ()),
            tty=bool(config.get("Tty")),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TerokError(f"podman's description of {name} was not understood: {error}.") from error


def require(name: str, environ: Mapping[str, str]) -> Known:
    """`look`, or TerokError (NOT_FOUND)."""
    container = look(name, environ)
    if container is None:
        raise TerokError(f"There is no container {name}.", fix="terok ps lists them", code=Exit.NOT_FOUND)
    return container


def become(words: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by podman with `words`: the terminal is the container's from then on."""
    process.replace([podman.find(environ), *words], environ)
