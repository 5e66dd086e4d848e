"""The names of a scope's servers, for launches: nothing is read but a directory."""

from __future__ import annotations

import os
import re

from ...supervisor.ground.errors import Exit, TerokError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
"""Names stand in addresses, file names and keys of agents' configuration files."""


def check_name(name: str) -> str:
    """Return a name that a server may have; raises TerokError (USAGE)."""
    if not NAME.fullmatch(name):
        raise TerokError(
            f"{name[:40]!r} is no name for a server: lower-case letters, digits and dashes, at most 32.",
            code=Exit.USAGE,
        )
    return name


def names(directory: str) -> list[str]:
    """The servers of the scope whose directory this is; none when there is no such directory."""
    try:
        files = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(file[:-5] for file in files if file.endswith(".json") and NAME.fullmatch(file[:-5]))
