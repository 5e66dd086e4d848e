"""The table of a service's life."""

from __future__ import annotations

import itertools

import pytest

from terok_host.supervisor import services

STATES = (services.WAITING, services.RUNNING, services.BACKOFF, services.FAILED, services.STOPPED)
EVENTS = (services.CONNECTION, services.LEFT, services.DIED, services.BROKE, services.TIMER, services.STOP)


@pytest.mark.parametrize("row", services.TRANSITIONS.items(), ids=lambda row: "-".join(row[0]))
def test_every_row_does_what_its_states_need(row: tuple[tuple[str, str], tuple[str, str]]) -> None:
    """A process exists in RUNNING and nowhere else; its sockets are watched in WAITING; a timer runs in BACKOFF.

    In FAILED they are watched too, but a client is only answered.
    """
    (before, event), (after, action) = row
    process_ended = event in (services.LEFT, services.DIED, services.BROKE)
    assert (action == services.START) == (before != services.RUNNING and after == services.RUNNING)
    assert (action == services.KILL) == (before == services.RUNNING and after != services.RUNNING and not process_ended)
    assert (action == services.WATCH) == (before != services.WAITING and after == services.WAITING)
    assert (action == services.REST) == (before != services.FAILED and after == services.FAILED)
    assert (action == services.ANSWER) == (before == after == services.FAILED)
    assert (action == services.SCHEDULE) == (before != services.BACKOFF and after == services.BACKOFF)
    assert (action == services.NOTHING) == (after == services.STOPPED and action != services.KILL)


def test_every_state_is_reached_and_leads_back_to_running() -> None:
    def reachable(state: str) -> set[str]:
        known = {state}
        while more := {after for (before, _), (after, _) in services.TRANSITIONS.items() if before in known} - known:
            known |= more
        return known

    assert reachable(services.WAITING) == set(STATES)
    for state in set(STATES) - {services.STOPPED}:
        assert services.RUNNING in reachable(state)


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


def test_a_service_that_cannot_start_has_failed_soon_and_is_tried_ever_less_often() -> None:
    assert not services.broken(services.ENDS_MAX - 1, services.KILLS_MAX - 1)
    assert services.broken(services.ENDS_MAX, 0) and services.broken(0, services.KILLS_MAX)
    assert sum(services.delay(failures) for failures in range(1, services.ENDS_MAX)) < 1
    rests = [services.rest(breaks) for breaks in range(1, 100)]
    assert rests == sorted(rests) and rests[0] >= 5 and rests[-1] == 300
