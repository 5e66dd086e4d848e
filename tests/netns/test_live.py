"""The live verbs: what they open and close, at once and for good, and what they leave alone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from terok_host.sidecars.shield import bundle as files
from terok_host.sidecars.shield import live, model
from terok_host.sidecars.shield.targets import parse
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.wall import firewall
from tests.lab.waiting import until
from tests.lab.world import World, counted
from tests.standins.nameserver import NameServer, ask, ask_stream, decode, question

ONE, TWO, THREE = "198.51.100.10", "198.51.100.20", "198.51.100.30"


@pytest.fixture
def served(world: World, names: NameServer) -> Iterator[NameServer]:
    """Three names with a web server each."""
    for name, address in (("one.test", ONE), ("two.test", TWO), ("three.test", THREE)):
        names.know(name, address)
        world.serve(address, 443)
        world.serve(address, 8443)
    yield names


def learn(world: World, *names: str) -> None:
    for name in names:
        assert ask(world, name).code == 0


def carries(client: socket.socket) -> bool:
    """Whether an open connection still carries bytes both ways."""
    client.settimeout(0.5)
    try:
        client.sendall(b"again")
        return client.recv(16) == b"again"
    except OSError:
        return False


def in_step(world: World) -> None:
    """What is in force is what the files say, and a start puts the same policy in force."""
    firewall.verify(world.box.namespaces, world._shield)


def test_allow_a_name(world: World, served: NameServer) -> None:
    world.shield("one.test")
    assert ask(world, "two.test").code == 3
    live.allow(world.bundle, world.running(), [parse("two.test")])
    learn(world, "two.test")
    assert world.reaches(TWO, 443)
    assert not world.reaches(THREE, 443)
    in_step(world)


def test_allow_a_name_with_a_port_of_its_own(world: World, served: NameServer) -> None:
    world.shield("one.test")
    step = live.allow(world.bundle, world.running(), [parse("two.test:8443")])
    assert step.restart, "only a new dnsmasq knows the sets of this port"
    learn(world, "one.test", "two.test")
    assert world.reaches(TWO, 8443) and not world.reaches(TWO, 443)
    assert world.reaches(ONE, 443) and not world.reaches(ONE, 8443)
    in_step(world)


def test_allow_and_deny_an_address(world: World, served: NameServer) -> None:
    world.shield("one.test")
    live.allow(world.bundle, world.running(), [parse(TWO), parse("198.51.100.0/27:8443")])
    assert world.reaches(TWO, 443) and world.reaches(THREE, 8443)
    with world.connect(TWO, 443) as client:
        assert carries(client)
        live.deny(world.bundle, world.running(), [parse(TWO)])
        assert not carries(client)
    assert not world.reaches(TWO, 443) and not world.reaches(TWO, 8443)
    assert world.reaches(THREE, 8443)
    live.allow(world.bundle, world.running(), [parse(TWO)])
    assert world.reaches(TWO, 443)
    in_step(world)


def test_deny_of_a_name_takes_what_it_taught_and_ends_connections(world: World, served: NameServer) -> None:
    world.shield("one.test", "two.test")
    learn(world, "one.test", "two.test")
    with world.connect(ONE, 443) as kept, world.connect(TWO, 443) as ended:
        assert carries(kept) and carries(ended)
        live.deny(world.bundle, world.running(), [parse("two.test")])
        assert not carries(ended)
        assert carries(kept)
    assert ask(world, "two.test").code == 3
    assert not world.reaches(TWO, 443)
    assert world.reaches(ONE, 443)
    in_step(world)


def test_address_that_another_name_taught_too_stays(world: World, served: NameServer) -> None:
    served.know("two.test", ONE, TWO)
    world.shield("one.test", "two.test")
    learn(world, "one.test", "two.test")
    with world.connect(ONE, 443) as client:
        live.deny(world.bundle, world.running(), [parse("two.test")])
        assert carries(client)
    assert world.reaches(ONE, 443) and not world.reaches(TWO, 443)


def test_deny_of_a_name_that_was_allowed_live(world: World, served: NameServer) -> None:
    world.shield("one.test")
    live.allow(world.bundle, world.running(), [parse("two.test")])
    learn(world, "one.test", "two.test")
    with world.connect(TWO, 443) as client:
        live.deny(world.bundle, world.running(), [parse("two.test")])
        assert not carries(client)
    assert not world.reaches(TWO, 443) and world.reaches(ONE, 443)
    in_step(world)


def test_deny_below_a_wildcard_and_of_one_port(world: World, served: NameServer) -> None:
    served.know("a.wild.test", ONE)
    served.know("b.wild.test", TWO)
    world.shield("*.wild.test", "three.test", "three.test:8443")
    learn(world, "a.wild.test", "b.wild.test", "three.test")
    live.deny(world.bundle, world.running(), [parse("b.wild.test")])
    assert ask(world, "b.wild.test").code == 3 and not world.reaches(TWO, 443)
    learn(world, "a.wild.test")
    assert world.reaches(ONE, 443)
    assert world.reaches(THREE, 443) and world.reaches(THREE, 8443)
    live.deny(world.bundle, world.running(), [parse("three.test:8443")])
    learn(world, "three.test")
    assert world.reaches(THREE, 443) and not world.reaches(THREE, 8443)
    in_step(world)


def test_a_connection_to_dnsmasq_does_not_outlive_a_denial(world: World, served: NameServer) -> None:
    """dnsmasq answers a TCP connection from a child that keeps the old policy."""
    world.shield("one.test", "two.test")
    with world.connect("127.0.0.1", 53) as client:
        assert ask_stream(client, "one.test").addresses == (ONE,)
        live.deny(world.bundle, world.running(), [parse("two.test")])
        with pytest.raises(OSError):
            ask_stream(client, "two.test")
    assert not world.reaches(TWO, 443)


def test_lists_outlive_a_restart(world: World, served: NameServer) -> None:
    world.shield("one.test", "two.test")
    live.allow(world.bundle, world.running(), [parse("three.test")])
    live.deny(world.bundle, world.running(), [parse("two.test")])
    world.restart()
    learn(world, "one.test", "three.test")
    assert world.reaches(ONE, 443) and world.reaches(THREE, 443)
    assert ask(world, "two.test").code == 3
    assert [str(each) for each in files.read_list(world.bundle.live_allowed)] == ["three.test"]
    assert [str(each) for each in files.read_list(world.bundle.deny_list)] == ["two.test"]


def test_down_and_up(world: World, served: NameServer) -> None:
    world.serve("10.5.5.5", 443)
    world.serve("169.254.169.254", 80)
    world.shield("one.test")
    learn(world, "one.test")
    live.set_mode(world.bundle, world.running(), model.DOWN)
    learn(world, "two.test")
    assert world.reaches(TWO, 443) and world.reaches(THREE, 8443)
    assert not world.reaches("10.5.5.5", 443) and not world.reaches("169.254.169.254", 80)
    in_step(world)
    with world.connect(TWO, 443) as ended, world.connect(ONE, 443) as kept:
        assert carries(ended) and carries(kept)
        live.set_mode(world.bundle, world.running(), model.UP)
        assert not carries(ended)
        assert carries(kept)
    assert not world.reaches(TWO, 443), "what a name taught while all resolved must not count afterwards"
    assert world.reaches(ONE, 443)
    assert ask(world, "two.test").code == 3
    in_step(world)
    live.set_mode(world.bundle, world.running(), model.DOWN_ALL)
    assert world.reaches("10.5.5.5", 443) and not world.reaches("169.254.169.254", 80)


def test_a_start_ends_down(world: World, served: NameServer) -> None:
    world.shield("one.test")
    live.set_mode(world.bundle, world.running(), model.DOWN)
    world.restart()
    assert ask(world, "two.test").code == 3
    assert not world.reaches(TWO, 443)


def test_bypass_ends_by_itself(world: World, served: NameServer) -> None:
    world.shield("one.test")
    live.set_mode(world.bundle, world.running(), model.BYPASS, time.time() + 2)
    learn(world, "two.test")
    assert world.reaches(TWO, 443)
    with world.connect(TWO, 443) as client:
        until(lambda: not carries(client), 4)
    assert not world.reaches(TWO, 443)
    live.set_mode(world.bundle, world.running(), model.UP)
    assert not world.reaches(TWO, 443)
    in_step(world)


def test_quarantine(world: World, served: NameServer) -> None:
    world.shield("one.test")
    learn(world, "one.test")
    with world.connect(ONE, 443) as client:
        live.set_mode(world.bundle, world.running(), model.QUARANTINE)
        assert not carries(client)
    assert not world.reaches(ONE, 443)
    assert not world.reaches("127.0.0.1", 53)
    in_step(world)
    live.set_mode(world.bundle, world.running(), model.UP)
    learn(world, "one.test")
    assert world.reaches(ONE, 443)


def test_quarantine_outlives_a_restart(world: World, served: NameServer) -> None:
    world.shield("one.test")
    live.set_mode(world.bundle, world.running(), model.QUARANTINE)
    world.restart()
    assert ask(world, "one.test").code == 3
    assert not world.reaches(ONE, 443)


def test_reset(world: World, served: NameServer) -> None:
    world.shield("one.test", "two.test")
    live.allow(world.bundle, world.running(), [parse("three.test:8443"), parse(THREE)])
    live.deny(world.bundle, world.running(), [parse("two.test")])
    learn(world, "three.test")
    with world.connect(THREE, 8443) as client:
        live.reset(world.bundle, world.running())
        assert not carries(client)
    learn(world, "one.test", "two.test")
    assert world.reaches(TWO, 443) and world.reaches(ONE, 443)
    assert not world.reaches(THREE, 443) and not world.reaches(THREE, 8443)
    in_step(world)


def test_down_and_up_under_traffic_leak_nothing(world: World, served: NameServer) -> None:
    """While the firewall goes up and down, a denied address stays out of reach at every instant."""
    world.serve("203.0.113.66", 443)
    world.shield("one.test")
    live.deny(world.bundle, world.running(), [parse("203.0.113.66")])
    stop = threading.Event()

    def push() -> None:
        with world.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            while not stop.is_set():
                for address in ("203.0.113.66", "169.254.169.254"):
                    try:
                        client.sendto(b"leak", (address, 443))
                    except OSError:
                        pass

    pushing = threading.Thread(target=push)
    with counted(world.far, "near0") as packets:
        pushing.start()
        try:
            for _ in range(5):
                live.set_mode(world.bundle, world.running(), model.DOWN)
                live.set_mode(world.bundle, world.running(), model.UP)
                live.set_mode(world.bundle, world.running(), model.QUARANTINE)
                live.set_mode(world.bundle, world.running(), model.UP)
        finally:
            stop.set()
            pushing.join()
        assert [each for each in packets() if b"leak" in each] == []


def test_allow_under_load_loses_no_question(world: World, served: NameServer) -> None:
    """A thousand questions a second, each answered with the address, while the allowlist changes ten times."""
    world.shield("one.test")
    rate, burst = 1000, 10
    stop = threading.Event()
    sent: set[int] = set()
    answered: dict[int, tuple[str, ...]] = {}
    client = world.box.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(("127.0.0.1", 53))
    client.settimeout(1)
    tail = question("one.test")[2:]

    def send() -> None:
        number, next_at = 0, time.monotonic()
        while not stop.is_set() and number < 0xFFFF - burst:
            for _ in range(burst):
                sent.add(number)
                client.send(number.to_bytes(2, "big") + tail)
                number += 1
            next_at += burst / rate
            time.sleep(max(0.0, next_at - time.monotonic()))

    def receive() -> None:
        while not (stop.is_set() and len(answered) == len(sent)):
            try:
                reply = client.recv(512)
            except TimeoutError:
                return
            answered[int.from_bytes(reply[:2], "big")] = decode(reply).addresses

    threads = [threading.Thread(target=each) for each in (send, receive)]
    with client:
        for each in threads:
            each.start()
        began = time.monotonic()
        try:
            for index in range(10):
                live.allow(world.bundle, world.running(), [parse(f"new{index}.test")])
        finally:
            took = time.monotonic() - began
            stop.set()
            for each in threads:
                each.join()
    assert len(sent) > 0.8 * rate * took
    assert sent - answered.keys() == set(), "unanswered"
    assert set(answered.values()) == {(ONE,)}


def test_a_change_of_a_stopped_container_counts_at_its_start(world: World, served: NameServer) -> None:
    shield = world.prepare("one.test")
    live.allow(world.bundle, None, [parse("two.test:8443")])
    live.deny(world.bundle, None, [parse("one.test")])
    firewall.apply(world.box.namespaces, shield)
    world.start_dns(shield)
    learn(world, "two.test")
    assert world.reaches(TWO, 8443)
    assert ask(world, "one.test").code == 3


def test_more_addresses_than_a_transaction_carries_are_refused(world: World) -> None:
    world.shield(ONE, forwarder=None)
    many = [parse(f"10.{index // 250}.{index % 250}.1") for index in range(files.ADDRESSES_MAX)]
    for change in (live.allow, live.deny):
        with pytest.raises(TerokError, match="2001 addresses and ranges are more than one transaction can carry"):
            change(world.bundle, world.running(), many)
    assert files.read_state(world.bundle).lasting() == ()
    live.allow(world.bundle, world.running(), many[:-1])
    assert files.read_state(world.bundle).lasting() == tuple(many[:-1])


def test_unknown_container_is_said(world: World) -> None:
    with pytest.raises(TerokError, match="no container"):
        live.allow(world.bundle, None, [parse("one.test")])
