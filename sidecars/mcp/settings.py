"""What the launch writes into the sidecar JSON for the MCP sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IDLE_SECONDS = 300
PASSED_ON = (
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
)
"""Variables of the launch by which Podman finds the operator's containers."""


@dataclass(frozen=True)
class Settings:
    """Read from the sidecar JSON: the scope's directory of servers, podman, and what it needs of the environment."""

    directory: str
    podman: str
    environment: dict[str, str]


def settings_for(directory: str, podman: str, environment: Mapping[str, str]) -> dict[str, object]:
    """The sidecar's own part.

    Args:
        directory: the scope's servers.
        podman: the program's absolute path.
        environment: of this process; what `PASSED_ON` names is kept.
    """
    kept = {name: environment[name] for name in PASSED_ON if environment.get(name)}
    return {"directory": directory, "podman": podman, "environment": kept}


def read_settings(settings: Mapping[str, Any]) -> Settings:
    """The settings that `settings_for` made."""
    environment = {str(name): str(value) for name, value in dict(settings["environment"]).items()}
    return Settings(str(settings["directory"]), str(settings["podman"]), environment)
