"""The result of looking at one thing of the host; setup, doctor and the host's rooms make them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, WARN, FAIL = "ok", "WARN", "FAIL"


@dataclass(frozen=True)
class Check:
    """The result of one check.

    subsystem: the block of the report that it belongs to.
    what: what was looked at.
    state: `OK`, `WARN` (something works less well) or `FAIL` (containers can't start).
    detail: what was found.
    fix: the command that helps; empty when there is nothing to fix.
    """

    subsystem: str
    what: str
    state: str
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """As plain data for JSON."""
        return asdict(self)
