"""Where a container's network answers DNS, when Podman has not written it into resolv.conf yet."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from terok_host.runtime.host import resolver
from terok_host.runtime.host.resolver import Seen, forwarder_of
from terok_host.supervisor.ground.errors import TerokError

NETNS = "/run/user/1000/netns/netns-1"
PASTA = ("/usr/bin/pasta", "--config-net", "--dns-forward", "169.254.1.1", "--netns")
SLIRP = ("/usr/bin/slirp4netns", "--mtu=65520", "--netns-type=path", NETNS, "tap0")
BRIDGE = (*PASTA, "/run/user/1000/containers/networks/rootless-netns/rootless-netns")


@pytest.mark.parametrize(
    ("seen", "address"),
    [
        (Seen(NETNS, [(*PASTA, "/run/user/1000/netns/netns-2"), (*PASTA, NETNS)]), "169.254.1.1"),
        (Seen(NETNS, [("pasta", "--dns-forward=192.0.2.9", "--netns", NETNS)]), "192.0.2.9"),
        (Seen(NETNS, [SLIRP]), "10.0.2.3"),
        (Seen(NETNS, [(*SLIRP, "--cidr=10.9.0.0/16")]), "10.9.0.3"),
        (Seen(NETNS, [(*SLIRP, "--cidr", "nonsense")]), None),
        (Seen(NETNS, [BRIDGE], ["10.89.0.1"], ["10.89.0.1"]), "10.89.0.1"),
        (Seen(NETNS, [BRIDGE], ["10.88.0.1"], ["10.89.0.1"]), "169.254.1.1"),
        (Seen(NETNS, [BRIDGE]), None),
        (Seen(NETNS, [(*PASTA, "/run/user/1000/netns/netns-2")]), None),
        (Seen(mode="pasta"), "169.254.1.1"),
        (Seen(mode="pasta", options=["--dns-forward", "192.0.2.9"]), "192.0.2.9"),
        (Seen(mode="slirp4netns"), "10.0.2.3"),
        (Seen(mode="slirp4netns", options=["mtu=1500", "cidr=10.9.0.0/24"]), "10.9.0.3"),
        (Seen(mode="bridge"), "169.254.1.1"),
        (Seen(mode="bridge", planned=["10.89.0.1"]), "10.89.0.1"),
        (Seen(), None),
        (Seen(NETNS, [SLIRP], chosen=["192.0.2.1"]), "192.0.2.1"),
    ],
)
def test_the_forwarder_of_each_network(seen: Seen, address: str | None) -> None:
    assert forwarder_of(seen) == address


def config(path: Path | None) -> dict[str, object]:
    mounts = [{"destination": "/etc/resolv.conf", "source": str(path)}] if path else []
    return {"mounts": mounts, "linux": {"namespaces": [{"type": "network"}]}}


def place(tmp_path: Path) -> Path:
    path = tmp_path / "run/overlay-containers/abc/userdata/resolv.conf"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_an_empty_file_says_nothing_about_the_network(tmp_path: Path) -> None:
    state = {"id": "abc", "pid": 0, "bundle": str(tmp_path / "graph/overlay-containers/abc/userdata")}
    path = place(tmp_path)
    with pytest.raises(TerokError, match="not yet written a nameserver") as refusal:
        resolver.find(state, config(path))
    assert "shield.forwarder" in (refusal.value.fix or "")
    (tmp_path / "graph").mkdir()
    with closing(sqlite3.connect(tmp_path / "graph/db.sql")) as database, database:
        database.execute("CREATE TABLE ContainerConfig (ID TEXT, JSON TEXT)")
        database.execute("INSERT INTO ContainerConfig VALUES (?, ?)", ("abc", json.dumps({"networkMode": "pasta"})))
    assert resolver.find(state, config(path)) == "169.254.1.1"
    path.write_text("nameserver 192.0.2.7\n")
    assert resolver.find(state, config(path)) == "192.0.2.7"
    assert resolver.find(state, config(None)) == "169.254.1.1"


def test_without_a_network_there_is_no_forwarder(tmp_path: Path) -> None:
    state = {"id": "abc", "pid": 0, "bundle": str(tmp_path / "graph/overlay-containers/abc/userdata")}
    assert resolver.find(state, config(None)) is None
