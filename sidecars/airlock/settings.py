"""What the launch writes into the sidecar JSON for the relay."""

from __future__ import annotations

from ...supervisor.ground.layout import AIRLOCK_PORT

IDLE_SECONDS = 300


def settings_for() -> dict[str, object]:
    """The relay's own part: it reads its policy from the bundle."""
    return {}


def listeners() -> list[dict[str, object]]:
    """Where the redirect rules lead, IPv4 and IPv6."""
    return [{"kind": "netns", "port": AIRLOCK_PORT}, {"kind": "netns6", "port": AIRLOCK_PORT}]
