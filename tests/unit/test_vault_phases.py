"""The table of an exchange, pair by pair: what may happen when, and what each pair leads to."""

from __future__ import annotations

import itertools

import pytest

from terok_host.sidecars.vault.relay import phases
from terok_host.sidecars.vault.relay.phases import (
    AUDITED,
    BEGIN,
    COMPLETE,
    CONNECTED,
    ENDING,
    EVENTS,
    FAIL,
    GONE,
    LIVE,
    OVER,
    PASSING,
    PHASES,
    REPEAT,
    REPLACEABLE,
    SENT,
    SWITCH,
    TUNNEL,
    WAITING,
    WHOLE,
)

EXPECTED = {
    WAITING: {CONNECTED: SENT, FAIL: OVER, GONE: OVER},
    SENT: {REPEAT: WAITING, BEGIN: PASSING, SWITCH: TUNNEL, COMPLETE: WHOLE, FAIL: OVER, GONE: OVER},
    PASSING: {COMPLETE: ENDING, FAIL: OVER, GONE: OVER},
    TUNNEL: {COMPLETE: ENDING, FAIL: OVER, GONE: OVER},
    WHOLE: {AUDITED: OVER, FAIL: WHOLE, GONE: OVER},
    ENDING: {AUDITED: OVER, FAIL: ENDING, GONE: OVER},
    OVER: {CONNECTED: OVER, AUDITED: OVER, FAIL: OVER, GONE: OVER},
}
"""phase -> event -> phase, written down a second time; every other pair is a defect."""


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(PHASES, EVENTS)))
def test_every_pair(phase: str, event: str) -> None:
    following = EXPECTED[phase].get(event)
    if following is None:
        with pytest.raises(KeyError):
            phases.step(phase, event)
    else:
        assert phases.step(phase, event) == following


def test_the_table_names_nothing_else() -> None:
    assert set(phases.TRANSITIONS) <= set(itertools.product(PHASES, EVENTS))
    assert set(phases.TRANSITIONS.values()) <= set(PHASES)


def test_a_live_exchange_can_always_end_and_no_ended_one_lives_again() -> None:
    for phase in PHASES:
        assert GONE in EXPECTED[phase] and FAIL in EXPECTED[phase]
        if phase in LIVE:
            assert EXPECTED[phase][GONE] == EXPECTED[phase][FAIL] == OVER
        else:
            assert not set(EXPECTED[phase].values()) & LIVE


def test_an_error_goes_out_only_where_nothing_of_the_answer_has() -> None:
    assert {WAITING, SENT, WHOLE} == REPLACEABLE
    # once bytes of an answer are out, no pair leads back to where an error could follow them
    reached = {PASSING, TUNNEL}
    while more := {after for phase in reached for after in EXPECTED[phase].values()} - reached:
        reached |= more
    assert not reached & REPLACEABLE
