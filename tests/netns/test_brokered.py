"""Brokered hosts outside of the airlock: their names answer synthetic addresses, which lead to the relay."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from terok_host.sidecars.airlock.service import original_destination
from terok_host.sidecars.shield import dnsmasq, live, model
from terok_host.sidecars.shield.targets import parse
from terok_host.supervisor.ground import netlink, sockets, within
from terok_host.supervisor.ground.layout import AIRLOCK_PORT
from terok_host.supervisor.schema import Shield
from terok_host.supervisor.wall import firewall, guard
from tests.lab.world import World
from tests.standins.nameserver import AAAA, HTTPS, NameServer, ask

from .tampering import noticed_and_undone

HOST, BELOW, OTHER = "api.test", "git.below.test", "one.test"
REAL, REAL6, ELSEWHERE = "198.51.100.10", "2001:db8:1::10", "198.51.100.20"
ADDRESS, ADDRESS_BELOW = "198.18.1.0", "198.18.1.1"
PROFILE = (OTHER, HOST, f"{HOST}:22", "*.below.test")


@pytest.fixture
def vault(world: World) -> Iterator[socket.socket]:
    """The port where the relay listens, which here is the end of the way."""
    with world.box.make(lambda: socket.socket(fileno=sockets.listen_tcp("127.0.0.1", AIRLOCK_PORT))) as listener:
        listener.settimeout(3)
        yield listener


@pytest.fixture
def shield(world: World, names: NameServer) -> Shield:
    """A policy with two brokered hosts, one of them named by the profile and the other below a wildcard of it."""
    for name, address in ((HOST, REAL), (BELOW, REAL), (OTHER, ELSEWHERE), (f"x.{HOST}", ELSEWHERE)):
        names.know(name, address, REAL6)
    names.know("other.below.test", ELSEWHERE)
    for address in (REAL, REAL6, ELSEWHERE):
        world.serve(address, 443)
    return world.shield(*PROFILE, brokered=[HOST, BELOW])


def arrives(world: World, vault: socket.socket, address: str, port: int) -> bool:
    """Whether a connection from the box comes to the relay's port, with its destination known."""
    try:
        client = world.connect(address, port)
    except OSError:
        return False
    with client:
        served, _ = vault.accept()
        with served:
            return original_destination(served) == (address, port)


def refused(world: World, address: str, port: int) -> bool:
    """Whether a connection does not even come about."""
    try:
        world.connect(address, port).close()
    except OSError:
        return True
    return False


def test_names_and_only_these(world: World, names: NameServer, shield: Shield) -> None:
    assert ask(world, HOST).addresses == (ADDRESS,) and ask(world, BELOW).addresses == (ADDRESS_BELOW,)
    for kind in (AAAA, HTTPS):
        for name in (HOST, BELOW):
            answer = ask(world, name, kind)
            assert (answer.code, answer.addresses) == (0, ()), "NODATA: NXDOMAIN would make musl give the name up"
    assert HOST not in names.asked and BELOW not in names.asked
    assert ask(world, f"x.{HOST}").code == 3 and ask(world, "other.below.test").addresses == (ELSEWHERE,)
    assert ask(world, OTHER).addresses == (ELSEWHERE,) and ask(world, OTHER, AAAA).addresses == (REAL6,)


def test_addresses_and_only_these(world: World, shield: Shield, vault: socket.socket) -> None:
    for port in (443, 22, 8443, 1, 65535):
        assert arrives(world, vault, ADDRESS, port), port
    assert arrives(world, vault, ADDRESS_BELOW, 443)
    for address in ("198.18.1.2", "198.18.0.2", "198.19.255.254"):
        assert refused(world, address, 443), address
    assert not world.reaches_udp(ADDRESS, 443)
    assert not world.reaches(REAL, 443), "the profile names the host, but its own address was never learned"
    ask(world, OTHER, AAAA)
    assert world.reaches(REAL6, 443), "an address that another allowed name taught stays that name's"


def test_without_a_name_of_the_profile(world: World, names: NameServer, vault: socket.socket) -> None:
    names.know(HOST, REAL)
    world.shield(OTHER, brokered=[HOST])
    assert ask(world, HOST).addresses == (ADDRESS,) and ask(world, HOST, AAAA).code == 0
    assert arrives(world, vault, ADDRESS, 443) and names.asked == []


def test_the_verbs(world: World, names: NameServer, shield: Shield, vault: socket.socket) -> None:
    running = world.running
    for mode in (model.DOWN, model.LEARN, model.DOWN_ALL, model.BYPASS, model.UP):
        live.set_mode(world.bundle, running(), mode, time.time() + 60 if mode == model.BYPASS else None)
        firewall.verify(world.box.namespaces, shield)
        assert ask(world, HOST).addresses == (ADDRESS,) and ask(world, HOST, AAAA).addresses == (), mode
        assert ask(world, f"x.{HOST}").code == (3 if mode == model.UP else 0), mode
        assert arrives(world, vault, ADDRESS, 443), mode
    live.deny(world.bundle, running(), [parse(HOST)])
    assert ask(world, HOST).code == 3 and ask(world, BELOW).addresses == (ADDRESS_BELOW,)
    live.deny(world.bundle, running(), [parse("*.below.test")])
    assert ask(world, BELOW).code == 3
    live.set_mode(world.bundle, running(), model.DOWN)
    assert ask(world, HOST).code == 3 and ask(world, BELOW).code == 3
    live.reset(world.bundle, running())
    assert ask(world, HOST).addresses == (ADDRESS,) and HOST not in names.asked
    live.set_mode(world.bundle, running(), model.QUARANTINE)
    assert ask(world, HOST).code != 0
    assert refused(world, ADDRESS, 443) and refused(world, "127.0.0.1", AIRLOCK_PORT)
    firewall.verify(world.box.namespaces, shield)
    live.set_mode(world.bundle, running(), model.UP)
    assert arrives(world, vault, ADDRESS, 443)


def test_without_a_dnsmasq_that_teaches(world: World, names: NameServer, vault: socket.socket) -> None:
    features = dnsmasq.Features()
    world.shield(OTHER, brokered=[HOST], features=features, forwarder=None)
    with open(world.bundle.hosts, encoding="utf-8") as file:
        assert f"{ADDRESS} {HOST}\n" in file.read()
    assert arrives(world, vault, ADDRESS, 443)
    live.deny(world.bundle, world.running(), [parse(HOST)])
    with open(world.bundle.hosts, encoding="utf-8") as file:
        assert HOST not in file.read()


def test_foreign_changes_are_noticed_and_undone(world: World, shield: Shield) -> None:
    def listen() -> tuple[bytes, list[int]]:
        return b"", [guard.listen(), netlink.listen(routes=False)]

    _, monitors = within.call_in(world.box.namespaces, listen, timeout=5)
    for command in (
        "ip addr del 198.18.0.1/15 dev lo",
        "nft flush chain inet terok relay",
        "nft add rule inet terok relay tcp dport 443 redirect to :9440",
        "nft add element inet terok led4 { 203.0.113.9 }",
        "nft delete table inet terok",
    ):
        noticed_and_undone(world, monitors, shield, command, at_once="element" not in command)
    for fd in monitors:
        os.close(fd)


def test_the_networks_own_routes_stay(world: World, shield: Shield) -> None:
    ask(world, OTHER)
    assert world.reaches(ELSEWHERE, 443)
    assert b"prohibit" not in world.box.run("ip", "route", "show", "table", "all").out
