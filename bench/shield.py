"""The shield: what it costs a start, a change, a DNS question, a connection and a stream of bytes."""

from __future__ import annotations

import json
import os
import select
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.kit import Figure, interleaved, timed
from terok_host.sidecars.shield import live
from terok_host.sidecars.shield.targets import parse
from terok_host.supervisor.ground import process
from terok_host.supervisor.wall import firewall
from tests.lab.house import House
from tests.lab.waiting import until
from tests.lab.world import FORWARDER, World

ROUNDS = 7
SECONDS = 1.0
ADDRESS = "192.88.99.10"
NAMES = 60
"""Names of the profile: about as many as the default one has."""


def measure(house: House) -> list[Figure]:
    """Every figure of the shield."""
    figures = start(house)
    with world() as made:
        figures += questions(made)
    with world() as made:
        figures += packets(made)
    with world() as made:
        figures += changes(made)
    return figures


@contextmanager
def world() -> Iterator[World]:
    """Two network namespaces of our own; see tests/netns/world.py."""
    with tempfile.TemporaryDirectory(prefix="tk", dir="/tmp") as directory:
        made = World(Path(directory))
        try:
            yield made
        finally:
            made.close()


def profile() -> list[str]:
    """The lines of a profile with `NAMES` names."""
    return ["allowed.test", "*.allowed.test", ADDRESS, *(f"name{index}.example.com" for index in range(NAMES - 1))]


def start(house: House) -> list[Figure]:
    """`podman run` with the shield alone against plain `podman run`, whole cycle."""
    name = f"b-{uuid.uuid4().hex[:6]}"
    flags = json.loads(house.terok("prepare", name, "--json").stdout)
    flags = flags["args"] if isinstance(flags, dict) else flags
    network = "--network=" + next(after for each, after in zip(flags, flags[1:], strict=False) if each == "--network")

    def run(*given: str) -> Callable[[], float]:
        return lambda: timed(lambda: house.podman("run", "--rm", *given, house.image, "true"))

    took = interleaved(ROUNDS, {"plain": run(network), "shield": run(*flags)})
    house.terok("cleanup", name)
    detail = f"{took['shield'] * 1000:.0f} ms, plain {took['plain'] * 1000:.0f} ms"
    ratio = took["shield"] / took["plain"]
    return [Figure("shield: podman run --rm true, shield alone", ratio, "×", 1.4, detail=detail)]


def changes(made: World) -> list[Figure]:
    """Latency of allow and deny, from the call until it is in force and the files are written."""
    with upstream(made):
        made.shield(*profile())
        figures = []
        for what, target, verb in (
            ("allow an address", "198.51.100.{}", live.allow),
            ("deny an address", "198.51.100.{}", live.deny),
            ("allow a name", "live{}.test", live.allow),
            ("deny a name", "name{}.example.com", live.deny),
        ):
            took = sorted(
                timed(lambda v=verb, t=target, i=index: v(made.bundle, made.running(), [parse(t.format(i))]))  # type: ignore[misc]
                for index in range(1, ROUNDS + 1)
            )
            figures.append(Figure(f"shield: {what}", took[ROUNDS // 2] * 1000, "ms", None))
        return figures


@contextmanager
def upstream(made: World) -> Iterator[None]:
    """A fast name server at the forwarder's address: dnsmasq itself."""
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]
    argv += ["--user=root", "--group=root", "--bind-interfaces", f"--listen-address={FORWARDER}"]
    argv += [f"--address=/allowed.test/{ADDRESS}", "--address=/#/"]
    pid = process.spawn(argv, namespaces=made.far.namespaces, die_with_parent=True)
    with made.far.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.1)
        client.connect((FORWARDER, 53))
        until(lambda: _answers(client))
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


_END = b"\x07allowed\x04test\x00\x00\x01\x00\x01"


def _question(number: int) -> bytes:
    """A question for a name of its own below allowed.test: dnsmasq joins equal questions that are under way."""
    return (number & 0xFFFF).to_bytes(2, "big") + b"\x01\x00\x00\x01" + bytes(6) + b"\x08%08x" % number + _END


def _answers(client: socket.socket) -> bool:
    try:
        client.send(_question(1))
        return len(client.recv(512)) > 12
    except OSError:
        return False


def questions(made: World) -> list[Figure]:
    """Questions a second through the container's dnsmasq against the same dnsmasq without sets, marks and lists."""
    figures = []
    with upstream(made):
        rates = {}
        made.dns_log = os.open(os.devnull, os.O_WRONLY)
        for log in (None, 1):
            shield = made.shield(*profile(), audit_group=log)
            rates["logged" if log else "shield"] = max(rate(made) for _ in range(3))
            made.stop_dns()
        plain = [f"server={FORWARDER}", "no-resolv", "no-hosts", "cache-size=0", "listen-address=127.0.0.1"]
        plain += ["bind-interfaces", "port=53", "log-facility=/dev/null"]
        assert shield.dnsmasq_conf is not None
        Path(shield.dnsmasq_conf).write_text("\n".join(plain) + "\n")
        firewall.load(made.box.namespaces, b"delete table inet terok")
        made.start_dns(shield)
        rates["plain"] = max(rate(made) for _ in range(3))
    for name, what in (("shield", "DNS questions"), ("logged", "DNS questions, logged")):
        ratio = rates[name] / rates["plain"]
        detail = f"{rates[name]:.0f}/s, plain dnsmasq {rates['plain']:.0f}/s"
        figures.append(Figure(f"shield: {what}, to plain dnsmasq", ratio, "×", None, detail=detail))
    return figures


def rate(made: World) -> float:
    """Answers a second for one client that keeps 32 questions under way."""
    client = made.box.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.connect(("127.0.0.1", 53))
        waiting = select.poll()
        waiting.register(client, select.POLLIN)
        for number in range(32):
            client.send(_question(number))
        answered, number = 0, 32
        began = time.monotonic()
        while (now := time.monotonic()) < began + SECONDS:
            if not waiting.poll(100):
                client.send(_question(number))  # one was lost
                continue
            client.recv(512)
            answered += 1
            number += 1
            client.send(_question(number))
        return answered / (now - began)


def packets(made: World) -> list[Figure]:
    """Bytes and new connections a second through the ruleset against none."""
    made.serve(ADDRESS, 443)
    made.shield(*profile(), forwarder=None)
    ruleset = Path(made.bundle.ruleset).read_bytes()

    def with_rules(work: Callable[[World], float]) -> Callable[[], float]:
        def run() -> float:
            firewall.load(made.box.namespaces, ruleset)
            return work(made)

        return run

    def without(work: Callable[[World], float]) -> Callable[[], float]:
        def run() -> float:
            firewall.load(made.box.namespaces, b"add table inet terok\ndelete table inet terok\n")
            return work(made)

        return run

    figures = []
    contenders: list[tuple[str, str, Callable[[World], float]]] = [
        ("bytes", "MB/s", stream),
        ("connections", "/s", connections),
    ]
    for what, unit, measured in contenders:
        got = interleaved(5, {"rules": with_rules(measured), "none": without(measured)})
        detail = f"{got['rules']:.0f} {unit}, without {got['none']:.0f}"
        figures.append(
            Figure(f"shield: {what} through the rules", got["rules"] / got["none"], "×", None, detail=detail)
        )
    return figures


def stream(made: World) -> float:
    """Megabytes a second that an echo server takes and gives back on one connection."""
    block = bytes(1 << 16)
    moved = 0
    with made.connect(ADDRESS, 443) as client:
        client.settimeout(5)
        began = time.monotonic()
        while time.monotonic() < began + SECONDS / 2:
            client.sendall(block)
            left = len(block)
            while left:
                left -= len(client.recv(left))
            moved += 2 * len(block)
        return moved / (time.monotonic() - began) / 1e6


def connections(made: World) -> float:
    """New connections a second, one after another."""
    count = 0
    sockets = [made.box.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(50)]
    began = time.monotonic()
    for each in sockets:
        each.connect((ADDRESS, 443))
        count += 1
    took = time.monotonic() - began
    for each in sockets:
        each.close()
    return count / took
