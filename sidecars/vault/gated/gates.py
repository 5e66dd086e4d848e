"""gates.json: which repository each scope's gate stands before. `terok gate` and launches write it, the vault reads it.

The vault cannot read the gates' own files: Landlock keeps the mirrors from it. So what it must know is written beside
its routes, and a change counts at once, for containers that run already too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from ....supervisor.ground.errors import TerokError

VERSION = 1


class Gate(NamedTuple):
    """The upstream of a scope's gate.

    Attributes:
        host: in lower case, without port.
        repository: its path on that host, without `.git`.
    """

    host: str
    repository: str


UNKNOWN = Gate("", "")
"""Stands for a gate whose upstream could not be read: every repository may be the one."""


def dump(gates: Mapping[str, Gate]) -> bytes:
    """The file's content, by scope; gates that let the vault write are left out."""
    return json.dumps({"version": VERSION, "gates": gates}, separators=(",", ":")).encode()


def load(path: str) -> dict[str, Gate]:
    """What the file says; nothing when there is none.

    Raises:
        TerokError: it cannot be read or understood.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        if data["version"] == VERSION:
            return {str(scope): Gate(*map(str, gate)) for scope, gate in data["gates"].items()}
        reason = "it is of another version"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error)
    raise TerokError(f"Could not read {path}: {reason}.", fix="terok gate list")
