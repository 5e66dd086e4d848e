"""Hands over to podman: the last step of a run, and the printed form of its flags."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from typing import NoReturn

from ...supervisor.ground import process
from ..host import podman
from .refusals import reject_managed_flags, reject_managed_volumes


def exec_podman(sandbox_args: Sequence[str], podman_args: Sequence[str]) -> NoReturn:
    """Replace this process by `podman run`; does not return.

    Args:
        sandbox_args: the flags that `compose` returned.
        podman_args: what the user typed after `--`: podman's flags, the image, its command.

    Raises:
        TerokError: the user's words collide with a managed flag or mount, or podman is missing.
    """
    reject_managed_flags(podman_args)
    reject_managed_volumes(podman_args)
    process.replace(podman.run_argv(os.environ, sandbox_args, podman_args), os.environ)


def format_args(args: Sequence[str], *, output_json: bool) -> str:
    """The printable form of an argument list: a JSON list, or words that a POSIX shell reads back unchanged."""
    return json.dumps(list(args)) if output_json else shlex.join(args)
