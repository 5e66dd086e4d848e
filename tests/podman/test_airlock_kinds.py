"""The airlock of a container with annotations alone, on every kind of network that Podman may have given it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

from .test_ways import NETWORKS

WAIT = "trap exit TERM; sleep 1000 & wait"
PROFILE = "kindstest"
ANNOTATIONS = ("--annotation=terok.network=airlock", f"--annotation=terok.shield.profiles={PROFILE}")
TRIES = """
link=$(ls /sys/class/net | grep -v '^lo$' | head -n1)
network=192.0.2
[ -n "$link" ] && network=$(ip -4 addr show dev $link | sed -n 's/.*inet \\([0-9.]*\\)\\.[0-9]*\\/.*/\\1/p' | head -n1)
for place in 192.88.99.66 192.0.2.2 $network.1 $network.2 $network.3 $network.77 10.0.2.2 169.254.1.2 2001:2::66 \\
    fd00::2 fd00::3 fe80::2%${link:-lo} ff02::1%${link:-lo} ff02::2%${link:-lo}; do
  nc -w 1 $place 80 </dev/null && echo "through $place"
  nc -w 1 $place 53 </dev/null && echo "through $place"
  ping -c 1 -W 1 $place | grep -q 'bytes from' && echo "through ping $place"
  traceroute -n -m 1 -q 1 -w 1 $place | grep -q ' ms' && echo "through udp $place"
done 2>/dev/null
for server in $network.1 $network.3 169.254.1.1 198.51.100.53; do
  nslookup allowed.test $server 2>/dev/null | grep -q 192.88 && echo "through $server"
done
"""
SENT = "for link in /sys/class/net/*; do echo ${link##*/} $(cat $link/statistics/tx_packets); done"


@pytest.fixture
def web(house: House, resolver: Resolver) -> Iterator[None]:
    """A profile with allowed.test, and web servers there and at an address that is not allowed."""
    Path(house.layout.profiles).mkdir(parents=True, exist_ok=True)
    profile = Path(house.layout.profiles) / f"{PROFILE}.txt"
    profile.write_text("allowed.test\n")
    with Upstream(None, "192.88.99.10", 80), Upstream(None, "192.88.99.66", 80), Upstream(None, "::", 80):
        yield
    profile.unlink()


@pytest.fixture
def container(house: House, name: str) -> Iterator[str]:
    """A container name; afterwards its network and whatever bundle it had are gone."""
    yield name
    house.podman("rm", "--force", "--time", "0", "--ignore", name)
    house.podman("network", "rm", "--force", f"n-{name}", check=False)
    for row in json.loads(house.terok("status", "--json", "--all").stdout)["containers"]:
        house.terok("cleanup", row["container"])


def sent(house: House, name: str) -> dict[str, int]:
    """Packets that left on each interface but loopback."""
    rows = [line.split() for line in house.podman("exec", name, "sh", "-c", SENT).stdout.splitlines()]
    return {link: int(count) for link, count in rows if link != "lo"}


@pytest.mark.parametrize("kind", [*NETWORKS, "none", "own", "own with IPv6"])
def test_every_interface_but_loopback_is_closed(house: House, container: str, web: None, kind: str) -> None:
    network = kind
    if kind.startswith("own"):
        network = f"n-{container}"
        house.podman("network", "create", *(["--ipv6"] if "IPv6" in kind else []), network)
    if kind == "slirp4netns":
        network += ":allow_host_loopback=true,enable_ipv6=true"
    house.podman(
        "run", "--detach", "--name", container, "--network", network, *ANNOTATIONS, house.image, "sh", "-c", WAIT
    )
    expected = kind == "none"
    until(
        lambda: (
            expected or "inet " in house.podman("exec", container, "ip", "-4", "addr", "show", "scope", "global").stdout
        )
    )
    links = sent(house, container)
    assert bool(links) != expected
    ask = "curl -sS -m 9 -o /dev/null -w '%{http_code}' http://allowed.test/"
    assert house.podman("exec", container, "sh", "-c", ask).stdout == "200"
    said = house.podman("exec", container, "sh", "-c", TRIES, check=False).stdout
    assert "through" not in said, said
    assert sent(house, container) == links, "an interface other than loopback has sent something"
