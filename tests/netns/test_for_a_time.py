"""Allowances for a time end by themselves, with the next start, or with the next verb, whoever has died by then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.sidecars.shield import bundle as files
from terok_host.sidecars.shield import live, static
from terok_host.sidecars.shield.dnsmasq import Features
from terok_host.sidecars.shield.targets import parse
from terok_host.supervisor.wall import firewall
from tests.lab.waiting import until
from tests.lab.world import World
from tests.standins.nameserver import NameServer, ask

ONE, TWO, THREE = "198.51.100.10", "198.51.100.20", "198.51.100.30"
PAST, LATER = 1.0, time.time() + 3600


@pytest.fixture
def served(world: World, names: NameServer) -> Iterator[NameServer]:
    """Three names with a web server each."""
    for name, address in (("one.test", ONE), ("two.test", TWO), ("three.test", THREE)):
        names.know(name, address)
        world.serve(address, 443)
    yield names


def recorded(world: World) -> str:
    """What later starts are to allow."""
    return Path(world.bundle.live_allowed).read_text()


def reaches(world: World, name: str, address: str) -> bool:
    return ask(world, name).code == 0 and world.reaches(address, 443)


@pytest.mark.parametrize("target", ["two.test", TWO])
def test_it_opens_now_and_is_not_recorded(world: World, served: NameServer, target: str) -> None:
    world.shield("one.test")
    live.allow(world.bundle, world.running(), [parse(target)], until=LATER)
    assert ask(world, "two.test").code == (0 if target == "two.test" else 3)
    assert world.reaches(TWO, 443)
    assert recorded(world) == ""
    firewall.verify(world.box.namespaces, world._shield)
    assert files.read_state(world.bundle).passing == ((parse(target), LATER),)


@pytest.mark.parametrize("target", ["two.test", "two.test:443", TWO])
def test_a_start_begins_without_it(world: World, served: NameServer, target: str) -> None:
    shield = world.shield("one.test")
    live.allow(world.bundle, world.running(), [parse("three.test")])
    live.allow(world.bundle, world.running(), [parse(target)], until=LATER)
    world.stop_dns()
    firewall.apply(world.box.namespaces, shield)
    world.start_dns(shield)
    assert ask(world, "two.test").code == 3
    assert not world.reaches(TWO, 443)
    assert reaches(world, "three.test", THREE), "what was allowed for good"
    assert files.read_state(world.bundle).passing == ()
    live.deny(world.bundle, world.running(), [parse("one.test")])
    assert not world.reaches(TWO, 443)
    firewall.verify(world.box.namespaces, shield)


def test_when_its_time_is_over_it_is_taken_back(world: World, served: NameServer) -> None:
    world.shield("one.test")
    live.allow(world.bundle, world.running(), [parse("three.test")], until=LATER)
    live.allow(world.bundle, world.running(), [parse("two.test")], until=time.time() + 0.2)
    assert reaches(world, "two.test", TWO)
    until(lambda: live.lapse(world.bundle, world.running()) == [parse("two.test")])
    assert ask(world, "two.test").code == 3
    assert not world.reaches(TWO, 443)
    assert reaches(world, "three.test", THREE), "whose time is not over"
    assert live.lapse(world.bundle, world.running()) == []


def test_the_next_verb_takes_it_back_too(world: World, served: NameServer) -> None:
    """As when the process that should do it was killed."""
    world.shield("one.test")
    live.allow(world.bundle, world.running(), [parse("two.test")], until=PAST)
    assert reaches(world, "two.test", TWO)
    live.deny(world.bundle, world.running(), [parse("three.test")])
    assert ask(world, "two.test").code == 3
    assert not world.reaches(TWO, 443)


def test_for_good_is_stronger_than_for_a_time(world: World, served: NameServer) -> None:
    world.shield("one.test")
    for targets in ([parse("one.test")], [parse("two.test"), parse("three.test")]):
        live.allow(world.bundle, world.running(), targets, until=PAST if targets == [parse("one.test")] else LATER)
    live.allow(world.bundle, world.running(), [parse("two.test")])
    live.allow(world.bundle, world.running(), [parse("two.test")], until=PAST)
    assert recorded(world) == "two.test\n"
    assert live.lapse(world.bundle, world.running()) == []
    assert reaches(world, "one.test", ONE) and reaches(world, "two.test", TWO)


def test_where_names_are_resolved_once(world: World, served: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a capable dnsmasq the addresses of a passing name are in the rules, and not in those of a start."""
    addresses = {"one.test": [ONE], "two.test": [TWO]}
    monkeypatch.setattr(static, "lookup", lambda names: {name: addresses[name] for name in names})
    shield = world.prepare("one.test", features=Features((), False, False))
    firewall.apply(world.box.namespaces, shield)
    live.allow(world.bundle, world.running(), [parse("two.test")], until=LATER)
    assert world.reaches(ONE, 443) and world.reaches(TWO, 443)
    firewall.apply(world.box.namespaces, shield)
    assert world.reaches(ONE, 443) and not world.reaches(TWO, 443)
    assert list(files.read_state(world.bundle).hosts) == ["one.test"]
