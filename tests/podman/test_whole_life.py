"""Whole containers: every service wired by `terok`, through the lives that Podman gives them."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor import record
from tests.lab import leaks, scope
from tests.lab.house import House
from tests.lab.waiting import until
from tests.lab.wakeups import woken
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

pytestmark = pytest.mark.usefixtures("network")

LIVE = ("sleep", "1000")
WIRING = ("--scope", scope.SCOPE, "--profiles", scope.PROFILE)
ASK = 'curl -sS -m 20 -o /dev/null -w "%{http_code}" -H "x-api-key: $ANTHROPIC_API_KEY" $TEROK_URL_ANTHROPIC/v1/models'

REFUSED_WITHIN = 0.5
"""Seconds; a retransmission alone would take 1."""


@pytest.fixture(scope="module")
def world(vendor: Upstream, resolver: Resolver) -> Iterator[Upstream]:
    """The scope's provider on its stand-in address, a web server on the allowed and one on the denied address."""
    with (
        Upstream(None, resolver.records[scope.ALLOWED][0], 80),
        Upstream(None, resolver.records[scope.DENIED][0], 80),
    ):
        yield vendor


def flags(house: House, name: str) -> list[str]:
    printed: list[str] = json.loads(house.terok("prepare", name, *WIRING, "--json").stdout)
    return printed


def inside(house: House, name: str, script: str) -> str:
    return house.podman("exec", name, "sh", "-c", script, check=False).stdout


def all_services_work(house: House, name: str, provider: Upstream) -> None:
    """Use the vault, the signer, an allowed name, and be refused a denied address."""
    assert inside(house, name, ASK) == "200"
    assert provider.seen[-1].header("x-api-key") == scope.SECRET
    assert "ED25519" in inside(house, name, "ssh-add -l")
    assert inside(house, name, f"curl -sS -m 5 -o /dev/null -w '%{{http_code}}' http://{scope.ALLOWED}/") == "200"
    for address in ("192.88.99.66", "[2001:2::66]"):
        code, seconds = inside(
            house, name, f"curl -s -m 5 -w '%{{exitcode}} %{{time_total}}' http://{address}/"
        ).split()
        assert code == "7" and float(seconds) < REFUSED_WITHIN, (address, code, seconds)


def gone(house: House, before: leaks.Traces) -> None:
    rest = leaks.left(house, before, within=1, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)


def tokens(house: House, name: str) -> dict[str, str]:
    words = inside(house, name, "env").split()
    return dict(word.split("=", 1) for word in words if word.startswith(("ANTHROPIC_API_KEY=", "TEROK_GATE_TOKEN=")))


def test_run_stop_start_and_clean_up(house: House, name: str, world: Upstream) -> None:
    before = leaks.take(house, bundles=False)
    house.terok("run", name, *WIRING, "--", "--detach", house.image, *LIVE)
    all_services_work(house, name, world)
    first = tokens(house, name)
    house.podman("stop", "--time", "0", name)
    gone(house, before)
    house.podman("start", name)
    all_services_work(house, name, world)
    assert tokens(house, name) == first
    house.podman("rm", "--force", "--time", "0", name)
    gone(house, before)
    assert f"{name}: removed" in house.terok("cleanup", name).stdout
    assert not Path(house.bundle(name).root).exists()
    assert "nothing to remove" in house.terok("cleanup", name).stdout


def test_printed_flags_are_enough(house: House, name: str, world: Upstream) -> None:
    """Words for a shell, pasted into `podman run`; terok is not asked again."""
    printed = house.terok("prepare", name, *WIRING).stdout
    house.podman("run", "--detach", *shlex.split(printed), house.image, *LIVE)
    all_services_work(house, name, world)


@pytest.mark.parametrize(
    "end", [("kill",), ("rm", "--force", "--time", "0"), ("stop", "--time", "0")], ids=lambda e: e[0]
)
def test_violent_ends_in_the_middle_of_use(house: House, name: str, world: Upstream, end: tuple[str, ...]) -> None:
    before = leaks.take(house, bundles=False)
    house.podman(
        "run", "--detach", *flags(house, name), house.image, "sh", "-c", f"while :; do {ASK}; ssh-add -l; done"
    )
    seen = len(world.seen)
    until(lambda: len(world.seen) >= seen + 3, 10)
    house.podman(*end, name)
    house.podman("wait", "--ignore", name, check=False)
    world.drop_connections()
    gone(house, before)


def test_exits_at_once(house: House, name: str, world: Upstream) -> None:
    before = leaks.take(house, bundles=False)
    house.podman("run", "--rm", *flags(house, name), house.image, "true")
    gone(house, before)


def test_ten_at_the_same_time(house: House, name: str, world: Upstream) -> None:
    before = leaks.take(house, bundles=False)
    names = [f"{name}-{number}" for number in range(10)]
    try:
        with ThreadPoolExecutor(4) as pool:
            prepared = dict(zip(names, pool.map(lambda each: flags(house, each), names), strict=True))
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda each: house.podman("run", "--detach", *prepared[each], house.image, *LIVE), names))
            assert list(pool.map(lambda each: inside(house, each, ASK), names)) == ["200"] * 10
            held = [tokens(house, each)["ANTHROPIC_API_KEY"] for each in names]
        assert len(set(held)) == 10
        # a token is worth nothing at another container's socket
        assert inside(house, names[0], ASK.replace("$ANTHROPIC_API_KEY", held[1])) == "401"
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda each: house.podman("rm", "--force", "--time", "0", each), names))
        gone(house, before)
    finally:
        house.podman("rm", "--force", "--time", "0", "--ignore", *names)
        house.terok("cleanup", *names)


@pytest.mark.parametrize("victim", ["supervisor", "standby", "vault", "ssh", "dnsmasq"])
def test_any_process_of_ours_may_be_killed(house: House, name: str, world: Upstream, victim: str) -> None:
    before = leaks.take(house, bundles=False)
    house.podman("run", "--detach", *flags(house, name), house.image, *LIVE)
    all_services_work(house, name, world)
    state = record.read(house.bundle(name).record)
    assert state is not None
    known = {service: process.pid for service, process in state.processes()}
    os.kill(known[victim], signal.SIGKILL)
    all_services_work(house, name, world)
    house.podman("stop", "--time", "0", name)
    gone(house, before)


def test_an_idle_container_costs_no_wake_up(house: House, name: str, world: Upstream) -> None:
    """Supervisor, standby and dnsmasq of a container that asks for nothing."""
    house.podman("run", "--detach", *flags(house, name), house.image, *LIVE)
    state = record.read(house.bundle(name).record)
    assert state is not None
    known = {service: process.pid for service, process in state.processes()}
    assert known.keys() == {"supervisor", "standby", "dnsmasq"}
    # the network tells dnsmasq when its addresses are final (duplicate address detection, RFC 4862): not idle yet
    woken(list(known.values()), seconds=5, log=house.base / "calls")
    assert woken(list(known.values()), seconds=20, log=house.base / "calls") == []


def spoil(house: House, name: str, file: str, content: bytes) -> None:
    path = Path(house.bundle(name).file(file))
    assert path.exists()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("ruleset.nft", b"this is no ruleset\n", "nft says"),
        ("ruleset.nft", b"add table inet terok\n", "firewall in force is not the expected one"),
        ("ruleset.json", b"{", "ruleset.json"),
        ("dnsmasq.conf", b"no-such-option\n", "dnsmasq"),
    ],
    ids=["broken ruleset", "ruleset that does nothing", "broken expectation", "broken dnsmasq.conf"],
)
def test_a_failing_hook_refuses_the_start(
    house: House, name: str, world: Upstream, file: str, content: bytes, reason: str
) -> None:
    """Fail closed: nothing runs, nothing is left, and the reason is in hook-error.log and in `terok status`."""
    prepared = flags(house, name)
    spoil(house, name, file, content)
    before = leaks.take(house, bundles=False)
    done = house.podman("run", "--rm", *prepared, house.image, "echo", "it ran", check=False)
    assert done.returncode not in (0, 127)
    assert "it ran" not in done.stdout
    gone(house, before)
    logged = Path(house.bundle(name).hook_error).read_text()
    assert "createRuntime: " in logged
    assert reason in logged
    status: dict[str, Any] = json.loads(house.terok("status", name, "--json").stdout)["containers"][0]
    assert status["state"] == "failed"
    assert reason in status["error"]
