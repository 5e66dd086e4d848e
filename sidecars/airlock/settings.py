"""What the launch writes into the sidecar JSON for the relay."""

from __future__ import annotations

from collections.abc import Sequence

from ...supervisor.ground.layout import AIRLOCK_PORT, handover_socket

IDLE_SECONDS = 300


def settings_for(runtime_dir: str = "", brokered: Sequence[str] = ()) -> dict[str, object]:
    """The relay's own part: its policy is in the bundle.

    Args:
        runtime_dir: the container's; needed with `brokered`.
        brokered: hosts, each as `host:port`, whose connections go to the vault, never out.
    """
    if not brokered:
        return {}
    return {"brokered": list(brokered), "handover": handover_socket(runtime_dir)}


def listeners() -> list[dict[str, object]]:
    """Where the redirect rules lead, IPv4 and IPv6."""
    return [{"kind": "netns", "port": AIRLOCK_PORT}, {"kind": "netns6", "port": AIRLOCK_PORT}]
