"""What this kernel's Landlock gives the services, for setup, doctor and status."""

from __future__ import annotations

from ..kit.check import OK, WARN, Check

PORTS_ABI = 4
"""Linux 6.7: from here on Landlock restricts TCP connections too (landlock(7))."""


def check(abi: int) -> Check:
    """The services confine themselves by Landlock before they read the first byte.

    Args:
        abi: the kernel's ABI version; 0: it has none.
    """
    if abi == 0:
        detail = "not in this kernel: a service that a container takes over can read every file that you can"
        return Check(
            "kernel", "Landlock", WARN, detail, "start a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock"
        )
    if abi < PORTS_ABI:
        detail = f"ABI {abi}: a service that a container takes over reads no file, but can connect to any TCP port"
        return Check("kernel", "Landlock", WARN, detail, "start Linux 6.7 or newer")
    return Check("kernel", "Landlock", OK, f"ABI {abi}")
