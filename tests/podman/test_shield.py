"""The shield on real containers: `terok run`, the live verbs, restarts, and what `status` says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from terok_host.sidecars.shield import bundle as shield_bundle
from terok_host.sidecars.shield import live
from terok_host.supervisor.ground.layout import package_root
from terok_host.supervisor.wall import firewall
from tests.lab.house import CommandFailed, House
from tests.lab.waiting import until
from tests.standins.dns import Resolver


@pytest.fixture
def box(house: House, name: str, resolver: Resolver, network: str) -> str:
    """A running container that may reach allowed.test."""
    return house.start_box(name, "allowed.test", "upstream.test:8443")


in_sets = pytest.mark.parametrize("network", ["auto"], indirect=True)
"""For what only the modes have in which nftables sets follow the names; the airlock's are in test_airlock.py."""


def resolves(house: House, box: str, name: str) -> bool:
    done = house.podman("exec", box, "nslookup", name, "127.0.0.1", check=False)
    return "192.88.99." in done.stdout or "198.18." in done.stdout


def test_verbs(house: House, box: str, network: str) -> None:
    assert resolves(house, box, "allowed.test")
    assert not resolves(house, box, "denied.test")
    said = json.loads(house.terok("shield", "status", box, "--json").stdout)
    assert said["enforced"] is True and said["mode"] == "up"
    inner = "redirect to :9440" if network == "airlock" else "name4_allowed.test"
    assert inner in house.terok("shield", "rules", box, "--nft").stdout
    house.terok("shield", "allow", box, "denied.test")
    assert resolves(house, box, "denied.test")
    house.terok("shield", "deny", box, "denied.test")
    assert not resolves(house, box, "denied.test")
    house.terok("shield", "forget", box, "denied.test")
    house.terok("shield", "down", box)
    assert resolves(house, box, "denied.test")
    house.terok("shield", "up", box)
    assert not resolves(house, box, "denied.test")
    house.terok("shield", "quarantine", box)
    assert not resolves(house, box, "allowed.test")
    house.terok("shield", "reset", box)
    assert resolves(house, box, "allowed.test")
    house.terok("shield", "resolve", box)
    log = json.loads(house.terok("shield", "logs", "--container", box, "-n", "99", "--json").stdout)
    verbs = ["allow", "deny", "forget", "down", "up", "quarantine", "reset"]
    assert [each["event"] for each in log if each["event"] in verbs] == verbs
    with pytest.raises(CommandFailed, match="never reachable"):
        house.terok("shield", "allow", box, "169.254.169.254")


def test_status_waits_for_a_change_under_way(house: House, box: str) -> None:
    """In the middle of a change files and firewall differ, which is no alarm."""
    house.terok("shield", "allow", box, "denied.test")
    bundle = house.bundle(box)
    running = live.Running.find(bundle)
    assert running is not None
    with ExitStack() as stack:
        with live.locked(bundle):
            firewall.load(running.namespaces, b"flush chain inet terok input")
            status = stack.enter_context(
                subprocess.Popen(
                    [str(house.program), "shield", "status", box], env=house.env, stdout=subprocess.PIPE, text=True
                )
            )
            with pytest.raises(subprocess.TimeoutExpired):
                status.wait(0.7)
            firewall.restore(running.namespaces, shield_bundle.shield_of(bundle, shield_bundle.read_state(bundle)))
        said, _ = status.communicate(timeout=10)
    assert status.returncode == 0, said


@in_sets
def test_port_of_its_own_restarts_dnsmasq(house: House, box: str) -> None:
    house.terok("shield", "allow", box, "denied.test:8443")
    assert resolves(house, box, "denied.test")
    rules = json.loads(house.terok("shield", "rules", box, "--nft", "--json").stdout)
    assert rules["sets"]["learned4_tcp8443_a"]["elem"] == ["192.88.99.66"]


def test_lists_and_quarantine_outlive_a_restart(house: House, box: str) -> None:
    house.terok("shield", "allow", box, "denied.test")
    house.terok("shield", "down", box)
    house.podman("restart", "--time", "1", box)
    assert resolves(house, box, "denied.test")
    assert json.loads(house.terok("shield", "status", box, "--json").stdout)["enforced"] is True
    assert json.loads(house.terok("shield", "status", box, "--json").stdout)["mode"] == "up"


def test_dnsmasq_that_dies_comes_back(house: House, box: str) -> None:
    record = json.loads(Path(house.bundle(box).record).read_text())
    os.kill(record["sidecars"]["dnsmasq"]["pid"], signal.SIGKILL)
    until(lambda: resolves(house, box, "allowed.test"))


def test_table_that_is_flushed_comes_back(house: House, box: str) -> None:
    record = json.loads(Path(house.bundle(box).record).read_text())
    pid = str(record["container_pid"])
    house.podman("unshare", "nsenter", f"--net=/proc/{pid}/ns/net", "nft", "flush", "ruleset")

    def back() -> bool:
        return house.terok("shield", "status", box, check=False).returncode == 0

    until(back)
    log = json.loads(house.terok("shield", "logs", "--container", box, "--json").stdout)
    assert any(each["event"] == "restored" for each in log)


@in_sets
def test_learn_prints_the_least_profile(house: House, box: str) -> None:
    house.terok("shield", "learn", box)
    assert resolves(house, box, "denied.test")
    house.podman("exec", box, "nc", "-w", "1", "192.88.99.66", "443", check=False)
    house.podman("exec", box, "nc", "-w", "1", "192.88.99.77", "8022", check=False)
    house.terok("shield", "up", box)

    def said() -> list[str]:
        profile: list[str] = json.loads(house.terok("shield", "learn", box, "--print", "--json").stdout)["profile"]
        return profile

    until(lambda: said() == ["denied.test", "192.88.99.77:8022"], why=said)


@pytest.fixture
def static(house: House, network: str) -> Iterator[None]:
    """Meanwhile names are resolved on the host, as where dnsmasq cannot teach the firewall."""
    house.terok("config", "set", "shield.dns", "static")
    yield
    house.terok("config", "set", "shield.dns", "auto")


@in_sets
def test_names_without_a_capable_dnsmasq(house: House, static: None, name: str, resolver: Resolver) -> None:
    house.start_box(name, "allowed.test", "*.wild.test")
    known = house.podman("exec", name, "cat", "/etc/hosts").stdout
    assert "192.88.99.10 allowed.test" in known and "denied" not in known
    said = json.loads(house.terok("shield", "status", name, "--json").stdout)
    assert said["names"].startswith("static") and said["enforced"] is True
    house.terok("shield", "allow", name, "denied.test")
    assert "192.88.99.66 denied.test" in house.podman("exec", name, "cat", "/etc/hosts").stdout
    sets = json.loads(house.terok("shield", "rules", name, "--nft", "--json").stdout)["sets"]
    assert sets["static4_web_host"]["elem"] == ["192.88.99.10", "192.88.99.66"]
    house.terok("shield", "deny", name, "denied.test")
    assert "denied" not in house.podman("exec", name, "cat", "/etc/hosts").stdout
    sets = json.loads(house.terok("shield", "rules", name, "--nft", "--json").stdout)["sets"]
    assert sets["static4_web_host"]["elem"] == ["192.88.99.10"]
    assert "allowed.test" in house.terok("shield", "resolve", name).stdout
    # what the supervisor starts once an hour, in the user namespace in which it would
    generation = json.loads(Path(house.bundle(name).shield).read_text())["generation"]
    script = Path(package_root()) / "sidecars" / "shield" / "refresh.py"
    house.podman("unshare", sys.executable, "-I", "-S", str(script), house.bundle(name).root)
    assert json.loads(Path(house.bundle(name).shield).read_text())["generation"] == generation + 1
    assert "192.88.99.10 allowed.test" in house.podman("exec", name, "cat", "/etc/hosts").stdout


@pytest.fixture
def bridged(house: House, name: str, resolver: Resolver) -> Iterator[str]:
    """A container on a bridge of its own, which netavark makes in a network namespace of Podman's."""
    yield house.start_box(name, "allowed.test", "192.88.99.20:8443", network="bridge")


def test_bridge(house: House, bridged: str) -> None:
    assert resolves(house, bridged, "allowed.test")
    assert not resolves(house, bridged, "denied.test")
    assert json.loads(house.terok("shield", "status", bridged, "--json").stdout)["enforced"] is True
    with socket.create_server(("192.88.99.20", 8443)), socket.create_server(("192.88.99.20", 8444)):
        reach = "nc -w 3 192.88.99.20 {} -e true"
        assert house.podman("exec", bridged, "sh", "-c", reach.format(8443), check=False).returncode == 0
        assert house.podman("exec", bridged, "sh", "-c", reach.format(8444), check=False).returncode != 0
    house.terok("shield", "allow", bridged, "denied.test")
    assert resolves(house, bridged, "denied.test")
