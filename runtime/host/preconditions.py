"""What must hold before anything is written: Podman runs here, the name is free, the image is a plain one."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ...supervisor.ground import paste, process
from ...supervisor.ground.errors import Exit, TerokError
from . import podman
from .flags import Words, is_on

REMOTE = ("CONTAINER_HOST", "CONTAINER_CONNECTION")
"""Variables that make podman talk to a service, which need not run on this host (podman-remote(1))."""
CHECKPOINT = "io.podman.annotations.checkpoint.runtime.name"
FIXED_IN = (6, 1, 3)
"""Older ones restore such an image's own container and ignore every flag."""
_STORAGE = frozenset({"root", "runroot", "storage-driver", "storage-opt", "imagestore", "transient-store"})
_PULLING = frozenset(
    {"arch", "authfile", "cert-dir", "creds", "decryption-key", "os", "platform", "retry", "retry-delay", "tls-verify"}
    | {"variant"}
)
PULL_SECONDS = 3600.0


def refuse_remote(environ: Mapping[str, str]) -> None:
    """Raise TerokError (REFUSED) when Podman would start the container through a service."""
    for name in REMOTE:
        if environ.get(name):
            raise TerokError(
                f"{name} is set, so Podman would ask a service that need not run this host's hooks.",
                fix=f"unset {name}",
                code=Exit.REFUSED,
            )


class NameAsked:
    """A question whether Podman has a container of a name, under way.

    Args:
        name: the container that is to be made.
        words: podman's words; with `--replace` nothing is asked.
        environ: the operator's environment.
    """

    def __init__(self, name: str, words: Words, environ: Mapping[str, str]) -> None:
        self._name = name
        replaced = any(flag.name == "replace" and is_on(flag.value) for flag in words.flags)
        look = ["container", "exists", "--", name]
        self._job = None if replaced else process.begin([podman.find(environ), *look], timeout=30, env=environ)

    def refuse_existing(self) -> None:
        """Wait for the answer; raises TerokError (REFUSED) when there is one: its wiring would change under it."""
        if self._job is not None and self._job.finish().code == 0:
            raise TerokError(
                f"The container {self._name} exists already.",
                fix=f"podman start {paste.quoted(self._name)}, "
                f"or podman rm {paste.quoted(self._name)} first for a new one",
                code=Exit.REFUSED,
            )


class ImageAsked:
    """A question for an image's annotations that is under way.

    Args:
        words: podman's words, the image among them.
        environ: the operator's environment.
    """

    def __init__(self, words: Words, environ: Mapping[str, str]) -> None:
        self._words, self._environ = words, environ
        self._job = self._ask() if words.rest and not self._is_directory() else None

    def _is_directory(self) -> bool:
        return any(flag.name == "rootfs" and is_on(flag.value) for flag in self._words.flags)

    def _with(self, names: frozenset[str]) -> list[str]:
        return [f"--{flag.name}={flag.value}" for flag in self._words.flags if flag.name in names]

    def _ask(self) -> process.Job:
        own = [podman.find(self._environ), *self._with(_STORAGE)]
        look = [*own, "image", "inspect", "--format", "{{json .Annotations}}", "--", self._words.rest[0]]
        return process.begin(look, timeout=30, env=self._environ)

    def refuse_checkpoint(self, version: tuple[int, ...]) -> None:
        """Wait for the answer. An image that is not here yet is pulled first, since `podman run` would restore it.

        Raises:
            TerokError: the image is a checkpoint, which this podman restores with the image's own configuration.
        """
        if self._job is None:
            return
        answer = self._job.finish()
        if version >= FIXED_IN:
            return
        if answer.code != 0 and not any(flag.name == "pull" and flag.value == "never" for flag in self._words.flags):
            pull = [podman.find(self._environ), *self._with(_STORAGE), "pull", "--quiet", *self._with(_PULLING)]
            process.run([*pull, "--", self._words.rest[0]], timeout=PULL_SECONDS, env=self._environ)
            answer = self._ask().finish()
        try:
            annotations = json.loads(answer.out) if answer.code == 0 else {}
        except ValueError:
            annotations = {CHECKPOINT: ""}
        if isinstance(annotations, dict) and CHECKPOINT in annotations:
            raise TerokError(
                f"{self._words.rest[0][:80]} is a checkpoint of a container: Podman would restore its configuration "
                "and ignore every flag.",
                fix="use an image that was built or pulled as one",
                code=Exit.REFUSED,
            )
