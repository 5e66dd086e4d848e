"""Per-container wiring for containers that the caller owns: the Python API for orchestrators.

`compose` writes a container's state bundle and returns podman's flags; the container's life stays the caller's;
`cleanup` takes back exactly what `compose` made. Everything is safe to call from several processes at once.
"""

from .cleanup import cleanup
from .compose import compose
from .exec import exec_podman, format_args
from .plan import PerContainerResources, WiringPlan
from .refusals import SANDBOX_MANAGED_FLAGS, reject_managed_flags, reject_managed_volumes
from .resources import (
    CONTAINER_BRIDGES_DIR,
    LOOPBACK_VAULT_PORT,
    allocate_per_container_resources,
    bridges_resource_dir,
    run_state_dir,
)

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
