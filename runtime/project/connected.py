"""Remembers which scopes a directory may use.

The author of a repository chooses the name of its directory and what its project file says. So neither of the two lets
a directory use a scope that holds something already: the operator does, once.

A directory is known by its path, its inode and the time at which it was made: another one in its place, such as a clone
of another repository, may use nothing.
"""

from __future__ import annotations

import os

from ...supervisor.ground import kernel
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import Layout
from ..kit import files


def scopes(layout: Layout, directory: str) -> list[str]:
    """The scopes that a directory may use, the one that it used last first; it is absolute and without links."""
    record = _read(layout.connection_file(directory))
    if record.get("directory") != directory or record.get("origin") != _origin(directory):
        return []
    return _names(record)


def connect(layout: Layout, directory: str, scope: str) -> None:
    """Let a directory use a scope, now and later; what another directory at this path might use is forgotten."""
    names = scopes(layout, directory)
    if names[:1] == [scope]:
        return
    files.make_dir(layout.trust)
    record = {
        "directory": directory,
        "origin": _origin(directory),
        "scopes": [scope, *(name for name in names if name != scope)],
    }
    files.write_json(layout.connection_file(directory), record)


def forget(layout: Layout, directory: str) -> bool:
    """Let a directory use no scope without being asked again; whether there was one."""
    return files.remove_file(layout.connection_file(directory))


def directories(layout: Layout, scope: str) -> list[str]:
    """The directories that may use a scope."""
    try:
        names = sorted(name for name in os.listdir(layout.trust) if name.endswith(_SUFFIX))
    except FileNotFoundError:
        return []
    records = [_read(os.path.join(layout.trust, name)) for name in names]
    return [str(record.get("directory")) for record in records if scope in _names(record)]


_SUFFIX = ".scopes"


def _read(path: str) -> dict[str, object]:
    record = files.read_json(path)
    return record if isinstance(record, dict) else {}


def _names(record: dict[str, object]) -> list[str]:
    names = record.get("scopes")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _origin(directory: str) -> list[int]:
    try:
        return list(kernel.origin(directory))
    except OSError as error:
        raise TerokError(f"Could not look at {directory}: {error.strerror}.") from error
