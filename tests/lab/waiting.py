"""Waiting for something that no descriptor announces: the one bounded poll of tests, demonstration and measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")

STEP = 0.01
"""Seconds between two looks."""


def until(condition: Callable[[], T | Literal[False] | None], within: float = 5.0, *, why: object = "") -> T:
    """The condition's first true value.

    Args:
        condition: looked at every 10 ms, and once more when the time is over.
        within: seconds.
        why: what the failure says beside the last value; a callable is asked then.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() >= deadline
        if value := condition():
            return value
        if late:
            raise AssertionError(f"not within {within:g} s; last: {value!r} {why() if callable(why) else why}".rstrip())
        time.sleep(STEP)
