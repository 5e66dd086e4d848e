"""Both ways to nftables, the library and the program, do the same; what is there already is replaced as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.supervisor.ground import kernel, within
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.wall import firewall, nft
from tests.lab.world import World

ADDRESS = "203.0.113.1"


@pytest.fixture(params=["library", "program"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each test runs with the library, and as on a host that has the program alone."""
    if request.param == "program":
        monkeypatch.setattr(kernel.Nftables, "_NAME", "libnftables-that-is-missing.so.1")
    else:
        monkeypatch.setattr(nft, "_program", None)
    yield request.param


@pytest.mark.usefixtures("way")
def test_a_ruleset_is_put_in_force_and_read_back(world: World) -> None:
    shield = world.prepare(ADDRESS, forwarder=None)
    firewall.apply(world.box.namespaces, shield)
    firewall.verify(world.box.namespaces, shield)
    assert "output" in firewall.observe(world.box.namespaces)["chains"]


@pytest.mark.usefixtures("way")
def test_a_start_replaces_what_the_network_holds_already(world: World) -> None:
    """As in a pod, whose network outlives its containers."""
    firewall.load(world.box.namespaces, b"table inet terok { set foreign { type ipv4_addr; }; }")
    shield = world.prepare(ADDRESS, forwarder=None)
    firewall.apply(world.box.namespaces, shield)
    assert "foreign" not in firewall.observe(world.box.namespaces)["sets"]


@pytest.mark.usefixtures("way")
def test_a_wrong_ruleset_changes_nothing_and_the_complaint_is_handed_on(world: World) -> None:
    shield = world.shield(ADDRESS, forwarder=None)
    before = firewall.observe(world.box.namespaces)
    good = Path(shield.ruleset).read_text()
    Path(shield.ruleset).write_text(good.replace("chain forward {", "chain forward {\n    mistake here;"))
    with pytest.raises(TerokError, match="could not be put in force: nft says .*No symbol type information"):
        firewall.apply(world.box.namespaces, shield)
    assert firewall.observe(world.box.namespaces) == before


@pytest.mark.usefixtures("way")
def test_without_a_table_there_is_nothing_to_read_back(world: World) -> None:
    shield = world.prepare(ADDRESS, forwarder=None)
    with pytest.raises(TerokError, match="cannot be read back: nft says .*No such file"):
        firewall.verify(world.box.namespaces, shield)


def test_where_neither_is_there_it_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.Nftables, "_NAME", "libnftables-that-is-missing.so.1")
    monkeypatch.setattr("terok_host.supervisor.ground.process.PATH", "/nonexistent")
    shield = world.prepare(ADDRESS, forwarder=None)
    with pytest.raises(TerokError, match="nft is not installed. Fix: install the package"):
        firewall.apply(world.box.namespaces, shield)


def test_a_large_table_comes_back_whole(world: World) -> None:
    """Larger than a packet between processes may be."""
    shield = world.shield(ADDRESS, forwarder=None)
    sets = firewall.observe(world.box.namespaces)["sets"]
    name = next(each for each in sets if each.startswith("live4"))
    some = ", ".join(f"203.0.{113 + index // 250}.{index % 250 + 1}" for index in range(5000))
    firewall.load(world.box.namespaces, f"add element inet terok {name} {{ {some} }}".encode())
    assert len(within.call_in(world.box.namespaces, lambda: (firewall._list(), []), timeout=10)[0]) > 64 << 10
    assert len(firewall.observe(world.box.namespaces)["sets"][name]["elem"]) == 5000
    firewall.verify(world.box.namespaces, shield)
