"""What the launch writes into the sidecar JSON for the published ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

IDLE_SECONDS = 300
EVERYWHERE = ("0.0.0.0", "::")
"""Where a port without a host address listens, as Podman's do."""


@dataclass(frozen=True)
class Published:
    """One published TCP port.

    host: an address of the host; "": every one, IPv4 and IPv6.
    host_port: where the host listens; 0: any free port, chosen at the launch.
    port: where the program in the container listens.
    """

    host: str
    host_port: int
    port: int

    def __str__(self) -> str:
        """As `podman ps` writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host or EVERYWHERE[0]
        return f"{host}:{self.host_port}->{self.port}/tcp"


def listeners(published: Sequence[Published], *, ipv6: bool) -> list[dict[str, object]]:
    """Where the host listens. Without `ipv6` a port without an address is published for IPv4 alone."""
    return [{"kind": "published", "host": host, "port": port} for host, port, _ in _ends(published, ipv6=ipv6)]


def settings_for(published: Sequence[Published], *, ipv6: bool) -> dict[str, object]:
    """The sidecar's own part: the port in the container that each listener leads to."""
    return {"inside": [inside for _, _, inside in _ends(published, ipv6=ipv6)]}


def _ends(published: Sequence[Published], *, ipv6: bool) -> list[tuple[str, int, int]]:
    everywhere = EVERYWHERE if ipv6 else EVERYWHERE[:1]
    return [
        (host, entry.host_port, entry.port)
        for entry in published
        for host in ([entry.host] if entry.host else everywhere)
    ]
