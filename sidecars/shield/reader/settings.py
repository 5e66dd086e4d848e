"""What the launch writes into the sidecar JSON for the audit reader."""

from __future__ import annotations

GROUP = 1
"""The NFLOG group that the firewall's rules log to."""
IDLE_SECONDS = 30


def settings_for() -> dict[str, object]:
    """The reader's own part: it needs nothing but its two descriptors and the audit log."""
    return {}


def listeners() -> list[dict[str, object]]:
    """The two descriptors that it reads; `main` looks at their kind, not at their order."""
    return [{"kind": "nflog", "port": GROUP}, {"kind": "dnslog"}]
