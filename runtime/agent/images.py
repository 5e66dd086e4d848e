"""Builds agents' images with `podman build`, once for each text of a recipe."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from hashlib import sha256

from ...supervisor.ground import paste, process
from ...supervisor.ground.errors import TerokError
from ..host import podman
from .recipes import Recipe, containerfile, tag


def exists(image: str, environ: Mapping[str, str]) -> bool:
    """Whether Podman's storage has the image."""
    return podman.call(["image", "exists", "--", image], environ).code == 0


ARGUMENT = "AGENT_IMAGE"
"""The build argument that gives a project's Containerfile the agent's image."""


def project_tag(scope: str, text: str, agent_image: str) -> str:
    """The name of the image that a project's Containerfile describes; it changes with the text and the agent's image.

    Args:
        scope: the project's, for people.
        text: the Containerfile.
        agent_image: what `FROM ${AGENT_IMAGE}` means.
    """
    used = agent_image if ARGUMENT in text else ""
    digest = sha256(f"{used}\n{text}".encode()).hexdigest()
    return f"localhost/terok-project-{scope.lower()}:{digest[:12]}"


def build(recipe: Recipe, base: str, environ: Mapping[str, str], *, fresh: bool = False) -> str:
    """Build the image of a recipe and return its name; podman's progress goes to stderr.

    The build is Podman's own: it has Podman's default network and none of terok's rules or credentials.

    Args:
        recipe, base: as in `recipes.containerfile`.
        environ: the operator's environment.
        fresh: build every step again, from a base that is looked up again.

    Raises:
        TerokError: the build failed.
    """
    image = tag(recipe, base)
    try:
        build_text(image, containerfile(recipe, base), environ, fresh=fresh)
    except TerokError as error:
        look = paste.command("terok", "agents", "image", recipe.agent, "--print")
        shown = f"see podman's messages above; `{look}` shows the Containerfile"
        raise TerokError(f"The image for {recipe.agent} could not be built. {error.what}", fix=shown) from error
    return image


def build_text(
    image: str, text: str, environ: Mapping[str, str], *, fresh: bool = False, agent_image: str | None = None
) -> None:
    """Build a Containerfile without any context: nothing of the host can be copied into the image.

    Args:
        image: the image's name.
        text: the Containerfile.
        environ: the operator's environment.
        fresh: as in `build`.
        agent_image: what `${AGENT_IMAGE}` is in the Containerfile.

    Raises:
        TerokError: the build failed.
    """
    with tempfile.TemporaryDirectory(prefix="terok-build-") as context:
        path = os.path.join(context, "Containerfile")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        argv = [podman.find(environ), "build", "--tag", image, "--file", path]
        argv += ["--no-cache", "--pull"] if fresh else []
        argv += ["--build-arg", f"{ARGUMENT}={agent_image}"] if agent_image is not None and ARGUMENT in text else []
        pid = process.spawn([*argv, context], env=environ, fds={1: 2, 2: 2}, cwd=context)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise TerokError(f"podman build of {image} ended with exit code {code}.")
