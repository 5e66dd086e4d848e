"""The airlock in namespaces of the test's own: what reaches the relay, crashes, descriptors, many connections."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.airlock.descriptors import CONNECTIONS_MAX
from terok_host.supervisor.ground import netlink, process, sockets, within
from terok_host.supervisor.ground.layout import AIRLOCK_PORT
from terok_host.supervisor.schema import Shield
from terok_host.supervisor.wall import firewall, guard
from tests.lab.waiting import until
from tests.lab.world import World, counted

from .tampering import noticed_and_undone

ADDRESS, OTHER, SIX = "203.0.113.7", "198.51.100.9", "2001:db8:5::7"
PROFILE = ("203.0.113.0/24:5000-5010", f"[{SIX}]:5000", "a.example")


class Relay:
    """A relay behind listeners that outlive it, as the supervisor's do."""

    def __init__(self, world: World, *, limit: int = 0) -> None:
        self.world, self.limit = world, limit
        self.shield: Shield = world.prepare(*PROFILE, forwarder=None, in_airlock=True)
        firewall.apply(world.box.namespaces, self.shield)
        self.listeners = [
            world.box.make(lambda host=host: socket.socket(fileno=sockets.listen_tcp(host, AIRLOCK_PORT)))  # type: ignore[misc]
            for host in ("127.0.0.1", "::1")
        ]
        self.pid = 0

    def start(self) -> None:
        bundle = self.world.bundle
        fds = {3 + number: listener.fileno() for number, listener in enumerate(self.listeners)}
        script = str(Path(__file__).with_name("relay.py"))
        argv = [sys.executable, script, bundle.airlock_policy, bundle.audit, str(self.limit), *map(str, fds)]
        env = {**process.CLEAN_ENV, "PYTHONPATH": ":".join(path for path in sys.path if path)}
        far = self.world.far.namespaces
        self.pid = process.spawn(argv, fds={2: 2, **fds}, env=env, namespaces=far, cwd=os.getcwd())

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def close(self) -> None:
        self.kill()
        for listener in self.listeners:
            listener.close()

    def memory(self) -> float:
        """Its proportional set size, in MiB."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024

    def names(self) -> dict[str, str]:
        """What each synthetic address stands for."""
        names: dict[str, str] = json.loads(Path(self.world.bundle.airlock_policy).read_text())["names"]
        return names

    def log(self) -> list[dict[str, Any]]:
        path = Path(self.world.bundle.audit)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def relay(world: World) -> Iterator[Relay]:
    """A relay that runs."""
    made = Relay(world)
    made.start()
    yield made
    made.close()


def test_addresses_of_both_families(world: World, relay: Relay) -> None:
    world.serve(ADDRESS, 5000)
    world.serve(SIX, 5000)
    assert world.reaches(ADDRESS, 5000) and world.reaches(SIX, 5000)
    assert not world.reaches(ADDRESS, 4999)
    until(lambda: [line for line in relay.log() if line.get("verdict") == "refused"])
    refused = next(line for line in relay.log() if line.get("verdict") == "refused")
    assert refused["allow"] == f"terok shield allow box {ADDRESS}:4999"


def test_everything_else_is_refused_at_once(world: World, relay: Relay) -> None:
    """Blocking connects too: no packet leaves, although the namespace has an interface and a default route."""
    for address in (OTHER, "192.88.99.1", "2600::1", "10.0.2.3", "192.0.2.1", "2001:db8:ffff::1"):
        client = world.box.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        before = time.monotonic()
        with client, pytest.raises(OSError, match="Permission denied|No route|refused"):
            client.connect((address, 443))
        assert time.monotonic() - before < 0.5, address


def test_udp_and_ping_go_nowhere(world: World, relay: Relay) -> None:
    world.serve(ADDRESS, 5001, socket.SOCK_DGRAM)
    assert not world.reaches_udp(ADDRESS, 5001)
    with world.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, pytest.raises(PermissionError):
        client.connect((OTHER, 53))


def test_the_relays_own_port_is_no_destination(world: World, relay: Relay) -> None:
    assert not world.reaches("127.0.0.1", AIRLOCK_PORT)
    until(lambda: any("own port" in str(line.get("reason")) for line in relay.log()))


def test_foreign_changes_are_noticed_and_undone(world: World, relay: Relay) -> None:
    _, monitors = within.call_in(world.box.namespaces, lambda: (b"", [guard.listen(), netlink.listen()]), timeout=5)
    for command in (
        "ip route del prohibit default table local",
        "ip -6 route del prohibit default table local",
        "ip addr del 198.18.0.1/15 dev lo",
        "ip route del local 203.0.113.0/24 dev lo table local",
        "nft delete table inet terok",
        "nft flush chain inet terok relay",
    ):
        noticed_and_undone(world, monitors, relay.shield, command)
    for fd in monitors:
        os.close(fd)


def test_flushed_rules_close(world: World, relay: Relay) -> None:
    world.serve(ADDRESS, 5000)
    assert world.reaches(ADDRESS, 5000)
    world.box.run("nft", "flush", "ruleset")
    assert not world.reaches(ADDRESS, 5000) and not world.reaches(OTHER, 443)


def test_a_crash_under_load_loses_what_is_open_and_nothing_else(world: World, relay: Relay) -> None:
    world.serve(ADDRESS, 5000)
    with ExitStack() as stack:
        flooding = [stack.enter_context(world.connect(ADDRESS, 5000)) for _ in range(20)]
        # a connection still in the listener's queue outlives the relay, and the next one serves it
        until(lambda: sum(line.get("verdict") == "allowed" for line in relay.log()) == len(flooding), 30, why=relay.log)
        for client in flooding:
            client.setblocking(False)
            with suppress(BlockingIOError):
                while client.send(bytes(65536)):
                    pass
        relay.kill()
        for client in flooding:
            client.settimeout(5)
            with pytest.raises(ConnectionError):
                while client.recv(1 << 20):
                    pass
                raise ConnectionError  # an orderly end is an end too
        answers: list[bool] = []
        waiting = [threading.Thread(target=lambda: answers.append(world.reaches(ADDRESS, 5000))) for _ in range(5)]
        for thread in waiting:
            thread.start()
        relay.start()
        for thread in waiting:
            thread.join()
        assert answers == [True] * 5


def test_a_crash_under_load_sends_no_packet_elsewhere(world: World, relay: Relay) -> None:
    """While the relay is dead the namespace's own interface, which has routes, carries nothing; nor does it after."""
    world.serve(ADDRESS, 5000)
    world.serve(OTHER, 443)
    with ExitStack() as stack, counted(world.far, "near0") as arrived, counted(world.box, "eth0") as came_back:
        flooding = [stack.enter_context(world.connect(ADDRESS, 5000)) for _ in range(20)]
        until(lambda: sum(line.get("verdict") == "allowed" for line in relay.log()) == len(flooding), 30, why=relay.log)
        stop = threading.Event()
        threads = [threading.Thread(target=flood, args=(client, stop)) for client in flooding]
        threads += [threading.Thread(target=knock, args=(world, stop)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                relay.kill()
                time.sleep(0.1)  # dead under load, which no event tells
                relay.start()
                assert world.reaches(ADDRESS, 5000)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert [packet for packet in arrived() if not is_neighbour_discovery(packet)] == []
        assert [packet for packet in came_back() if not is_neighbour_discovery(packet)] == []


def flood(client: socket.socket, stop: threading.Event) -> None:
    """Send as much as the relay takes, and read what comes back."""
    client.settimeout(0.2)
    while not stop.is_set():
        try:
            client.send(bytes(65536))
            client.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return


def knock(world: World, stop: threading.Event) -> None:
    """Ask for what is allowed and for what is not."""
    while not stop.is_set():
        for address, port in ((ADDRESS, 5000), (OTHER, 443), ("2001:db8:5::8", 5000)):
            client = world.box.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            with client, suppress(OSError):
                client.settimeout(0.1)
                client.connect((address, port))


def is_neighbour_discovery(packet: bytes) -> bool:
    """What the kernel of either end says about its own addresses (ICMPv6 133 to 143), which no program sent."""
    after_header = packet[40:] if packet[6] == 58 else packet[48:]
    return packet[0] >> 4 == 6 and packet[6] in (0, 58) and 133 <= after_header[0] <= 143


def test_too_few_descriptors_slow_down(world: World) -> None:
    relay = Relay(world, limit=100)
    relay.start()
    world.serve(ADDRESS, 5000)
    try:
        with ExitStack() as stack:
            clients = [stack.enter_context(world.connect(ADDRESS, 5000)) for _ in range(60)]
            for client in clients:
                client.sendall(b"x")
            served = 0
            for client in clients:  # each is served when those before it have gone
                client.settimeout(10)
                served += client.recv(1) == b"x"
                client.close()
            assert served == 60
    finally:
        relay.close()


def test_a_thousand_connections(world: World, relay: Relay) -> None:
    world.serve(ADDRESS, 5000)
    assert world.reaches(ADDRESS, 5000)
    with ExitStack() as stack:
        clients = [stack.enter_context(world.connect(ADDRESS, 5000)) for _ in range(300)]
        for client in clients:
            client.sendall(b"ping")
        assert all(client.recv(4) == b"ping" for client in clients)
        assert relay.memory() < 40
        held = Path(f"/proc/{relay.pid}/fd")
        pipes = [link for fd in held.iterdir() if "pipe" in (link := os.readlink(fd))]
        assert len(pipes) <= 2 * 8 + 4  # none is kept by a connection that is quiet


def test_ten_thousand_hellos_of_a_byte_a_second(world: World, relay: Relay) -> None:
    """Each has its seconds; those that come meanwhile wait, and nothing of them goes out."""
    world.serve(ADDRESS, 5000)
    script = str(Path(__file__).with_name("slow.py"))
    address = next(address for address, name in relay.names().items() if name == "a.example")
    flood = process.begin(
        [sys.executable, script, address, "443", "10000", "40"], timeout=90, namespaces=world.box.namespaces
    )

    def served() -> int:
        return sum(line.get("verdict") == "refused" and "no name within" in str(line["reason"]) for line in relay.log())

    until(served, 30)
    assert relay.memory() < 40
    assert world.reaches(ADDRESS, 5000, timeout=90)
    assert int(flood.finish().out) > CONNECTIONS_MAX  # more than it holds at a time have had their seconds
    assert all(line["port"] == 5000 for line in relay.log() if line.get("verdict") == "allowed")
    assert world.reaches(ADDRESS, 5000)


def test_large_transfers_arrive_whole(world: World, relay: Relay) -> None:
    world.serve(ADDRESS, 5000)
    sent = os.urandom(1 << 20) * 8
    with world.connect(ADDRESS, 5000, timeout=30) as client:
        received = bytearray()

        def read() -> None:
            while len(received) < len(sent) and (data := client.recv(1 << 20)):
                received.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        client.sendall(sent)
        reader.join()
    assert bytes(received) == sent
    until(lambda: [line for line in relay.log() if line["event"] == "closed"])
    ended = next(line for line in relay.log() if line["event"] == "closed")
    assert ended["sent"] == ended["received"] == len(sent)
