"""Attacks from inside a container on its own termination of TLS, through the relay: floods, and another's authority."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from terok_host.supervisor import record
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.upstream import Upstream

from .test_tls import CODE, HOST, URL, inside, start

ASK = f'curl -sS -m 60 {CODE} -H "x-api-key: $ANTHROPIC_API_KEY" {URL}'
SLOW, FLOOD = (Path(__file__).parents[1] / "netns" / name for name in ("slow.py", "flood.py"))


def attack(house: House, name: str, script: Path, *words: str) -> subprocess.Popen[str]:
    """A Python script in the container's network, begun."""
    pid = house.podman("inspect", "--format", "{{.State.Pid}}", name).stdout.strip()
    argv = ["podman", "unshare", "nsenter", "-t", pid, "-n", sys.executable, str(script), *words]
    return subprocess.Popen(argv, env=house.env, cwd=house.home, stdout=subprocess.PIPE, text=True)


def memory(house: House, name: str) -> dict[str, float]:
    """MiB of the vault and the relay: resident, since a process that is not dumpable shows no more."""
    known = record.read(house.bundle(name).record)
    assert known is not None
    pids = {role: known.service(role).process for role in ("vault", "airlock")}
    return {
        role: int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) / 256
        for role, process in pids.items()
        if process is not None
    }


@pytest.mark.parametrize("network", ["airlock", "auto"])
def test_ten_thousand_handshakes_at_once(house: House, name: str, vendor: Upstream, network: str) -> None:
    start(house, name, network)
    assert inside(house, name, ASK) == "200"
    before = memory(house, name)
    most = dict(before)
    with attack(house, name, FLOOD, address(house, name), "443", HOST, "10000", "60") as flood:
        while flood.poll() is None:
            most = {role: max(most[role], now) for role, now in memory(house, name).items()}
            time.sleep(0.2)
        assert flood.stdout is not None
        answered, ended = map(int, flood.stdout.read().split())
    print(network, before, most, answered, ended)
    assert answered + ended == 10000 and answered > 5000
    assert most["vault"] - before["vault"] < 64 and most["airlock"] - before["airlock"] < 64
    assert inside(house, name, ASK) == "200"


def test_ten_thousand_slow_ones(house: House, name: str, vendor: Upstream) -> None:
    """A byte a second: each has its ten seconds, those behind it wait, and when they go the container is served."""
    start(house, name)
    assert inside(house, name, ASK) == "200"
    before = memory(house, name)
    with attack(house, name, SLOW, address(house, name), "443", "10000", "25") as flood:
        until(lambda: "slow-handshake" in Path(house.bundle(name).audit).read_text(), 20)
        most = memory(house, name)
        assert flood.wait(60) == 0
    print(before, most)
    assert most["vault"] - before["vault"] < 64 and most["airlock"] - before["airlock"] < 64
    assert until(lambda: inside(house, name, ASK) == "200", 30)


def address(house: House, name: str) -> str:
    """What the host's name is inside."""
    said = inside(house, name, f"nslookup -type=a {HOST} 127.0.0.1")
    return said.rpartition("Address: ")[2].strip()


def test_another_containers_authority_is_worth_nothing(house: House, name: str, vendor: Upstream) -> None:
    """Each trusts its own; one that is made to trust the other's does not get to its own provider with it."""
    other = f"{name}-other"
    start(house, name)
    start(house, other)
    try:
        first = inside(house, name, "cat /run/terok/authority.pem")
        assert first not in inside(house, other, "cat /run/terok/ca.pem /run/terok/authority.pem")
        (house.base / "first.pem").write_text(first)
        house.podman("cp", str(house.base / "first.pem"), f"{other}:/first.pem")
        assert "(60)" in inside(house, other, f"{ASK} --cacert /first.pem")
        assert '"distrust"' in until(lambda: Path(house.bundle(other).audit).read_text())
        # and a token of the first is no token in the second
        token = inside(house, name, "printf %s $ANTHROPIC_API_KEY")
        said = inside(house, other, f'curl -sS -m 20 -H "x-api-key: {token}" {URL}')
        assert "foreign-credential" in said and token not in str(vendor.seen[-1].headers)
        assert inside(house, other, ASK) == "200"
    finally:
        house.podman("rm", "--force", "--time", "0", other)
        house.terok("cleanup", other)
