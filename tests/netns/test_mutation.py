"""Every rule is there for a reason: with any one of them taken out, something that must hold does not.

`PROBES` is a battery of small observations. It passes with the whole ruleset; then each rule of each chain is deleted
in turn, and at least one observation must fail.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from terok_host.supervisor.ground.quick import loads
from terok_host.supervisor.wall import firewall
from tests.lab.world import FORWARDER, World, counted
from tests.standins.nameserver import NameServer, ask, ask_stream, padded

ALLOW_HOST = {4: "198.51.100.10", 6: "2001:db8:1::10"}
ALLOW_NET = {4: "203.0.113.7", 6: "2001:db8:2::7"}
DENIED_HOST = {4: "203.0.113.66", 6: "2001:db8:2::66"}
DENIED_NET = {4: "203.0.113.130", 6: "2001:db8:2:1::1"}
LEARNED = {(4, "a"): "192.88.99.1", (4, "b"): "192.88.99.2", (6, "a"): "2001:db8:5::a", (6, "b"): "2001:db8:5::b"}
NEVER = {4: "169.254.9.9", 6: "fd00:ec2::254"}
SPECIAL = {4: "10.77.1.1", 6: "fd00:7::1"}
KEPT = {4: "192.88.99.40", 6: "2001:db8:6::40"}
CUT = {4: "192.88.99.50", 6: "2001:db8:6::50"}
SERVICE = "10.0.2.2"
PUBLISHED, UNHEARD = 5353, 5354

Probe = Callable[["Scene"], bool]
PROBES: dict[str, Probe] = {}


def probe(function: Probe) -> Probe:
    """Register an observation under its name."""
    PROBES[function.__name__] = function
    return function


class Scene:
    """A world with a policy that has something of everything, and connections that were open before."""

    def __init__(self, world: World, names: NameServer) -> None:
        self.world, self.names = world, names
        names.know("one.test", ALLOW_HOST[4])
        for address in [
            each
            for table in (ALLOW_HOST, ALLOW_NET, DENIED_HOST, DENIED_NET, LEARNED, NEVER, SPECIAL, KEPT, CUT)
            for each in table.values()
        ]:
            world.serve(address, 443)
        world.serve(SERVICE, 8080)
        for address in (ALLOW_HOST[4], ALLOW_HOST[6], ALLOW_NET[4], ALLOW_NET[6]):
            world.serve(address, 8443)
        self.shield = world.prepare(
            *("one.test", "two.test:8443", ALLOW_HOST[4], ALLOW_HOST[6], "203.0.113.0/24", "2001:db8:2::/47"),
            *(f"{ALLOW_HOST[4]}:8443", f"[{ALLOW_HOST[6]}]:8443", "203.0.113.0/24:8443", "[2001:db8:2::/47]:8443"),
            services=[(SERVICE, 8080)],
            published_udp=[PUBLISHED, UNHEARD],
        )
        Path(world.bundle.deny_list).write_text(
            f"{DENIED_HOST[4]}\n{DENIED_HOST[6]}\n203.0.113.128/25\n2001:db8:2:1::/64\n"
        )
        self.shield = world.prepare(
            *("one.test", "two.test:8443", ALLOW_HOST[4], ALLOW_HOST[6], "203.0.113.0/24", "2001:db8:2::/47"),
            *(f"{ALLOW_HOST[4]}:8443", f"[{ALLOW_HOST[6]}]:8443", "203.0.113.0/24:8443", "[2001:db8:2::/47]:8443"),
            services=[(SERVICE, 8080)],
            published_udp=[PUBLISHED, UNHEARD],
        )
        self.echo = world.box.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.echo.bind(("0.0.0.0", PUBLISHED))
        self.local = world.box.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.local.bind(("0.0.0.0", 8000))
        self.local.listen(16)
        firewall.apply(world.box.namespaces, self.shield)
        world.start_dns(self.shield)
        self.connections: dict[str, socket.socket] = {}

    def arrange(self) -> None:
        """Put the whole ruleset in force again, with what names would have taught and connections that are open."""
        for each in self.connections.values():
            each.close()
        world = self.world
        firewall.load(world.box.namespaces, Path(self.shield.ruleset).read_bytes())
        every = (KEPT, CUT)
        opened = [
            self._element("add", f"allow{family}_web_host", table[family]) for table in every for family in (4, 6)
        ]
        self._nft(opened)
        self.connections = {table[family]: world.connect(table[family], 443) for table in every for family in (4, 6)}
        lines = [self._element("delete", f"allow{f}_web_host", table[f]) for table in every for f in (4, 6)]
        lines += [self._element("add", f"cut{family}", CUT[family]) for family in (4, 6)]
        lines += [self._element("add", f"allow{family}_web_host", NEVER[family]) for family in (4, 6)]
        lines += [self._element("add", f"learned{family}_web_a", SPECIAL[family]) for family in (4, 6)]
        lines += [self._element("add", f"learned{f}_web_{each}", address) for (f, each), address in LEARNED.items()]
        lines += [
            self._element("add", f"learned{f}_tcp8443_{each}", table[f])
            for f in (4, 6)
            for each, table in (
                ("a", {4: "192.88.99.3", 6: "2001:db8:5::3"}),
                ("b", {4: "192.88.99.4", 6: "2001:db8:5::4"}),
            )
        ]
        self._nft(lines)

    def _element(self, verb: str, name: str, address: str) -> str:
        return f"{verb} element inet terok {name} {{ {address} }}"

    def _nft(self, lines: list[str]) -> None:
        firewall.load(self.world.box.namespaces, "\n".join(lines).encode())

    def close(self) -> None:
        """Close what is open."""
        for each in (*self.connections.values(), self.echo, self.local):
            each.close()


@pytest.fixture
def scene(world: World, names: NameServer) -> Iterator[Scene]:
    """The scene, and servers for ports beside the web's."""
    for address in ("192.88.99.3", "192.88.99.4", "2001:db8:5::3", "2001:db8:5::4"):
        world.serve(address, 8443)
    made = Scene(world, names)
    yield made
    made.close()


def _every(scene: Scene, *addresses: str, port: int = 443, reached: bool = True) -> bool:
    return all(scene.world.reaches(each, port, timeout=0.4) is reached for each in addresses)


@probe
def allowed_addresses_are_reached(scene: Scene) -> bool:
    return _every(scene, *ALLOW_HOST.values(), *ALLOW_NET.values())


@probe
def allowed_addresses_are_reached_on_their_port(scene: Scene) -> bool:
    return _every(scene, *ALLOW_HOST.values(), *ALLOW_NET.values(), port=8443)


@probe
def learned_addresses_are_reached(scene: Scene) -> bool:
    return _every(scene, *LEARNED.values())


@probe
def learned_addresses_are_reached_on_their_port(scene: Scene) -> bool:
    return _every(scene, "192.88.99.3", "192.88.99.4", "2001:db8:5::3", "2001:db8:5::4", port=8443)


@probe
def denied_addresses_are_refused(scene: Scene) -> bool:
    return _every(scene, *DENIED_HOST.values(), *DENIED_NET.values(), reached=False)


@probe
def never_and_special_addresses_are_refused(scene: Scene) -> bool:
    return _every(scene, *NEVER.values(), *SPECIAL.values(), reached=False)


@probe
def services_at_the_gateway_are_reached(scene: Scene) -> bool:
    return _every(scene, SERVICE, port=8080)


@probe
def refusals_come_at_once(scene: Scene) -> bool:
    return [_refusal(scene, address) for address in ("198.51.100.200", "2001:db8:9::9")] == [
        errno.EHOSTUNREACH,
        errno.ECONNREFUSED,
    ]


def _refusal(scene: Scene, address: str) -> int | None:
    try:
        scene.world.connect(address, 443, timeout=0.4).close()
    except OSError as error:
        return error.errno
    return None


def _carries(client: socket.socket) -> str:
    client.settimeout(0.4)
    try:
        client.sendall(b"again")
        return "yes" if client.recv(16) == b"again" else "ended"
    except ConnectionResetError:
        return "reset"
    except OSError:
        return "stalls"


@probe
def granted_connections_go_on(scene: Scene) -> bool:
    return all(_carries(scene.connections[KEPT[family]]) == "yes" for family in (4, 6))


@probe
def cut_connections_are_reset(scene: Scene) -> bool:
    return all(_carries(scene.connections[CUT[family]]) == "reset" for family in (4, 6))


@probe
def names_resolve_over_udp(scene: Scene) -> bool:
    try:
        return ask(scene.world, "one.test", timeout=0.4).code == 0
    except OSError:
        return False


@probe
def names_resolve_over_tcp(scene: Scene) -> bool:
    try:
        with scene.world.connect("127.0.0.1", 53, timeout=0.4) as client:
            return ask_stream(client, "one.test").code == 0
    except OSError:
        return False


@probe
def long_questions_over_udp_are_refused(scene: Scene) -> bool:
    with scene.world.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.4)
        client.connect(("127.0.0.1", 53))
        try:
            client.send(padded("one.test", 400))
            client.recv(512)
        except OSError as error:
            return error.errno in (errno.EPERM, errno.EACCES, errno.EHOSTUNREACH)
        return False


@probe
def long_questions_over_tcp_are_reset(scene: Scene) -> bool:
    query = padded("one.test", 4000)
    try:
        with scene.world.connect("127.0.0.1", 53, timeout=0.4) as client:
            client.sendall(struct.pack(">H", len(query)) + query)
            return client.recv(2) == b""
    except ConnectionError:
        return True
    except OSError:
        return False


@probe
def old_connections_to_dnsmasq_end(scene: Scene) -> bool:
    try:
        with scene.world.connect("127.0.0.1", 53, timeout=0.4) as client:
            with _marked(scene, "output", "ip daddr 127.0.0.1 tcp dport 53 ct state established"):
                ask_stream(client, "one.test")
            return False
    except ConnectionResetError:
        return True
    except OSError:
        return False


@probe
def loopback_is_free(scene: Scene) -> bool:
    try:
        with scene.world.connect("127.0.0.1", 8000, timeout=0.4):
            scene.local.accept()[0].close()
            return True
    except OSError:
        return False


@probe
def visitors_get_replies(scene: Scene) -> bool:
    with scene.world.far.socket(socket.AF_INET, socket.SOCK_STREAM) as visitor:
        visitor.settimeout(0.4)
        try:
            visitor.connect(("192.0.2.2", 8000))
            scene.local.accept()[0].close()
            return True
        except OSError:
            return False


@probe
def published_datagrams_get_replies(scene: Scene) -> bool:
    with scene.world.far.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
        visitor.settimeout(0.4)
        scene.echo.settimeout(0.4)
        try:
            visitor.sendto(b"knock", ("192.0.2.2", PUBLISHED))
            data, peer = scene.echo.recvfrom(16)
            scene.echo.sendto(data, peer)
            return visitor.recv(16) == b"knock"
        except OSError:
            return False


@probe
def errors_about_visitors_get_out(scene: Scene) -> bool:
    with scene.world.far.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
        visitor.settimeout(0.4)
        visitor.connect(("192.0.2.2", UNHEARD))
        visitor.send(b"knock")
        try:
            visitor.recv(16)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False


@probe
def unpublished_datagrams_do_not_get_in(scene: Scene) -> bool:
    with (
        scene.world.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside,
        scene.world.far.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside,
    ):
        inside.bind(("0.0.0.0", 9000))
        inside.settimeout(0.1)
        outside.sendto(b"knock", ("192.0.2.2", 9000))
        try:
            inside.recv(16)
            return False
        except TimeoutError:
            return True


@probe
def neighbours_are_found(scene: Scene) -> bool:
    scene.world.box.run("ip", "-6", "neigh", "flush", "dev", "eth0")
    return _every(scene, ALLOW_HOST[6])


@probe
def segments_out_of_nowhere_adopt_no_connection(scene: Scene) -> bool:
    source, destination = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
    segment = struct.pack(">HHIIBBHHH", 7001, 7002, 1, 1, 5 << 4, 0x10, 512, 0, 0)  # ACK
    pseudo = source + destination + b"\x00\x06" + struct.pack(">H", len(segment)) + segment
    total = sum(struct.unpack(f">{len(pseudo) // 2}H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    segment = segment[:16] + struct.pack(">H", 0xFFFF - ((total & 0xFFFF) + (total >> 16))) + segment[18:]
    with counted(scene.world.far, "near0") as packets:
        with scene.world.far.make(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)) as raw:
            raw.sendto(segment, ("192.0.2.2", 0))
        time.sleep(0.05)
        return not [
            each for each in packets() if each[9:10] == b"\x06" and each[20:24] == struct.pack(">HH", 7002, 7001)
        ]


@contextmanager
def _marked(scene: Scene, hook: str, match: str) -> Iterator[None]:
    """Meanwhile the connections of matching packets carry a foreign mark, as after a change of policy."""
    lines = f"chain c {{ type filter hook {hook} priority -10; {match} ct mark set 5\n }}"
    firewall.load(scene.world.box.namespaces, f"table inet foreign {{\n{lines}\n}}".encode())
    try:
        yield
    finally:
        firewall.load(scene.world.box.namespaces, b"delete table inet foreign")


def _mark_of(scene: Scene) -> int:
    expected = loads(Path(scene.shield.expected).read_bytes())
    return int(expected["chains"]["local"]["rules"][2][2]["mangle"]["value"])


def _late_answer(scene: Scene, kind: int) -> bool:
    """True when an answer that comes after the policy changed is dropped."""
    world = scene.world
    with world.box.socket(socket.AF_INET, kind) as client:
        client.settimeout(0.2)
        client.setsockopt(socket.SOL_SOCKET, 36, _mark_of(scene))  # SO_MARK, as dnsmasq's own socket has it
        try:
            client.connect((FORWARDER, 53))
            query = b"\x31\x41\x01\x00\x00\x01" + bytes(6) + b"\x03one\x04test\x00\x00\x01\x00\x01"
            if kind == socket.SOCK_STREAM:
                query = struct.pack(">H", len(query)) + query
            with _marked(scene, "input", f"ip saddr {FORWARDER}"):
                client.send(query)
                client.recv(512)
            return False
        except TimeoutError:
            return True
        except OSError:
            return False


@probe
def late_answers_over_udp_are_dropped(scene: Scene) -> bool:
    return _late_answer(scene, socket.SOCK_DGRAM)


@probe
def late_answers_over_tcp_are_dropped(scene: Scene) -> bool:
    return _late_answer(scene, socket.SOCK_STREAM)


def failures(scene: Scene, *, first: bool = False) -> list[str]:
    """The observations that do not hold; with `first`, one is enough."""
    found = []
    for name, each in PROBES.items():
        if not each(scene):
            found.append(name)
            if first:
                break
    return found


def rules(scene: Scene) -> list[tuple[str, int, str]]:
    """(chain, position, text) of every rule."""
    listing = scene.world.box.run("nft", "-a", "list", "table", "inet", "terok").out.decode().splitlines()
    found, chain, position = [], "", 0
    for line in listing:
        words = line.split()
        if words[:1] == ["chain"]:
            chain, position = words[1], 0
        elif chain and "# handle" in line and words[:1] != ["chain"]:
            found.append((chain, position, line.strip().partition(" # handle")[0]))
            position += 1
    return found


def delete(scene: Scene, chain: str, position: int) -> None:
    """Delete the rule at a position of a chain."""
    listing = loads(scene.world.box.run("nft", "-j", "list", "chain", "inet", "terok", chain).out)["nftables"]
    handle = [each["rule"]["handle"] for each in listing if "rule" in each][position]
    scene.world.box.run("nft", "delete", "rule", "inet", "terok", chain, "handle", str(handle))


@pytest.mark.timeout(300)
def test_every_rule_is_needed(scene: Scene) -> None:
    scene.arrange()
    assert failures(scene) == []
    every = rules(scene)
    assert len(every) > 40
    needless = []
    for chain, position, text in every:
        scene.arrange()
        delete(scene, chain, position)
        if not failures(scene, first=True):
            needless.append(f"{chain}: {text}")
    assert needless == [], "nothing notices when these are missing"
