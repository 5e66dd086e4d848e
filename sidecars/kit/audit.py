"""The container's audit log, as sidecars use it."""

from __future__ import annotations

import sys

from ...supervisor.ground.audit import Audit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .reactor import Reactor

__all__ = ["Audit", "Lenient"]
COMPLAIN_SECONDS = 10.0


class Lenient:
    """A log whose lines may be lost: a full disk must not cut the container off.

    Args:
        audit: where lines go.
        reactor: the loop.
        who: named on stderr when a line is lost, at most every `COMPLAIN_SECONDS`.
    """

    def __init__(self, audit: Audit, reactor: Reactor, who: str) -> None:
        self._audit, self._reactor, self._who = audit, reactor, who
        self._complained = 0.0

    def write(self, event: str, **fields: object) -> None:
        """Append one line, as `Audit.write` does, or say that it was lost."""
        try:
            self._audit.write(event, **fields)
        except OSError as error:
            if self._reactor.now - self._complained > COMPLAIN_SECONDS:
                self._complained = self._reactor.now
                print(f"{self._who}: the audit log could not be written: {error.strerror}", file=sys.stderr)
