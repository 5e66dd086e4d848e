"""Builds agents' images with `podman build`, once for each text of a recipe."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from ...supervisor.ground import process
from ...supervisor.ground.errors import TerokError
from ..host import podman
from .recipes import Recipe, containerfile, tag


def exists(image: str, environ: Mapping[str, str]) -> bool:
    """Whether Podman's storage has the image."""
    return podman.call(["image", "exists", "--", image], environ).code == 0


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
    with tempfile.TemporaryDirectory(prefix="terok-build-") as context:
        path = os.path.join(context, "Containerfile")
        with open(path, "w", encoding="utf-8") as file:
            file.write(containerfile(recipe, base))
        argv = [podman.find(environ), "build", "--tag", image, "--file", path]
        argv += ["--no-cache", "--pull"] if fresh else []
        pid = process.spawn([*argv, context], env=environ, fds={1: 2, 2: 2}, cwd=context)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise TerokError(
            f"The image for {recipe.agent} could not be built: podman build ended with exit code {code}.",
            fix=f"see podman's messages above; `terok agents image {recipe.agent} --print` shows the Containerfile",
        )
    return image
