"""What a connection of the relay can be at."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """SHOWING: its first bytes are awaited. ASKING: the operator is to decide. DIALLING: allowed, and being connected.
    HANDING: the vault is to take it. HANDED: it has it. OPEN: bytes go both ways. LINGERING: refused, and told so.
    CLOSED: gone.
    """

    SHOWING = "showing"
    ASKING = "asking"
    DIALLING = "dialling"
    HANDING = "handing"
    HANDED = "handed"
    OPEN = "open"
    LINGERING = "lingering"
    CLOSED = "closed"
