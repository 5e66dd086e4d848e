"""What fails for want of a resource, and is done again until it works.

RLIMIT_NPROC counts the processes of all of a user's containers (getrlimit(2)), so a fork bomb in one of them makes
fork(2) fail with EAGAIN for the supervisors of the others; a full disk makes every write fail. None of that is a
reason to end: the condition is written down once, shown by `terok status`, and tried again.
"""

from __future__ import annotations

from .ground.errors import TerokError
from .ground.log import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIRST, LONGEST = 0.1, 10.0
"""Seconds until the first try again, doubled up to the longest."""


class Troubles:
    """The conditions that hold now, by name; `changed` is called when one comes or goes."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._held: dict[str, str] = {}
        self._changed = changed

    @property
    def lines(self) -> tuple[str, ...]:
        """A sentence for each, for the record."""
        return tuple(f"{name}: {reason}" for name, reason in self._held.items())

    def hold(self, name: str, reason: str) -> None:
        """This is wrong now."""
        if self._held.get(name) != reason:
            self._held[name] = reason
            say(f"{name}: {reason}; it is tried again")
            self._changed()

    def clear(self, name: str) -> None:
        """It is right again."""
        if self._held.pop(name, None) is not None:
            say(f"{name}: works again")
            self._changed()


class Attempt:
    """One thing that must be done, now or as soon as it can be.

    Args:
        name: what the condition is called while it fails.
        action: raises OSError or TerokError when it cannot be done now.
        troubles: where a failure is held.
        later: calls a function after some seconds.
    """

    def __init__(
        self,
        name: str,
        action: Callable[[], None],
        troubles: Troubles,
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._name, self._action, self._troubles, self._later = name, action, troubles, later
        self._failures = 0
        self._waiting = False

    def now(self) -> None:
        """Try; a failure is held and tried again later."""
        try:
            self._action()
        except (OSError, TerokError) as error:
            self._troubles.hold(self._name, reason(error))
            if not self._waiting:
                self._waiting = True
                self._failures += 1
                self._later(min(LONGEST, FIRST * 2 ** min(self._failures, 12)), self._again)
        else:
            self._failures = 0
            self._troubles.clear(self._name)

    def _again(self) -> None:
        self._waiting = False
        if self._failures:
            self.now()


def reason(error: Exception) -> str:
    """An error in words, without what it has to do with."""
    if isinstance(error, TerokError):
        return error.what.rstrip(".")
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
