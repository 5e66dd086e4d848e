"""The fast part of `make chaos`: one kill of each process, and that the criterion can fail at all."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from terok_host.supervisor import record
from tests.chaos import page, scenarios
from tests.chaos.world import ASKS, ROLES, Box, Canary, box, furnish, judge, strike
from tests.lab import scope
from tests.lab.house import House
from tests.lab.waiting import until

pytestmark = pytest.mark.podman


@pytest.fixture(scope="module", name="house")
def _house() -> Iterator[House]:
    made = House.build()
    furnish(made)
    made.podman("run", "--rm", made.image, "true")
    yield made
    made.destroy()


@pytest.fixture(name="canary")
def _canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.close()


def test_each_process_may_be_killed(house: House, canary: Canary) -> None:
    rows = list(scenarios.matrix(house, canary, random.Random(1), signals=("SIGKILL",)))
    assert {row.what for row in rows} == {f"SIGKILL to {role}" for role in ROLES}
    assert canary.answered > len(rows)


def test_a_container_with_an_open_network_is_noticed(house: House, canary: Canary) -> None:
    network = "slirp4netns:allow_host_loopback=true"
    house.podman("run", "--detach", "--name", "open", "--network", network, house.image, "sh", "-c", ASKS)
    try:
        until(lambda: canary.hits, within=20)
        with pytest.raises(AssertionError, match="arrived"):
            judge(Box(house, "open", canary))
    finally:
        house.podman("rm", "--force", "--time", "0", "open")


def test_a_secret_inside_is_noticed(house: House, canary: Canary) -> None:
    with box(house, canary, "leaky") as one:
        house.podman("exec", one.name, "sh", "-c", f"echo {scope.SECRET} >/tmp/secret")
        with pytest.raises(AssertionError, match="credential"):
            judge(one)
        house.podman("exec", one.name, "rm", "/tmp/secret")


def test_a_service_that_stays_away_is_noticed(house: House, canary: Canary) -> None:
    with box(house, canary, "mute") as one:
        for role in ("standby", "supervisor", "ssh"):
            strike(one, role, scenarios.SIGNALS["SIGKILL"])
        assert record.read(house.bundle(one.name).record) is not None
        with pytest.raises(AssertionError, match="not within"):
            one.recovered(2)


def test_the_page_is_what_its_command_makes() -> None:
    assert page.PAGE.read_text() == page.page(json.loads(page.RESULTS.read_text()))
