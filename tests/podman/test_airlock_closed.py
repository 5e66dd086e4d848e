"""The airlock without the hook, and what leaves the machine for a question: packets are counted, and there are none."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

TRIES = """
for place in 192.88.99.10 192.0.2.2 192.0.2.1 10.0.2.2 10.0.2.3 169.254.1.1 169.254.1.2 10.88.0.1 8.8.8.8 198.18.1.1 \
    2001:2::10 2001:db8:0:2::2 fe80::1%lo ff02::1%lo; do
  nc -w 1 $place 80 </dev/null && echo "through $place"
  ping -c 1 -W 1 $place | grep -q 'bytes from' && echo "through ping $place"
done 2>/dev/null
for server in 198.51.100.53 10.0.2.3 169.254.1.1 8.8.8.8; do
  nslookup allowed.test $server 2>/dev/null | grep -q 192.88 && echo "through $server"
done
curl -s -m 2 -o /dev/null http://allowed.test/ && echo "through curl"
echo tried
ls /sys/class/net
cat /proc/net/dev
"""
"""What a container tries; what gets through is printed, and at the end its interfaces with their packets."""
INTERCEPTOR = """\
#!/bin/sh
# another OCI runtime, which knows no hooks: it takes them out of the bundle
for word; do [ "$before" = --bundle ] && bundle=$word; before=$word; done
[ -n "$bundle" ] && sed -i 's/"hooks"/"removed"/' "$bundle/config.json"
exec crun "$@"
"""


@pytest.fixture
def web(resolver: Resolver) -> Iterator[None]:
    """What the container would reach."""
    with Upstream(None, "192.88.99.10", 80):
        yield


def packets() -> dict[str, int]:
    """What this network has sent and received so far; not the kernel's own neighbour discovery on the lab's veth."""
    rows = [line.split(":") for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
    counts = {f"packets on {name.strip()}": int(rest.split()[1]) for name, rest in rows}
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        counts |= {f"{names[0]} {name}": int(value) for name, value in zip(names[1:], values[1:], strict=True)}
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    counts |= {name: int(six[name]) for name in ("Udp6OutDatagrams", "Udp6InDatagrams", "Icmp6OutEchos")}
    return {
        name: count
        for name, count in counts.items()
        if name.endswith(("on lo", "Requests", "Opens", "Datagrams", "Echos"))
    }


def prepared(house: House, name: str) -> list[str]:
    return shlex.split(house.terok("prepare", name, "--profiles", "base").stdout)


def created(house: House, name: str) -> None:
    house.podman("create", *prepared(house, name), house.image, "sh", "-c", TRIES)


def run_without_configuration(house: House, name: str) -> str:
    flags = prepared(house, name)
    return house.podman("run", *flags, house.image, "sh", "-c", TRIES, env={"CONTAINERS_CONF": "/dev/null"}).stdout


def start_without_configuration(house: House, name: str) -> str:
    created(house, name)
    return house.podman("start", "--attach", name, env={"CONTAINERS_CONF": "/dev/null"}).stdout


def other_hooks_directory(house: House, name: str) -> str:
    return house.podman(
        "--hooks-dir", "/var/empty", "run", *prepared(house, name), house.image, "sh", "-c", TRIES
    ).stdout


def later_drop_in(house: House, name: str) -> str:
    created(house, name)
    path = house.home / ".config/containers/containers.conf.d/zz-later.conf"
    path.write_text('[engine]\nhooks_dir = ["/var/empty"]\n')
    try:
        return house.podman("start", "--attach", name).stdout
    finally:
        path.unlink()


def remote_service(house: House, name: str) -> str:
    created(house, name)
    address = f"unix://{house.runtime}/service.sock"
    environment = house.env | {"CONTAINERS_CONF": "/dev/null"}
    with subprocess.Popen(["podman", "system", "service", "--time", "0", address], env=environment) as service:
        try:
            until(lambda: Path(f"{house.runtime}/service.sock").is_socket())
            house.podman("--remote", "--url", address, "start", name)
            house.podman("wait", name)
            return house.podman("logs", name).stdout
        finally:
            service.send_signal(signal.SIGTERM)


def other_runtime(house: House, name: str) -> str:
    path = house.home / "no-hooks" / "crun"  # Podman knows by the name what a runtime can do
    path.parent.mkdir(exist_ok=True)
    path.write_text(INTERCEPTOR)
    path.chmod(0o755)
    return house.podman("--runtime", str(path), "run", *prepared(house, name), house.image, "sh", "-c", TRIES).stdout


WAYS: dict[str, Callable[[House, str], str]] = {
    "run without configuration": run_without_configuration,
    "start without configuration": start_without_configuration,
    "other hooks directory": other_hooks_directory,
    "later drop-in": later_drop_in,
    "remote service": remote_service,
    "other runtime": other_runtime,
}
"""Every way known in which Podman starts a prepared container without terok's hook; but see `clone` below."""


@pytest.mark.parametrize("way", WAYS)
def test_without_the_hook_no_packet_leaves(house: House, name: str, web: None, way: str) -> None:
    before = packets()
    said = WAYS[way](house, name)
    moved = {name: count - before[name] for name, count in packets().items() if count != before[name]}
    assert "through" not in said, said
    _, _, table = said.partition("tried\n")
    interfaces = [line.split(":") for line in table.splitlines() if ":" in line and "|" not in line]
    assert [link.strip() for link, _ in interfaces] == ["lo"], said
    received, sent = int(interfaces[0][1].split()[1]), int(interfaces[0][1].split()[9])
    assert received == sent  # what used loopback went from the container to itself
    assert moved == {}, moved


def test_a_clone_is_named_as_unprotected(house: House, name: str) -> None:
    """`podman container clone` gives the new container a network of Podman's and none of terok's annotations."""
    clone = f"{name}-clone"
    house.podman("create", *prepared(house, name), house.image, "sleep", "1000")
    house.podman("container", "clone", name, clone)
    try:
        if house.podman("start", clone, check=False).returncode != 0:
            # Podman 5 hands the seccomp profile on in a form that crun refuses: such a clone never runs
            assert house.podman("inspect", "--format", "{{.State.Running}}", clone).stdout.strip() == "false"
            return
        links = house.podman("exec", clone, "ls", "/sys/class/net").stdout.split()
        report = json.loads(house.terok("status", "--json").stdout)
        assert links == ["lo"] or clone in report["unprotected"]
    finally:
        house.podman("rm", "--force", "--time", "0", clone)


QUESTIONS = """
for name in allowed.test ALLOWED.test leak-1.wild.test leak-2.deep.wild.test leak-3.allowed.test leak-4.example \\
    leak-5 localhost leak-6.in-addr.arpa 10.113.0.203.in-addr.arpa 1.1.18.198.in-addr.arpa; do
  for kind in a aaaa mx txt ns soa srv ptr any; do nslookup -timeout=1 -retry=1 -type=$kind $name; done
  curl -s -m 2 http://$name:9/
done >/dev/null 2>&1
true
"""


@pytest.mark.parametrize("dns", ["auto", "static"])
def test_no_byte_leaves_for_a_question(house: House, name: str, web: None, resolver: Resolver, dns: str) -> None:
    """The canary is the only resolver that the lab names; the packets of every interface are counted."""
    house.terok("config", "set", "shield.dns", dns)
    try:
        house.start_box(name, "allowed.test", "*.wild.test")
    finally:
        house.terok("config", "set", "shield.dns", "auto")
    nameservers = [
        line.split()[1] for line in Path("/etc/resolv.conf").read_text().splitlines() if "nameserver" in line
    ]
    assert nameservers == [resolver.address]
    asked, before = resolver.log(), packets()
    house.podman("exec", name, "sh", "-c", QUESTIONS if dns == "auto" else QUESTIONS.replace("nslookup", ": nslookup"))
    assert resolver.log() == asked
    assert packets() == before
    # the canary sings: a connection to an allowed name makes the host ask for that name, and for nothing else
    assert (
        house.podman("exec", name, "curl", "-s", "-m", "9", "-o", "/dev/null", "http://allowed.test/").returncode == 0
    )
    new = [line for line in resolver.log()[len(asked) :].splitlines() if " query[" in line]
    assert new and all(" allowed.test from " in line for line in new), new


def test_a_question_from_the_learning_modes_stays_here_too(
    house: House, name: str, web: None, resolver: Resolver
) -> None:
    house.start_box(name, "allowed.test")
    for mode in ("learn", "down"):
        house.terok("shield", mode, name)
        asked = resolver.log()
        house.podman("exec", name, "sh", "-c", QUESTIONS.replace("curl", ": curl"))
        assert resolver.log() == asked, mode


def test_the_network_that_nothing_names(house: House, name: str) -> None:
    """The airlock, which without the hook is no network at all; without the shield Podman's own."""

    def network(*words: str) -> str:
        flags: list[str] = json.loads(house.terok("prepare", name, *words, "--json").stdout)
        return flags[flags.index("--network") + 1]

    assert network() == network("--network", "airlock") == "none"
    assert json.loads(Path(house.bundle(name).meta).read_text())["network"] == "airlock"
    assert network("--no-shield").partition(":")[0] in ("slirp4netns", "pasta")
    assert network("--network", "auto").partition(":")[0] in ("slirp4netns", "pasta")
    refused = house.terok("prepare", name, "--no-shield", "--network", "airlock", check=False)
    assert refused.returncode == Exit.USAGE and "part of the shield" in refused.stderr
    for words in (("--network", "slirp4netns"), ("--net=bridge",)):
        refused = house.terok("run", name, "--", *words, house.image, "true", check=False)
        assert refused.returncode == Exit.REFUSED and "terok's own --network before the '--'" in refused.stderr
