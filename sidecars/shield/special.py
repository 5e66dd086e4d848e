"""Whether a target may be allowed, and what is worth noting when it is."""

from __future__ import annotations

from ..kit import addresses
from .targets import RANGE, Target, TargetError

SYNTHETIC = "198.18.0.0/15"
"""Where names have their addresses inside a container of the airlock."""
UNKNOWN = "198.18.0.2"
"""What every name answers there that is not allowed, in the modes that let everything out."""

HOST_NAME, HOST = "host.containers.internal", "198.18.0.3"
"""What Podman calls the host, and its address there; an allowed port of it is one of the host's loopback interface."""

LARGE = {4: 16, 6: 32}
"""A range with a shorter prefix than this is worth a notice."""


def check_allowed(target: Target) -> list[str]:
    """What is worth noting in the audit log when `target` is allowed.

    Raises:
        TargetError: the target lies in a range that is never reachable.
    """
    if target.is_name:
        return []
    never = addresses.never_range(target.value)
    if never:
        raise TargetError(f"{target} cannot be allowed: {never} is never reachable from a container.")
    notes = []
    if addresses.touches_special(target.value):
        notes.append(f"{target} is or holds a private or special range")
    network = target.network
    if target.kind == RANGE and network.prefixlen < LARGE[network.version]:
        notes.append(f"{target} is a large range: {network.num_addresses} addresses")
    return notes
