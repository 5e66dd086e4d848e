"""The life of one service process, as a table; the supervisor carries out what it says.

A service waits for its first connection, runs, may leave when idle, and is started again when it dies, each time
a little later. The supervisor keeps the listening sockets meanwhile, so clients wait and are not refused.
"""

from __future__ import annotations

WAITING, RUNNING, BACKOFF, STOPPED = "waiting", "running", "backoff", "stopped"
CONNECTION, LEFT, DIED, TIMER, STOP = "connection", "left", "died", "timer", "stop"
START, WATCH, SCHEDULE, KILL, NOTHING = "start", "watch", "schedule", "kill", "nothing"

TRANSITIONS = {
    (WAITING, CONNECTION): (RUNNING, START),
    (RUNNING, LEFT): (WAITING, WATCH),
    (RUNNING, DIED): (BACKOFF, SCHEDULE),
    (BACKOFF, TIMER): (WAITING, WATCH),
    (WAITING, STOP): (STOPPED, NOTHING),
    (BACKOFF, STOP): (STOPPED, NOTHING),
    (RUNNING, STOP): (STOPPED, KILL),
    (STOPPED, LEFT): (STOPPED, NOTHING),
    (STOPPED, DIED): (STOPPED, NOTHING),
    (STOPPED, TIMER): (STOPPED, NOTHING),
}
"""(state, event) -> (state, action). A pair that is missing is a defect of the supervisor and raises."""

BACKOFF_FIRST, BACKOFF_MAX = 0.02, 0.5
"""Seconds before a service that died is started again: doubled each time, so no client waits a whole second."""
HEALTHY_SECONDS = 10.0
"""A service that ran this long starts over with the shortest delay."""


def step(state: str, event: str) -> tuple[str, str]:
    """The next state and what to do; KeyError for an event that cannot happen in this state."""
    return TRANSITIONS[state, event]


def delay(failures: int) -> float:
    """Seconds to wait after the `failures`-th death in a row (from 1)."""
    return float(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(failures - 1, 10)))
