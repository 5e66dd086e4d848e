"""How far an exchange is, as a table. Pure: `exchange.py` carries out what follows from it."""

from __future__ import annotations

WAITING = "waiting"
"""For a connection, or for a login that is being refreshed."""
SENT = "sent"
"""The request is on its way; nothing of the answer has gone to the client, so an error still can."""
PASSING = "passing"
"""The answer's head has gone to the client: from here an error can only cut the connection."""
TUNNEL = "tunnel"
"""The protocol was switched: bytes pass uninterpreted."""
WHOLE = "whole"
"""The answer is complete and all of it waits for the audit line."""
ENDING = "ending"
"""The answer is complete and its last bytes wait for the audit line."""
OVER = "over"

CONNECTED, REPEAT, BEGIN, SWITCH = "connected", "repeat", "begin", "switch"
COMPLETE, AUDITED, FAIL, GONE = "complete", "audited", "fail", "gone"
PHASES = (WAITING, SENT, PASSING, TUNNEL, WHOLE, ENDING, OVER)
EVENTS = (CONNECTED, REPEAT, BEGIN, SWITCH, COMPLETE, AUDITED, FAIL, GONE)

TRANSITIONS = {
    (WAITING, CONNECTED): SENT,
    (WAITING, FAIL): OVER,
    (WAITING, GONE): OVER,
    (SENT, REPEAT): WAITING,
    (SENT, BEGIN): PASSING,
    (SENT, SWITCH): TUNNEL,
    (SENT, COMPLETE): WHOLE,
    (SENT, FAIL): OVER,
    (SENT, GONE): OVER,
    (PASSING, COMPLETE): ENDING,
    (PASSING, FAIL): OVER,
    (PASSING, GONE): OVER,
    (TUNNEL, COMPLETE): ENDING,
    (TUNNEL, FAIL): OVER,
    (TUNNEL, GONE): OVER,
    (WHOLE, AUDITED): OVER,
    (ENDING, AUDITED): OVER,
    (WHOLE, GONE): OVER,
    (ENDING, GONE): OVER,
    # the answer is complete and counted as such: what the client does wrong afterwards changes nothing
    (WHOLE, FAIL): WHOLE,
    (ENDING, FAIL): ENDING,
    # what was under way when the exchange ended still reports
    (OVER, CONNECTED): OVER,
    (OVER, AUDITED): OVER,
    (OVER, FAIL): OVER,
    (OVER, GONE): OVER,
}
"""(phase, event) -> phase. A pair that is missing is a defect of the vault and raises."""

LIVE = frozenset((WAITING, SENT, PASSING, TUNNEL))
"""The answer is not complete, and the exchange has not ended."""
REPLACEABLE = frozenset((WAITING, SENT, WHOLE))
"""Nothing of the answer has gone to the client: an error may go instead."""


def step(phase: str, event: str) -> str:
    """The next phase; KeyError for an event that cannot happen in this one."""
    return TRANSITIONS[phase, event]
