"""The table of a service's life."""

from __future__ import annotations

import itertools

import pytest

from terok_host.supervisor import services

STATES = (services.WAITING, services.RUNNING, services.BACKOFF, services.STOPPED)
EVENTS = (services.CONNECTION, services.LEFT, services.DIED, services.TIMER, services.STOP)


def test_every_row_leads_to_a_known_state_and_action() -> None:
    actions = {services.START, services.WATCH, services.SCHEDULE, services.KILL, services.NOTHING}
    for (state, event), (after, action) in services.TRANSITIONS.items():
        assert state in STATES and event in EVENTS and after in STATES and action in actions


def test_every_state_can_be_stopped_and_stopped_is_final() -> None:
    for state in STATES[:-1]:
        assert services.step(state, services.STOP)[0] == services.STOPPED
    assert {after for (state, _), (after, _) in services.TRANSITIONS.items() if state == services.STOPPED} == {
        services.STOPPED
    }


def test_a_pair_that_is_not_in_the_table_raises() -> None:
    missing = set(itertools.product(STATES, EVENTS)) - set(services.TRANSITIONS)
    assert missing
    for pair in missing:
        with pytest.raises(KeyError):
            services.step(*pair)


def test_no_client_waits_a_second_for_a_service_that_dies() -> None:
    delays = [services.delay(failures) for failures in range(1, 100)]
    assert delays == sorted(delays) and delays[0] <= 0.05 and max(delays) < 1
