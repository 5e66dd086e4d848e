"""Much at once, and hostile: tunnels, floods of addresses, rotation under load, replacing rules under traffic."""

from __future__ import annotations

import base64
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from terok_host.sidecars.shield import live
from terok_host.sidecars.shield.targets import parse
from terok_host.supervisor.ground import kernel, process
from terok_host.supervisor.wall import firewall, resolver
from tests.lab.world import FORWARDER, World, counted
from tests.standins.nameserver import NameServer, addresses, ask, ask_stream, decode, padded

ONE, TWO = "198.51.100.10", "198.51.100.20"


@contextmanager
def repeating(body: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Run `body` over and over in a thread meanwhile; what it raises is collected."""
    stop, raised = threading.Event(), list[BaseException]()

    def loop() -> None:
        while not stop.is_set():
            try:
                body()
            except (OSError, AssertionError) as error:
                raised.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join()


def test_labels_carry_nothing_out(world: World, names: NameServer) -> None:
    """A secret in the labels of a name reaches nobody, unless a wildcard was allowed there."""
    names.know("allowed.test", ONE)
    world.shield("allowed.test")
    secret = base64.b32encode(os.urandom(30)).decode().rstrip("=").lower()
    with counted(world.far, "near0") as packets:
        for domain in ("allowed.test", "attacker.test", "test", "x.allowed.test"):
            assert ask(world, f"{secret}.{domain}").code == 3
        for kind in (1, 2, 5, 6, 12, 15, 16, 28, 33, 64, 65, 99, 255, 257):
            ask(world, f"{secret}.attacker.test", kind)
        assert [each for each in packets() if secret.encode() in each.lower()] == []
    assert not any(secret in each for each in names.asked)


def test_no_detour_leads_to_another_resolver(world: World, names: NameServer) -> None:
    names.know("allowed.test", ONE)
    world.serve("8.8.8.8", 53)
    world.serve("8.8.8.8", 853)
    world.serve("8.8.8.8", 53, socket.SOCK_DGRAM)
    world.shield("allowed.test")
    ask(world, "allowed.test")
    assert not world.reaches("8.8.8.8", 53) and not world.reaches("8.8.8.8", 853)
    assert not world.reaches_udp("8.8.8.8", 53)
    assert not world.reaches_udp(FORWARDER, 53) and not world.reaches(FORWARDER, 53)
    assert not world.reaches_udp("192.0.2.1", 53)


def test_bytes_beside_an_allowed_question_are_bounded(world: World, names: NameServer) -> None:
    names.know("one.test", ONE)
    label = "x" * 61
    longest = f"{'.'.join([label] * 3)}.{'x' * 57}.one.test"
    names.know(longest, ONE)
    world.shield("one.test", "*.one.test")
    with world.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("127.0.0.1", 53))
        client.send(padded("one.test", 312))
        assert decode(client.recv(512)).addresses == (ONE,), "the longest question that may pass"
        client.send(padded(longest, 312))
        assert decode(client.recv(1232)).addresses == (ONE,), "and the longest name"
        with pytest.raises(OSError) as refused:
            client.send(padded("one.test", 313))
            client.recv(512)
        assert not isinstance(refused.value, TimeoutError)
    for piece in (65535, 100):
        query = padded("one.test", 60_000)
        stream = struct.pack(">H", len(query)) + query
        with world.connect("127.0.0.1", 53) as client, pytest.raises(ConnectionError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(stream), piece):
                client.sendall(stream[start : start + piece])
            if not client.recv(2):
                raise ConnectionResetError
    with world.connect("127.0.0.1", 53) as client:
        assert [ask_stream(client, "one.test").addresses for _ in range(8)] == [(ONE,)] * 8
    assert names.longest < 400


def test_ten_thousand_addresses_of_one_name(world: World, names: NameServer) -> None:
    world.shield("many.test")
    every = addresses("100.0.0.0/16", 10_000)
    for start in range(0, len(every), 2000):
        names.know("many.test", *every[start : start + 2000])
        with world.connect("127.0.0.1", 53, timeout=20) as client:
            assert len(ask_stream(client, "many.test").addresses) == 2000
    seen = firewall.observe(world.box.namespaces)["sets"]
    assert len(seen["learned4_web_a"]["elem"]) == len(seen["name4_many.test"]["elem"]) == 10_000
    world.serve(every[0], 443)
    world.serve(every[-1], 443)
    assert world.reaches(every[0], 443) and world.reaches(every[-1], 443)
    with world.connect(every[0], 443):
        began = time.monotonic()
        live.deny(world.bundle, world.running(), [parse("many.test")])
        assert time.monotonic() - began < 5
    assert not world.reaches(every[0], 443) and not world.reaches(every[-1], 443)


def test_a_set_that_is_full_opens_nothing(world: World, names: NameServer) -> None:
    names.know("one.test", ONE)
    world.serve(ONE, 443)
    shield = world.shield("one.test")
    for start in range(0, 65536, 4096):
        some = ", ".join(f"100.{index >> 8}.{index & 255}.7" for index in range(start, start + 4096))
        for name in ("learned4_web_a", "learned4_web_b"):
            firewall.load(world.box.namespaces, f"add element inet terok {name} {{ {some} }}".encode())
    ask(world, "one.test")
    assert not world.reaches(ONE, 443)
    firewall.rotate(world.box.namespaces, shield, 0)
    ask(world, "one.test")
    assert world.reaches(ONE, 443), "a rotation makes room again"


def test_rotation_under_load_refuses_nobody_who_asked(world: World, names: NameServer) -> None:
    """Whoever asks at least once a period keeps the address, through any number of rotations."""
    names.know("one.test", ONE)
    names.know("two.test", TWO)
    world.serve(ONE, 443)
    world.serve(TWO, 443)
    shield = world.shield("one.test", "two.test")
    ask(world, "two.test")

    def use() -> None:
        assert ask(world, "one.test").addresses == (ONE,)
        world.connect(ONE, 443).close()

    with repeating(use) as raised:
        for turn in range(12):
            firewall.rotate(world.box.namespaces, shield, turn)
            time.sleep(0.05)
    assert raised == []
    assert not world.reaches(TWO, 443), "who does not ask for two periods loses the address"


def test_ttl_is_never_longer_than_a_period(world: World, names: NameServer) -> None:
    names.zone.ttl = 86400
    names.know("one.test", ONE)
    world.shield("one.test")
    assert ask(world, "one.test").ttl == firewall.ROTATE_SECONDS
    names.zone.ttl = 30
    assert ask(world, "one.test").ttl == 30


def test_replacing_rules_under_traffic_leaks_nothing(world: World, names: NameServer) -> None:
    """The table is replaced and changed a hundred times while packets to a forbidden place are pushed at it."""
    names.know("one.test", ONE)
    shield = world.shield("one.test")
    client = world.box.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def push() -> None:
        for _ in range(50):
            try:
                client.sendto(b"leak", ("203.0.113.66", 443))
            except OSError:
                pass

    with client, counted(world.far, "near0") as packets, repeating(push):
        for index in range(10):
            firewall.restore(world.box.namespaces, shield)
            live.allow(world.bundle, world.running(), [parse(f"198.51.100.{index + 50}")])
            live.deny(world.bundle, world.running(), [parse(f"198.51.100.{index + 50}")])
        assert [each for each in packets() if b"leak" in each] == []


def test_dnsmasq_that_dies_leaves_everything_closed(world: World, names: NameServer) -> None:
    names.know("one.test", ONE)
    names.know("other.test", TWO)
    shield = world.shield("one.test")
    ask(world, "one.test")
    world.stop_dns()
    assert not world.reaches_udp(FORWARDER, 53)
    assert not world.reaches(TWO, 443)
    world.start_dns(shield)
    assert ask(world, "one.test").addresses == (ONE,)


def test_dnsmasq_is_confined(world: World, names: NameServer) -> None:
    """It parses what strangers say: three capabilities in its namespace, no new privileges, no file but its own."""
    names.know("one.test", ONE)
    shield = world.shield("one.test")
    assert ask(world, "one.test").addresses == (ONE,)
    lines = Path(f"/proc/{world.dns_pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    kept = 1 << kernel.CAP_SETGID | 1 << kernel.CAP_NET_BIND_SERVICE | 1 << kernel.CAP_NET_ADMIN
    for which in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status[which], 16) & ~kept == 0, which
    assert status["NoNewPrivs"].strip() == "1"
    secret = world.path / "secret"
    secret.write_text("secret")

    def may_read(path: str) -> bool:
        pid = process.spawn(["cat", path], namespaces=world.box.namespaces, prepare=resolver.confinement(shield))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    assert may_read(world.bundle.dnsmasq_conf)
    assert not may_read(str(secret))
