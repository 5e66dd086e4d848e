"""The life of one service process, as a table; the supervisor carries out what it says.

A service waits for its first connection, runs, may leave when idle, and is started again when it dies, each time
a little later. The supervisor keeps the listening sockets meanwhile, so clients wait and are not refused. A service
that dies again and again has failed: then its clients are told so, and it is tried again from time to time.
"""

from __future__ import annotations

WAITING, RUNNING, BACKOFF, FAILED, STOPPED = "waiting", "running", "backoff", "failed", "stopped"
CONNECTION, LEFT, DIED, BROKE, TIMER, STOP = "connection", "left", "died", "broke", "timer", "stop"
START, WATCH, SCHEDULE, REST, ANSWER = "start", "watch", "schedule", "rest", "answer"
KILL, NOTHING = "kill", "nothing"

TRANSITIONS = {
    (WAITING, CONNECTION): (RUNNING, START),
    (RUNNING, LEFT): (WAITING, WATCH),
    (RUNNING, DIED): (BACKOFF, SCHEDULE),
    (RUNNING, BROKE): (FAILED, REST),
    (BACKOFF, TIMER): (WAITING, WATCH),
    (FAILED, CONNECTION): (FAILED, ANSWER),
    (FAILED, TIMER): (RUNNING, START),
    (WAITING, STOP): (STOPPED, NOTHING),
    (BACKOFF, STOP): (STOPPED, NOTHING),
    (FAILED, STOP): (STOPPED, NOTHING),
    (RUNNING, STOP): (STOPPED, KILL),
    (STOPPED, LEFT): (STOPPED, NOTHING),
    (STOPPED, DIED): (STOPPED, NOTHING),
    (STOPPED, BROKE): (STOPPED, NOTHING),
    (STOPPED, TIMER): (STOPPED, NOTHING),
}
"""(state, event) -> (state, action). A pair that is missing is a defect of the supervisor and raises."""

BACKOFF_FIRST, BACKOFF_MAX = 0.02, 0.5
"""Seconds before a service that died is started again: doubled each time, so no client waits a whole second."""
HEALTHY_SECONDS = 10.0
"""A service that ran this long starts over with the shortest delay."""
REST_FIRST, REST_MAX = 5.0, 300.0
"""Seconds before a failed service is tried again: doubled each time."""
ENDS_MAX, KILLS_MAX = 6, 40
"""Deaths in a row after which a service has failed: by its own doing, or by SIGKILL, which says less about it."""


def step(state: str, event: str) -> tuple[str, str]:
    """The next state and what to do; KeyError for an event that cannot happen in this state."""
    return TRANSITIONS[state, event]


def delay(failures: int) -> float:
    """Seconds to wait after the `failures`-th death in a row (from 1)."""
    return float(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(failures - 1, 10)))


def broken(ends: int, kills: int) -> bool:
    """Whether a service has failed after so many deaths in a row by its own doing and so many kills."""
    return ends >= ENDS_MAX or kills >= KILLS_MAX


def rest(breaks: int) -> float:
    """Seconds until a service is tried again that has failed for the `breaks`-th time in a row (from 1)."""
    return float(min(REST_MAX, REST_FIRST * 2 ** min(breaks - 1, 10)))
