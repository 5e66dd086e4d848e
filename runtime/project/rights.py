"""Which keys of a project file narrow what the operator allows, and which widen it. Pure.

The file comes with the project's files, so another person may have written it, or the agent in the container.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from ..kit.config import Config
from .file import Project

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

CONFIGURED = {
    "network": "network.mode",
    "profiles": "shield.profiles",
    "vault": "vault.enabled",
    "ssh": "ssh.enabled",
    "gate": "gate.enabled",
    "restricted": "restricted.always",
    "memory": "restricted.memory",
    "pids": "restricted.pids",
    "agents": "agents.default",
}
"""Keys that replace one of the configuration. `terok run` and `terok prepare` take these; `terok start` takes all."""


@dataclass(frozen=True)
class Widening:
    """One thing that a project file asks for beyond what the operator allows: the key, and a sentence."""

    key: str
    sentence: str


def _only(*narrow: object) -> Callable[[object, object], bool]:
    return lambda old, new: new == old or new in narrow


def _network(old: object, new: object) -> bool:
    """The airlock reaches nothing that another mode with a network would not reach."""
    return new in (old, "none") or (new == "airlock" and old != "none")


def _subset(old: object, new: object) -> bool:
    return old is None or (isinstance(old, Collection) and isinstance(new, Collection) and set(new) <= set(old))


def _not_more(old: object, new: object) -> bool:
    return _bytes(new) <= _bytes(old)


def _bytes(value: object) -> float:
    text = str(value).lower()
    try:
        return float(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else float(text)
    except ValueError:
        return float("inf")


NARROWER: dict[str, Callable[[object, object], bool]] = {
    "network": _network,
    "profiles": _subset,
    "vault": _only(False),
    "ssh": _only(False),
    "gate": _only(False),
    "restricted": _only(True),
    "memory": _not_more,
    "pids": _not_more,
    "agents": _subset,
}
"""For each key of CONFIGURED: whether a new value is no wider than the operator's."""

ASKING: dict[str, Callable[[Any], Iterator[str]]] = {
    "image": lambda image: iter([f"run the image {image}, which Podman may fetch"]),
    "containerfile": lambda path: iter([f"build {path} with Podman's own network"]),
    "scope": lambda scope: iter([f"use the credentials, keys and mirror of the scope {scope}"]),
    "allow": lambda targets: (f"reach {target}" for target in targets),
    "publish": lambda ports: (f"publish {port} on this host" for port in ports),
    "mounts": lambda mounts: (f"see a directory of this host: {mount}" for mount in mounts),
    "environment": lambda pairs: (f"set {name}={value!a}" for name, value in pairs),
}
"""Keys that have no narrow value, and what each asks for."""


def widenings(project: Project, cfg: Config, used: Collection[str]) -> list[Widening]:
    """What a project file asks for beyond the configuration.

    Args:
        project: the file.
        cfg: the operator's configuration.
        used: the scopes that the directory may use without the file. The one that is named like the directory is not
            among them by its name: the author of a repository chooses both.
    """
    asked = []
    for name, dotted in CONFIGURED.items():
        new, old = getattr(project, name), _configured(cfg, dotted)
        if new is not None and not NARROWER[name](old, new):
            asked.append(Widening(name, f"change {dotted} from {_shown(old)} to {_shown(new)}"))
    for name, sentences in ASKING.items():
        value = getattr(project, name)
        if value is not None and not (name == "scope" and value in used):
            asked += [Widening(name, sentence) for sentence in sentences(value)]
    return asked


def apply(project: Project, cfg: Config) -> Config:
    """The configuration with the keys of CONFIGURED that the file has; what widens must have been judged before."""
    for name, dotted in CONFIGURED.items():
        new = getattr(project, name)
        if new is not None:
            section, _, field = dotted.partition(".")
            holder = dataclasses.replace(getattr(cfg, section), **{field: new})
            cfg = dataclasses.replace(cfg, **{section: holder})
    return cfg


def _configured(cfg: Config, dotted: str) -> object:
    section, _, field = dotted.partition(".")
    return getattr(getattr(cfg, section), field)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return {True: "true", False: "false", None: "any"}[value] if isinstance(value, bool | None) else str(value)
