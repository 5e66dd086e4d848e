"""The project file `.terok.yml`: it may narrow what the operator's configuration allows, and never widen it.

It comes with a project's files, so another person may have written it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from ...supervisor.ground.errors import Exit, TerokError
from .config import Config, kinds

FILE = ".terok.yml"

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _only(wanted: object) -> Callable[[object, object], bool]:
    return lambda old, new: new in (wanted, old)


def _subset(old: Any, new: Any) -> bool:
    return old is None or (new is not None and set(new) <= set(old))


def _not_more(old: object, new: object) -> bool:
    return _bytes(new) <= _bytes(old)


def _bytes(value: object) -> float:
    text = str(value).lower()
    try:
        return float(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else float(text)
    except ValueError:
        return float("inf")


NARROWER: dict[str, Callable[[object, object], bool]] = {
    "network.mode": _only("none"),
    "shield.enabled": _only(True),
    "shield.profiles": _subset,
    "vault.enabled": _only(False),
    "ssh.enabled": _only(False),
    "gate.enabled": _only(False),
    "agents.default": _subset,
    "restricted.always": _only(True),
    "restricted.read_only": _only(True),
    "restricted.memory": _not_more,
    "restricted.pids": _not_more,
}
"""What a project file may set, and whether a new value is no wider than the operator's."""


def apply(cfg: Config, directory: str) -> Config:
    """The configuration, narrowed by the project file of `directory` if there is one.

    Raises:
        TerokError: the file is wrong (USAGE), or would widen something (REFUSED).
    """
    path = os.path.join(directory, FILE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return cfg
    except OSError as error:
        raise TerokError(f"The project file {path} could not be read: {error.strerror}.", code=Exit.USAGE) from error
    from .config_file import parse  # YAML, which most launches do not need

    try:
        with open(fd, encoding="utf-8") as file:
            values = parse(file.read((1 << 20) + 1), path, kinds())
    except UnicodeDecodeError as error:
        raise TerokError(f"The project file {path} is not UTF-8.", code=Exit.USAGE) from error
    for name, new in values.items():
        cfg = _set(cfg, name, new, path)
    return cfg


def _set(cfg: Config, name: str, new: object, path: str) -> Config:
    section, _, field = name.partition(".")
    holder = getattr(cfg, section)
    old = getattr(holder, field)
    check = NARROWER.get(name)
    if check is None or not check(old, new):
        allowed = "it may not be set in a project" if check is None else f"it would widen {old!r}"
        raise TerokError(
            f"The project file {path} sets {name} to {new!r}: {allowed}.",
            fix=f"terok config set {name} VALUE, to set it for every project",
            code=Exit.REFUSED,
        )
    changed: Config = dataclasses.replace(cfg, **{section: dataclasses.replace(holder, **{field: new})})
    return changed
