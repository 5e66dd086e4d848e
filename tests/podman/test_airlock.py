"""The airlock on real containers: names, TLS, HTTP, refusals, the shield's verbs, capabilities, crashes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from terok_host.sidecars.shield import bundle as shield_bundle
from terok_host.sidecars.shield import live
from terok_host.supervisor import record
from terok_host.supervisor.wall import firewall
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.dns import Resolver
from tests.standins.listening import Listening
from tests.standins.upstream import Upstream

PATIENT = "trap exit TERM; sleep 1000 & wait"
PROFILE = """\
allowed.test
upstream.test:7000
*.wild.test
203.0.113.0/24
host.containers.internal:7001
2001:db8:1::/48
"""


class Echo(Listening):
    """A server that speaks first, then sends everything back."""

    def drop_connections(self) -> None:
        """Nothing is left open: the clients are gone."""

    def _serve(self, raw: socket.socket) -> None:
        with raw, suppress(ConnectionResetError):
            raw.sendall(b"hello\n")
            while data := raw.recv(65536):
                raw.sendall(data)


@pytest.fixture(scope="module")
def web(resolver: Resolver) -> Iterator[None]:
    """Web servers at the addresses of allowed.test and of the names below wild.test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("allowed.test", "*.wild.test", "denied.test").configure_cert(context)
    with (
        Upstream(context, "192.88.99.10", 443),
        Upstream(None, "192.88.99.10", 80),
        Upstream(context, "192.88.99.30", 443),
        Upstream(context, "192.88.99.66", 443),
        Upstream(None, "203.0.113.7", 80),
        Echo("198.51.100.20", 7000),
        Echo("127.0.0.1", 7001),
        Echo("127.0.0.1", 7002),
    ):
        yield


@pytest.fixture
def box(house: House, name: str, web: None) -> str:
    """A running container in the airlock."""
    start(house, name)
    return name


def start(house: House, name: str, *words: str) -> None:
    """Start a patient container with the profile of this file."""
    os.makedirs(house.layout.profiles, exist_ok=True)
    (Path(house.layout.profiles) / "airlocktest.txt").write_text(PROFILE)
    house.terok(
        "run", name, "--network", "airlock", "--profiles", "airlocktest",
        "--", "--detach", *words, house.image, "sh", "-c", PATIENT,
    )  # fmt: skip


def curl(house: House, box: str, *words: str) -> tuple[int, str]:
    """curl in the container: its exit code, and what it printed."""
    done = house.podman("exec", box, "curl", "-sS", "-k", "--max-time", "20", *words, check=False)
    return done.returncode, done.stdout + done.stderr


def log(house: House, box: str) -> list[dict[str, object]]:
    path = Path(house.bundle(box).audit)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_allowed_names(house: House, box: str) -> None:
    assert house.podman("exec", box, "ls", "/sys/class/net").stdout.split() == ["lo"]
    assert curl(house, box, "https://allowed.test/x")[0] == 0
    assert curl(house, box, "http://allowed.test/x")[0] == 0
    assert curl(house, box, "http://203.0.113.7/x")[0] == 0
    assert curl(house, box, "https://one.wild.test/")[0] == 0
    echo = house.podman("exec", "-i", box, "sh", "-c", "echo ping | nc -w 3 upstream.test 7000")
    assert echo.stdout == "hello\nping\n"
    host = "nc -w 2 host.containers.internal 7001 </dev/null; nc -w 2 host.containers.internal 7002 </dev/null; true"
    assert house.podman("exec", box, "sh", "-c", host).stdout == "hello\n"
    lines = [line for line in log(house, box) if line["event"] in ("connection", "closed")]
    assert [line["verdict"] for line in lines if line["event"] == "connection"] == ["allowed"] * 6 + ["refused"]
    ended = next(line for line in lines if line["event"] == "closed" and line["port"] == 7000)
    assert (ended["name"], ended["sent"], ended["received"]) == ("upstream.test", 5, 11)


def test_refusals(house: House, box: str) -> None:
    code, said = curl(house, box, "https://denied.test/")
    assert code == 6, said  # no such name
    for place in ("https://1.1.1.1/", "https://[2606:4700::1111]/"):
        before = time.monotonic()
        code, said = curl(house, box, place)
        assert code == 7 and time.monotonic() - before < 5, said
    # a name that is allowed at an address, and another one asked for there
    code, said = curl(house, box, "--connect-to", "denied.test:443:allowed.test:443", "https://denied.test/")
    assert code == 35, said
    code, said = curl(house, box, "--connect-to", "denied.test:80:allowed.test:80", "http://denied.test/")
    assert code == 0 and "terok shield allow" in said
    code, said = curl(house, box, "http://allowed.test/1", "--next", "-H", "Host: denied.test", "http://allowed.test/2")
    assert "asks for denied.test" in said
    assert curl(house, box, "https://allowed.test:8443/")[0] in (7, 35, 56)  # accepted by the relay, and reset
    assert curl(house, box, "https://inside.wild.test/")[0] != 0  # rebinding
    assert curl(house, box, "http://127.0.0.1:9440/")[0] != 0
    refused = [line for line in log(house, box) if line.get("verdict") == "refused"]
    hints = [line["allow"] for line in refused if "allow" in line]
    assert f"terok shield allow {box} denied.test" in hints
    assert f"terok shield allow {box} allowed.test:8443" in hints
    assert any(line.get("name") == "denied.test" and line["event"] == "dns" for line in refused)


def test_names_with_many_with_private_and_without_addresses(house: House, name: str, web: None) -> None:
    """Every address is checked, and only a checked one is connected to; a failure names its cause."""
    house.start_box(name, "many.test", "mixed.test", "private.test", "none.test", network="airlock")
    with Upstream(None, "10.77.0.9", 80) as inside:
        assert curl(house, name, "http://many.test/")[0] == 0
        assert curl(house, name, "http://mixed.test/")[0] == 0
        assert curl(house, name, "http://private.test/")[0] != 0
        assert curl(house, name, "http://none.test/")[0] != 0
        assert inside.seen == []
    lines = [line for line in log(house, name) if line["event"] == "connection"]
    assert [line["address"] for line in lines if line["verdict"] == "allowed"] == ["192.88.99.10"] * 2
    failed = {line["name"]: str(line["reason"]) for line in lines if line["verdict"] == "failed"}
    assert "private" in failed["private.test"] and "none.test" in failed["none.test"]


def test_a_name_that_changes_between_look_up_and_connect(
    house: House, name: str, web: None, resolver: Resolver
) -> None:
    """Rebinding: the name is looked up once for a connection, and each look-up's addresses are checked."""
    house.start_box(name, "rebind.test", network="airlock")
    given = resolver.forward["rebind.test"].given
    with Upstream(None, "10.77.0.9", 80) as inside, Upstream(None, "127.0.0.1", 80) as here:
        for number in range(1, 4):
            code, _ = curl(house, name, "http://rebind.test/")
            assert (code == 0, len(given)) == (number == 1, number)
            kill_relay(house, name)  # the next one has looked nothing up yet
        assert inside.seen == here.seen == []
        assert inside.connections == here.connections == 0
    lines = [line for line in log(house, name) if line["event"] == "connection"]
    assert [line["verdict"] for line in lines] == ["allowed", "failed", "failed"]
    assert (lines[0]["address"], "private" in str(lines[1]["reason"])) == ("192.88.99.10", True)
    assert "never" in str(lines[2]["reason"])


def test_five_thousand_names_and_a_name_below_a_wildcard_with_another_port(house: House, name: str, web: None) -> None:
    many = [f"n{number}.many.example" for number in range(5000)]
    house.start_box(name, *many, "*.wild.test", "one.wild.test:7003", "allowed.test", network="airlock")
    with Echo("192.88.99.30", 7003):
        assert curl(house, name, "https://allowed.test/")[0] == 0
        assert curl(house, name, "https://one.wild.test/")[0] == curl(house, name, "https://two.wild.test/")[0] == 0
        for host, said in (("one.wild.test", "hello\nping\n"), ("two.wild.test", "")):
            script = f"echo ping | nc -w 3 {host} 7003"
            assert house.podman("exec", name, "sh", "-c", script, check=False).stdout == said, host
    assert house.podman("exec", name, "nslookup", "n4999.many.example", check=False).returncode == 0
    assert house.podman("exec", name, "nslookup", "n5000.many.example", check=False).returncode != 0


def test_requests_that_a_proxy_would_take(house: House, box: str) -> None:
    """Absolute targets, CONNECT, two hosts and HTTP/2 on port 80 are refused before anything goes out."""
    refused = (
        r"GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test",
        r"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test",
        r"GET / HTTP/1.1\r\nHost: allowed.test\r\nHost: denied.test",
        r"PRI * HTTP/2.0",
        r"GET / HTTP/1.1\r\nHost: denied.test",
        r"GET / HTTP/1.1\r\nAccept: */*",
    )
    for head in refused:
        script = f"printf '{head}\\r\\n\\r\\n' | nc -w 3 allowed.test 80"
        assert house.podman("exec", box, "sh", "-c", script).stdout.startswith("HTTP/1.1 403"), head
    lines = [line for line in log(house, box) if line["event"] == "connection"]
    assert {line["verdict"] for line in lines} == {"refused"}
    assert "The connection leads to allowed.test, and asks for denied.test." in [line["reason"] for line in lines]
    assert len({str(line["reason"]) for line in lines}) == 5, lines


def test_verbs(house: House, box: str) -> None:
    https = "https://denied.test/"
    house.terok("shield", "allow", box, "denied.test")
    assert curl(house, box, https)[0] == 0
    with held_open(house, box) as ended:
        house.terok("shield", "deny", box, "upstream.test:7000")
        until(ended)
    house.terok("shield", "deny", box, "denied.test")
    assert curl(house, box, https)[0] != 0
    house.terok("shield", "forget", box, "denied.test", "upstream.test:7000")
    assert curl(house, box, https)[0] != 0
    house.terok("shield", "down", box)
    assert curl(house, box, https)[0] == 0
    assert curl(house, box, "-o", "/dev/null", "https://192.88.99.66/")[0] == 0
    house.terok("shield", "up", box)
    assert curl(house, box, https)[0] != 0
    assert curl(house, box, "https://192.88.99.66/")[0] == 7
    house.terok("shield", "learn", box)
    assert curl(house, box, https)[0] == 0
    house.terok("shield", "up", box)
    assert json.loads(house.terok("shield", "learn", box, "--print", "--json").stdout)["profile"] == ["denied.test"]
    house.terok("shield", "quarantine", box)
    assert curl(house, box, "https://allowed.test/")[0] != 0
    house.terok("shield", "reset", box)
    assert curl(house, box, "https://allowed.test/")[0] == 0
    house.terok("shield", "rules", box)
    resolved = json.loads(house.terok("shield", "resolve", box, "--json").stdout)
    assert resolved["synthetic"]["allowed.test"].startswith("198.18.")
    status = json.loads(house.terok("shield", "status", box, "--json").stdout)
    assert status["enforced"] is True and status["names"] == "airlock"


def test_restart_begins_closed_with_the_same_addresses(house: House, box: str) -> None:
    state = shield_bundle.read_state(house.bundle(box))
    house.terok("shield", "down", box)
    house.podman("stop", "-t", "0", box)
    house.podman("start", box)
    assert curl(house, box, "https://denied.test/")[0] == 6
    assert curl(house, box, "https://allowed.test/")[0] == 0
    after = shield_bundle.read_state(house.bundle(box))
    assert after.addresses == state.addresses and after.model.mode == "up"


def test_changes_from_outside_are_undone(house: House, box: str) -> None:
    bundle = house.bundle(box)
    running = live.Running.find(bundle)
    assert running is not None
    firewall.load(running.namespaces, b"flush table inet terok\n")
    until(lambda: "restored" in [line["event"] for line in log(house, box)])
    assert curl(house, box, "https://allowed.test/")[0] == 0


def kill_relay(house: House, box: str) -> None:
    known = record.read(house.bundle(box).record)
    assert known is not None
    relay = known.service("airlock").process
    assert relay is not None
    os.kill(relay.pid, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{relay.pid}"))


def test_a_killed_relay_is_back_at_once(house: House, box: str) -> None:
    assert curl(house, box, "https://allowed.test/")[0] == 0
    kill_relay(house, box)
    before = time.monotonic()
    assert curl(house, box, "https://allowed.test/")[0] == 0
    assert time.monotonic() - before < 3


WAYS_OUT = (
    "ip link add v0 type veth peer name v1; ip addr add 192.0.2.77/24 dev v0; ip link set v0 up; ip link set v1 up",
    "ip route add default via 192.0.2.1",
    "ip route add default dev lo",
    "ip route del 198.18.0.0/15; ip addr add 192.0.2.88/32 dev lo",
)
"""What a process with every capability may try."""


@pytest.mark.parametrize("how", ["exec --privileged", "joined by a privileged container", "joined with NET_RAW"])
def test_capabilities_reach_nothing_more(house: House, box: str, how: str) -> None:
    def inside(script: str) -> str:
        if how.startswith("exec"):
            return house.podman("exec", "--privileged", box, "sh", "-c", script, check=False).stdout
        grant = ["--privileged"] if "privileged" in how else ["--cap-add", "NET_RAW"]
        words = ["run", "--rm", "--network", f"container:{box}", *grant, house.image, "sh", "-c", script]
        return house.podman(*words, check=False).stdout

    for way in WAYS_OUT:
        said = inside(f"({way}) >/dev/null 2>&1; nc -w 2 192.88.99.66 443 </dev/null 2>/dev/null && echo through; true")
        assert "through" not in said, way
        assert "from 192.88" not in inside("ping -c 1 -W 1 192.88.99.66")
    until(lambda: curl(house, box, "https://allowed.test/")[0] == 0)  # and what they changed is undone


@pytest.mark.parametrize("how", ["run", "start"])
def test_without_the_hook_there_is_no_network(house: House, name: str, web: None, how: str) -> None:
    """Prepared flags, and a Podman that does not know the hooks."""
    os.makedirs(house.layout.profiles, exist_ok=True)
    (Path(house.layout.profiles) / "airlocktest.txt").write_text(PROFILE)
    flags = shlex.split(house.terok("prepare", name, "--network", "airlock", "--profiles", "airlocktest").stdout)
    script = "ls /sys/class/net; nc -w 2 192.88.99.10 443 </dev/null && echo through; true"
    hookless = {"env": {"CONTAINERS_CONF": "/dev/null"}}
    if how == "run":
        said = house.podman("run", "--rm", *flags, house.image, "sh", "-c", script, **hookless).stdout
    else:
        house.podman("create", *flags, house.image, "sh", "-c", script)
        said = house.podman("start", "--attach", name, **hookless).stdout
    assert said.split() == ["lo"]


def test_an_annotation_closes_podmans_network(house: House, name: str, web: None) -> None:
    """The container keeps the interface that Podman gave it, and reaches nothing through it."""
    os.makedirs(house.layout.profiles, exist_ok=True)
    (Path(house.layout.profiles) / "airlocktest.txt").write_text(PROFILE)
    wanted = ["--annotation", "terok.network=airlock", "--annotation", "terok.shield.profiles=airlocktest"]
    script = "until ip addr show tap0 | grep -q 'inet '; do :; done; "
    script += "curl -sSk -o /dev/null -w '%{http_code}\\n' https://allowed.test/x; "
    script += (
        "for place in 192.88.99.66 10.0.2.2 10.0.2.3; do nc -w 2 $place 443 </dev/null && echo through; done; true"
    )
    network = ["--network", "slirp4netns:allow_host_loopback=true"]
    done = house.podman("run", "--name", name, *network, *wanted, house.image, "sh", "-c", script)
    assert done.stdout.split() == ["200"], done.stdout + done.stderr
    refused = house.podman("run", "--rm", "--annotation", "terok.network=x", house.image, "true", check=False)
    assert refused.returncode != 0 and "can only be airlock" in Path(house.layout.hook_error).read_text()
    house.podman("rm", "--force", "--time", "0", name)
    for container in json.loads(house.terok("status", "--json").stdout)["containers"]:
        house.terok("cleanup", container["container"])


def test_without_dnsmasq_names_stand_in_the_hosts_file(house: House, name: str, web: None) -> None:
    house.terok("config", "set", "shield.dns", "static")
    try:
        start(house, name)
    finally:
        house.terok("config", "set", "shield.dns", "auto")
    assert curl(house, name, "https://allowed.test/")[0] == 0
    assert curl(house, name, "https://denied.test/")[0] == 6
    house.terok("shield", "allow", name, "denied.test")
    assert curl(house, name, "https://denied.test/")[0] == 0
    house.terok("shield", "deny", name, "denied.test")
    assert curl(house, name, "https://denied.test/")[0] == 6
    status = json.loads(house.terok("shield", "status", name, "--json").stdout)
    assert status["enforced"] is True and "no wildcards" in status["names"]


@contextmanager
def held_open(house: House, box: str) -> Iterator[Callable[[], bool]]:
    """A connection that stays open in the container; what it yields tells whether it has ended."""
    script = "mkfifo /tmp/in; sleep 600 >/tmp/in & nc upstream.test 7000 </tmp/in >/tmp/said; echo over >/tmp/over"
    house.podman("exec", "-d", box, "sh", "-c", script)

    def holds(test: str) -> bool:
        return house.podman("exec", box, "sh", "-c", test, check=False).returncode == 0

    until(lambda: holds("test -s /tmp/said"))
    yield lambda: holds("test -e /tmp/over")
