"""What holds a container's services together: guarding its firewall, healing, and containers that are refused."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab import leaks
from tests.lab.house import House
from tests.lab.waiting import until

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
ADDRESS = "203.0.113.77"


def record(house: House, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(house.bundle(name).record).read_text())
    return read


def audit(house: House, name: str) -> list[dict[str, Any]]:
    path = Path(house.bundle(name).audit)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def in_network(house: House, name: str, *command: str, check: bool = True) -> str:
    """Run a program of the host in the container's network namespace."""
    pid = str(record(house, name)["container_pid"])
    return house.podman("unshare", "nsenter", "--net", "--target", pid, *command, check=check).stdout


def resolves(house: House, name: str) -> bool:
    return "NXDOMAIN" in house.podman("exec", name, "nslookup", "not-allowed.test", check=False).stdout


@pytest.fixture
def shielded(house: House, name: str, network: str) -> Iterator[str]:
    house.terok("run", name, "--", "--detach", house.image, *PATIENT)
    yield name
    house.podman("rm", "--force", "--time", "0", name)


def test_a_flushed_firewall_is_restored_and_the_audit_says_so(house: House, shielded: str) -> None:
    before = in_network(house, shielded, "nft", "list", "table", "inet", "terok")
    in_network(house, shielded, "nft", "flush", "ruleset")
    until(lambda: [line for line in audit(house, shielded) if line["event"] == "restored"])
    assert in_network(house, shielded, "nft", "list", "table", "inet", "terok") == before


def test_an_added_rule_is_taken_away(house: House, shielded: str) -> None:
    before = in_network(house, shielded, "nft", "list", "table", "inet", "terok")
    in_network(house, shielded, "nft", "insert", "rule", "inet", "terok", "output", "accept")
    until(lambda: in_network(house, shielded, "nft", "list", "table", "inet", "terok") == before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_start_that_is_killed_in_the_middle_is_refused_and_leaves_nothing(
    house: House, name: str, number: signal.Signals
) -> None:
    """Its firewall is read from a pipe that nobody fills: dnsmasq, the mounts and the sockets are there already."""
    before = leaks.take(house, bundles=False)
    flags = house.terok("prepare", name).stdout.split()
    bundle = house.bundle(name)
    os.unlink(bundle.ruleset)
    os.mkfifo(bundle.ruleset, 0o600)

    def started() -> dict[str, Any]:
        now = record(house, name) if os.path.exists(bundle.record) else {}
        return now if now.get("phase") == "starting" and "dnsmasq" in now["sidecars"] else {}

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(house.podman, "run", *flags, house.image, "true", check=False)
        now = until(started)
        assert os.path.exists(f"/proc/{now['sidecars']['dnsmasq']['pid']}")
        os.kill(now["pid"], number)
        assert done.result().returncode == 126
    house.podman("rm", "--force", "--time", "0", name)
    rest = leaks.left(house, before, within=3, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)


def test_a_killed_supervisor_leaves_firewall_and_resolver_in_place(house: House, shielded: str) -> None:
    first = until(lambda: (now := record(house, shielded))["standby"] and now)
    os.kill(first["pid"], signal.SIGKILL)
    second = until(lambda: (now := record(house, shielded))["pid"] not in (None, first["pid"]) and now)
    assert second["pid"] == first["standby"]["pid"]
    assert second["sidecars"]["dnsmasq"]["pid"] == first["sidecars"]["dnsmasq"]["pid"]
    assert resolves(house, shielded)


def test_a_killed_dnsmasq_is_started_again(house: House, shielded: str) -> None:
    first = record(house, shielded)["sidecars"]["dnsmasq"]["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: record(house, shielded)["sidecars"]["dnsmasq"]["pid"] not in (None, first))
    until(lambda: resolves(house, shielded))
    assert record(house, shielded)["sidecars"]["dnsmasq"]["restarts"] == 1


def test_heal_brings_back_what_a_killed_pair_took_along(house: House, shielded: str) -> None:
    said = house.terok("heal", shielded)
    assert "already has a supervisor" in said.stdout
    before = record(house, shielded)
    for pid in (before["standby"]["pid"], before["pid"]):
        os.kill(pid, signal.SIGKILL)
    assert json.loads(house.terok("heal", shielded, "--json").stdout) == {"container": shielded, "healed": True}
    after = record(house, shielded)
    assert after["phase"] == "ready" and after["container_pid"] == before["container_pid"]
    assert resolves(house, shielded)
    assert "already has a supervisor" in house.terok("heal", shielded).stdout


def test_heal_of_what_does_not_run_says_so(house: House, name: str) -> None:
    assert house.terok("heal", name, check=False).returncode == 3


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--cap-add=NET_ADMIN",), "may use CAP_NET_ADMIN"),
        (("--cap-add=NET_RAW",), "may use CAP_NET_RAW"),
        (("--privileged",), "may use CAP_NET_ADMIN and CAP_NET_RAW"),
    ],
    ids=("net_admin", "net_raw", "privileged"),
)
def test_a_container_that_could_undo_its_firewall_is_refused(
    house: House, name: str, flags: tuple[str, ...], reason: str
) -> None:
    printed: list[str] = json.loads(house.terok("prepare", name, "--json").stdout)
    kept = [word for word in printed if word not in ("--cap-drop", "NET_ADMIN", "NET_RAW")]
    done = house.podman("run", "--detach", *kept, *flags, house.image, *PATIENT, check=False)
    assert done.returncode != 0
    assert reason in Path(house.bundle(name).hook_error).read_text()


def test_a_container_in_the_network_of_another_is_refused(house: House, name: str) -> None:
    house.podman("run", "--detach", "--name", f"{name}-other", "--network=none", house.image, *PATIENT)
    try:
        printed: list[str] = json.loads(house.terok("prepare", name, "--network", "auto", "--json").stdout)
        at = printed.index("--network")
        printed[at + 1] = f"container:{name}-other"
        done = house.podman("run", "--detach", *printed, house.image, *PATIENT, check=False)
    finally:
        house.podman("rm", "--force", "--time", "0", "--ignore", name)
        house.podman("rm", "--force", "--time", "0", f"{name}-other")
    assert done.returncode != 0
    assert "joins the network of another" in Path(house.bundle(name).hook_error).read_text()


def test_a_resolver_that_cannot_start_refuses_the_container_with_its_own_words(house: House, name: str) -> None:
    printed: list[str] = json.loads(house.terok("prepare", name, "--json").stdout)
    with Path(house.bundle(name).dnsmasq_conf).open("a") as conf:
        conf.write("no-such-option\n")
    began = time.monotonic()
    done = house.podman("run", "--detach", *printed, house.image, *PATIENT, check=False)
    assert done.returncode != 0 and time.monotonic() - began < 4
    assert "bad option at line" in Path(house.bundle(name).hook_error).read_text()


def test_a_container_that_asks_for_nothing_has_no_reader(house: House, shielded: str) -> None:
    # the record names services that start later once its supervisor is through with what the start waits for
    services = until(lambda: "audit" in (now := record(house, shielded)["sidecars"]) and now)
    assert (services["audit"]["state"], services["audit"]["pid"]) == ("waiting", None)
    assert services["dnsmasq"]["state"] == "running"


def test_the_audit_names_what_was_refused(house: House, shielded: str, network: str) -> None:
    house.podman("exec", shielded, "nslookup", "exfiltrate.example", check=False)
    line = until(lambda: [each for each in audit(house, shielded) if each.get("name") == "exfiltrate.example"])[0]
    assert (line["source"], line["event"], line["verdict"]) == ("shield", "dns", "refused")
    assert line["allow"] == f"terok shield allow {shielded} exfiltrate.example"
    place, key, event = ("github.com", "name", "connection") if network == "airlock" else (ADDRESS, "address", "packet")
    house.podman("exec", shielded, "nc", "-w", "3", place, "8080", check=False)
    line = until(
        lambda: [each for each in audit(house, shielded) if (each.get(key), each.get("port")) == (place, 8080)]
    )[0]
    assert (line["event"], line["verdict"], line["proto"]) == (event, "refused", "tcp")
