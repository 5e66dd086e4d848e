"""How many connections fit into the descriptors that this process may have."""

from __future__ import annotations

import resource

CONNECTIONS_MAX = 4000
"""Open connections; lowered by RLIMIT_NOFILE. More wait in the kernel's queue."""
_DESCRIPTORS_EACH = 2
_DESCRIPTORS_RESERVED = 64


def connections_max() -> int:
    """How many connections fit, after the limit of descriptors was raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX * _DESCRIPTORS_EACH + _DESCRIPTORS_RESERVED
    try:
        top = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, top), hard))
        soft = max(soft, top)
    except (OSError, ValueError):
        pass
    return max(1, min(CONNECTIONS_MAX, (soft - _DESCRIPTORS_RESERVED) // _DESCRIPTORS_EACH))
