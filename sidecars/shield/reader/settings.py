"""What the launch writes into the sidecar JSON for the audit reader."""

from __future__ import annotations

from typing import Any

GROUP = 1
"""The NFLOG group that the firewall's rules log to."""
IDLE_SECONDS = 30


def settings_for() -> dict[str, Any]:
    """The reader's own part: it needs nothing but its two descriptors and the audit log."""
    return {}


def listeners() -> list[dict[str, Any]]:
    """The two descriptors that it reads, in the order that `main` expects nothing of."""
    return [{"kind": "nflog", "port": GROUP}, {"kind": "dnslog"}]
