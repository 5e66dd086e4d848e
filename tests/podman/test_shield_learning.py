"""The shield goes on learning addresses from DNS, whatever the container asks for and however much at once."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from terok_host.runtime.care.status import container_status
from terok_host.sidecars.shield import dnsmasq, live
from terok_host.supervisor import record
from terok_host.supervisor.ground import process, within
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.wall import firewall, resolver
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.nameserver import NameServer, addresses, ask_stream, decode, question

SERVER = "198.51.100.54"
LARGE = 200
"""Addresses of one answer: no datagram holds them, so it is asked for over TCP."""
SMALL = 50_000
"""Names with one address."""
HEALED_WITHIN = 45.0
"""Seconds; most of them when dnsmasq ended so often that the supervisor lets it rest."""
ROUNDS = 6
"""How often dnsmasq may end instead of getting stuck, which is tried for."""


def small(number: int) -> tuple[str, str]:
    """A name and its address."""
    return f"n{number}.small.test", f"101.{number // 40_000}.{number // 200 % 200}.{number % 200 + 1}"


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server beside that of the lab: one large answer, and many names with an address of their own."""
    with NameServer(None, SERVER) as server:
        server.know("large.test", *addresses("100.0.0.0/16", LARGE))
        for number in range(SMALL):
            name, address = small(number)
            server.know(name, address)
        yield server


@pytest.fixture
def box(house: House, name: str, names: NameServer) -> Iterator[str]:
    """A container whose names are put into sets, and resolved by `names`."""
    house.terok("config", "set", "shield.forwarder", SERVER)
    yield house.start_box(name, "large.test", "*.small.test", network="auto")
    house.terok("config", "set", "shield.forwarder", "null")


class Inside:
    """A container's network, its dnsmasq, and what its firewall learned."""

    def __init__(self, house: House, name: str) -> None:
        self.bundle = house.bundle(name)
        running = live.Running.find(self.bundle)
        assert running is not None
        self.namespaces = running.namespaces
        self._numbers = itertools.count()

    @property
    def dns(self) -> record.Row:
        """What the record says of dnsmasq."""
        known = record.read(self.bundle.record)
        assert known is not None
        return known.service("dnsmasq")

    def client(self, kind: int) -> socket.socket:
        """A socket in the container's network, connected to dnsmasq."""

        def body() -> tuple[bytes, list[int]]:
            made = socket.socket(socket.AF_INET, kind)
            made.settimeout(2)
            made.connect(("127.0.0.1", 53))
            return b"", [made.detach()]

        _, (fd,) = within.call_in(self.namespaces, body, timeout=5)
        made = socket.socket(fileno=fd)
        made.settimeout(2)
        return made

    def ask_small(self, client: socket.socket) -> str:
        """Ask for a name that was not asked for before; its address."""
        name, address = small(next(self._numbers))
        client.send(question(name))
        assert decode(client.recv(512)).addresses == (address,)
        return address

    def learns(self) -> bool:
        """Whether the firewall has a new name's address after dnsmasq answered."""
        with self.client(socket.SOCK_DGRAM) as client:
            try:
                address = self.ask_small(client)
            except (OSError, AssertionError):  # it is just being started
                return False
        return address in firewall.observe(self.namespaces)["sets"]["learned4_web_a"]["elem"]


@contextmanager
def both_at_once(inside: Inside) -> Iterator[None]:
    """Large answers over TCP, and small ones over UDP beside them, until the end of the context."""
    stop = threading.Event()

    def repeat(kind: int, body: Callable[[socket.socket], object]) -> None:
        while not stop.is_set():
            try:
                with inside.client(kind) as client:
                    body(client)
            except (OSError, TerokError, AssertionError):
                pass  # dnsmasq is just being started anew

    kinds: list[tuple[int, Callable[[socket.socket], object]]] = [
        (socket.SOCK_STREAM, lambda client: ask_stream(client, "large.test")),
        (socket.SOCK_DGRAM, inside.ask_small),
    ]
    threads = [threading.Thread(target=repeat, args=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _loses_its_way() -> bool:
    """Whether this dnsmasq writes addresses from two processes over one socket (2.91 has its children report them)."""
    return dnsmasq.features(process.run(["dnsmasq", "--version"], timeout=5).out.decode()).version < (2, 91)


def _started_since(inside: Inside, restarts: int) -> bool:
    return inside.dns.restarts > restarts


def test_large_answers_beside_small_ones_do_not_end_learning(house: House, box: str) -> None:
    """The supervisor notices a dnsmasq that answers and no longer teaches the firewall, and starts it anew.

    dnsmasq 2.90 gets stuck or ends (exit code 1), as it happens; 2.91 crashes at the large answer. Each is healed.
    """
    inside = Inside(house, box)
    assert inside.learns()
    for _ in range(ROUNDS):
        before = inside.dns.restarts
        with both_at_once(inside):
            until(partial(_started_since, inside, before), 60)
        until(inside.learns, HEALED_WITHIN)
        if resolver.STUCK in (inside.dns.last_exit or "") or not _loses_its_way():
            break
    assert (inside.dns.last_exit or "") in house.terok("status", box).stdout


@pytest.mark.timeout(300)  # several rounds may be needed
def test_status_doctor_and_heal_see_a_dnsmasq_that_does_not_learn(house: House, box: str) -> None:
    """As long as its supervisor has not: here it is stopped."""
    inside = Inside(house, box)
    known = record.read(inside.bundle.record)
    assert known is not None and known.supervisor is not None
    assert not any(resolver.STUCK in line for line in container_status(inside.bundle, now=0)["troubles"])
    supervisor = known.supervisor.pid
    try:
        if _loses_its_way():
            assert any(_is_stuck(inside, supervisor) for _ in range(ROUNDS)), "dnsmasq never got stuck"
            assert any(resolver.STUCK in line for line in container_status(inside.bundle, now=0)["troubles"])
            assert resolver.STUCK in house.terok("doctor", check=False).stdout
            assert "started anew" in house.terok("heal", box).stdout
    finally:
        os.kill(supervisor, signal.SIGCONT)
    until(inside.learns, HEALED_WITHIN)


def _is_stuck(inside: Inside, supervisor: int) -> bool:
    """Stop the supervisor and make dnsmasq get stuck; False when it ended or went on. The supervisor then goes on too.

    With its supervisor stopped there may be no reader of its log. A full pipe makes it slow, and getting stuck takes
    many questions at once.
    """
    os.kill(supervisor, signal.SIGSTOP)
    running = inside.dns.process
    assert running is not None
    fd = running.open()
    assert fd is not None
    try:
        with both_at_once(inside), suppress(AssertionError):
            until(lambda: process.wait_gone(fd, 0) or resolver.stuck(running.pid), 15)
        if not process.wait_gone(fd, 0) and resolver.stuck(running.pid):
            return True
    finally:
        os.close(fd)
    os.kill(supervisor, signal.SIGCONT)
    until(inside.learns, HEALED_WITHIN)
    return False
