"""The supervisor's record, `supervisor.json` in the bundle: who runs, in which phase, and what went wrong last.

Written whole to a temporary file and renamed, so a reader always sees one state; anyone may `cat` it.
"""

from __future__ import annotations

import os

from .ground.quick import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
PHASES = ("starting", "ready", "ending", "ended", "failed")


def write(path: str, record: dict[str, Any]) -> None:
    """Replace the record at `path`; the directory must exist. Raises OSError."""
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(dumps({"schema": SCHEMA, **record}) + "\n")
    os.replace(temporary, path)


def read(path: str) -> dict[str, Any] | None:
    """The record, or None when there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            record = loads(file.read())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


def processes(record: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(name, pid, start time) of every process that the record names: supervisor, standby, sidecars, dnsmasq."""
    found = []
    services = record.get("sidecars")
    entries = {
        "supervisor": record,
        "standby": record.get("standby"),
        **(services if isinstance(services, dict) else {}),
    }
    for name, entry in entries.items():
        if isinstance(entry, dict) and isinstance(entry.get("pid"), int) and isinstance(entry.get("start_time"), int):
            found.append((name, entry["pid"], entry["start_time"]))
    return found
