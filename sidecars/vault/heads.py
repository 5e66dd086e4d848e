"""Heads seen before: clients that keep their connection send most of their heads again, byte for byte.

Rules of this file:
- only what is a function of the head's bytes, or of them and one generation of the keeper, is kept;
- nothing refused is kept: a refusal is decided anew every time;
- limits, rates, the login's age and the books are asked for every request, seen before or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kit import limits
from ..kit.codec import Request, parse_request
from .headers import request_lines

if TYPE_CHECKING:
    from .decide import Plan
    from .headers import Added
    from .keeper import Loaded


class Admitted:
    """What was decided about a head in one generation of the keeper; never changed afterwards.

    Attributes:
        request: the head, taken apart.
        plan, loaded: where it goes, and with which credential.
        about: what every audit line of such a request says, kept here by the books; empty: not made yet.
    """

    __slots__ = ("request", "plan", "loaded", "about", "_added", "_lines")

    def __init__(self, request: Request, plan: Plan, loaded: Loaded) -> None:
        self.request, self.plan, self.loaded = request, plan, loaded
        self.about = ""
        self._added: Added | None = None
        self._lines = b""

    def __repr__(self) -> str:
        return f"<Admitted {self.request!r} to {self.plan.route!r}>"

    def lines(self, added: Added) -> bytes:
        """The header lines that go upstream (`headers.request_lines`), with what the vault adds to them."""
        if added is not self._added:
            self._added, self._lines = added, request_lines(self.request, added)
        return self._lines


class Seen:
    """One head.

    Attributes:
        request: taken apart; never changed.
    """

    __slots__ = ("request", "_generation", "_admitted")

    def __init__(self, request: Request) -> None:
        self.request = request
        self._generation = -1
        self._admitted: Admitted | None = None

    def __repr__(self) -> str:
        return f"<Seen {self.request!r} generation={self._generation}>"

    def admitted(self, generation: int) -> Admitted | None:
        """What was decided in this generation of the keeper; None when it must be decided."""
        return self._admitted if generation == self._generation else None

    def admit(self, generation: int, plan: Plan, loaded: Loaded) -> Admitted:
        """Keep what was decided in a generation of the keeper."""
        self._generation, self._admitted = generation, Admitted(self.request, plan, loaded)
        return self._admitted


class Heads:
    """The heads seen last. One container's: another container has another process."""

    def __init__(self) -> None:
        self._seen: dict[bytes, Seen] = {}

    def find(self, head: bytes) -> Seen:
        """What is known of a head, its empty line included; raises Refused as `parse_request` does."""
        seen = self._seen.get(head)
        if seen is None:
            seen = Seen(parse_request(head))
            if len(head) <= limits.HEAD_KEPT_MAX:
                if len(self._seen) >= limits.HEADS_KEPT:
                    self._seen.clear()
                self._seen[head] = seen
        return seen

    def forget(self) -> None:
        """Keep nothing: tokens, routes or credentials have changed."""
        self._seen.clear()
