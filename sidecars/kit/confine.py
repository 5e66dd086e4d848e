"""Confinement of a sidecar: what a process that parses the container's bytes gives up before the first byte."""

from __future__ import annotations

from collections.abc import Iterable

from ...supervisor.ground import kernel

RESOLVER_FILES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/localtime",
)
"""What getaddrinfo(3) reads: a sidecar that resolves names keeps them readable."""


def confine(
    *,
    read: Iterable[str] = (),
    write: Iterable[str] = (),
    execute: Iterable[str] = (),
    connect_ports: Iterable[int] | None = (),
) -> int:
    """Drop capabilities, forbid privileges and dumps, and confine this process by Landlock; for good.

    Import everything that the service needs first: the standard library is not readable afterwards unless granted.
    Call it before the first thread starts.

    Args:
        read, write, execute: paths (files or whole trees) that stay usable.
        connect_ports: TCP ports that stay reachable; empty: none; None: all.

    Returns:
        The Landlock ABI in force; 0 when the kernel has none.
    """
    kernel.forbid_dumps()
    kernel.drop_capabilities()
    kernel.forbid_new_privileges()
    return kernel.landlock(read=read, write=write, execute=execute, connect_ports=connect_ports)
