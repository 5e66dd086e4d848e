"""What a project directory is called: its scope, its container, its workspace. Pure but for a look at the disk."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ...supervisor.ground.errors import Exit, TerokError

_LENGTH_MAX = 40


@dataclass(frozen=True)
class Place:
    """Where one agent works in one project.

    Attributes:
        scope: whose credentials, keys and mirrors the container may use.
        container: its name.
        workspace: the host's directory that the container sees, absolute and without links.
        writable: whether the container may change it.
    """

    scope: str
    container: str
    workspace: str
    writable: bool


def describe(
    agent: str, directory: str, home: str, *, scope: str | None, name: str | None, workspace: str | None
) -> Place:
    """Names for an agent in a project.

    Args:
        agent: the agent's name.
        directory: the current directory.
        home: the operator's home directory.
        scope, name: given by the operator; default: from the workspace's own name.
        workspace: `DIR` or `DIR:ro`; default: `directory`.

    Raises:
        TerokError: the workspace is no directory, or so wide that it would show the operator's secrets.
    """
    text, mode = directory, ""
    if workspace is not None:
        text, colon, mode = workspace.rpartition(":")
        if not colon or mode not in ("ro", "rw"):
            text, mode = workspace, ""
    real = os.path.realpath(os.path.join(directory, text))
    if not os.path.isdir(real):
        raise TerokError(f"The workspace {real} is not a directory.", code=Exit.NOT_FOUND)
    if contains(real, os.path.realpath(home)):
        raise TerokError(
            f"The workspace {real} holds your home directory: the container could read your keys and logins.",
            fix="change into the project's directory, or give --workspace DIR",
            code=Exit.REFUSED,
        )
    if ":" in real or "\n" in real:
        raise TerokError(
            f"The workspace {real!r} has a colon or a line break in its name, which podman's --volume cannot take.",
            fix="rename the directory",
            code=Exit.USAGE,
        )
    word = slug(os.path.basename(real))
    chosen = scope or word
    return Place(chosen, name or f"{word}-{agent}", real, mode != "ro")


def slug(text: str) -> str:
    """A name that Podman and terok take, from any directory's name: lower case, dashes for what is not allowed."""
    plain = re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")
    return plain[:_LENGTH_MAX].rstrip("-._") or "project"


def contains(outer: str, inner: str) -> bool:
    """Whether `inner` is `outer` or lies below it; both absolute, without links."""
    return os.path.commonpath([outer, inner]) == outer
