"""Per-container wiring for containers that the caller owns: the Python API for orchestrators.

`compose` writes a container's state bundle and returns podman's flags; the container's life stays the caller's;
`cleanup` removes exactly what `compose` made. Everything is safe to call from several processes at once.

Names are imported when they are used: `terok prepare` waits for podman while it imports the rest.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .api import cleanup, compose, exec_podman, format_args
    from .plan import PerContainerResources, WiringPlan
    from .refusals import SANDBOX_MANAGED_FLAGS, reject_managed_flags, reject_managed_volumes
    from .resources import (
        CONTAINER_BRIDGES_DIR,
        LOOPBACK_VAULT_PORT,
        allocate_per_container_resources,
        bridges_resource_dir,
        run_state_dir,
    )

_MODULES = {
    "api": ("cleanup", "compose", "exec_podman", "format_args"),
    "plan": ("PerContainerResources", "WiringPlan"),
    "refusals": ("SANDBOX_MANAGED_FLAGS", "reject_managed_flags", "reject_managed_volumes"),
    "resources": (
        "CONTAINER_BRIDGES_DIR",
        "LOOPBACK_VAULT_PORT",
        "allocate_per_container_resources",
        "bridges_resource_dir",
        "run_state_dir",
    ),
}

__all__ = [
    "CONTAINER_BRIDGES_DIR",
    "LOOPBACK_VAULT_PORT",
    "SANDBOX_MANAGED_FLAGS",
    "PerContainerResources",
    "WiringPlan",
    "allocate_per_container_resources",
    "bridges_resource_dir",
    "cleanup",
    "compose",
    "exec_podman",
    "format_args",
    "reject_managed_flags",
    "reject_managed_volumes",
    "run_state_dir",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
