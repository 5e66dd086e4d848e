"""Repeats within a few seconds become one line with a count, so that a flood fills neither memory nor disk. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

SECONDS = 10.0
"""How long repeats of an event are only counted after it was written."""
KEYS_MAX = 1024
"""Different events that are counted at once; more go into one common count."""

Key = TypeVar("Key", bound=Hashable)


class Window(Generic[Key]):
    """Decides for each event whether it is written now, and later what was counted meanwhile."""

    def __init__(self) -> None:
        self._open: dict[Key, list[float]] = {}  # key -> [end, repeats]; insertion order is order of ends
        self.overflow = 0

    def add(self, key: Key, now: float) -> bool:
        """True when the event is to be written now; False when it was counted."""
        known = self._open.get(key)
        if known is not None:
            known[1] += 1
            return False
        if len(self._open) >= KEYS_MAX:
            self.overflow += 1
            return False
        self._open[key] = [now + SECONDS, 0]
        return True

    def due(self, now: float) -> list[tuple[Key, int]]:
        """(event, repeats) whose time is over and that were repeated; their time starts again with the next one."""
        over = [key for key, (end, _) in self._open.items() if end <= now]
        return [(key, int(repeats)) for key in over if (repeats := self._open.pop(key)[1])]

    def take_overflow(self) -> int:
        """How many events found no place since the last call."""
        count, self.overflow = self.overflow, 0
        return count

    def next_end(self) -> float | None:
        """When the next event's time is over; None when nothing is counted."""
        return next(iter(self._open.values()))[0] if self._open else None
