"""Any process of ours may be killed at any moment of a start or a stop: the start is refused or the container is safe,
and once it is removed nothing of ours is left.

The moment is left to chance, so a failure names the seed, the process and the delay; one that happens once is a bug.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import leaks
from tests.lab.house import House
from tests.lab.scope import furnish
from tests.lab.waiting import until

pytestmark = pytest.mark.usefixtures("network")

KILLS = 40
START, STOP, VERB = (0.045, 0.13), (0.0, 0.1), (0.06, 0.2)
"""Seconds from a command's start in which what is killed is at work, on a machine with two processors."""


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house of this file's own, whose processes are the only ones of their kind here."""
    made = House.build()
    furnish(made)
    made.podman("run", "--rm", made.image, "true")  # what Podman itself makes once and keeps
    yield made
    made.destroy()


@pytest.fixture
def flags(house: House, name: str) -> list[str]:
    """The wiring of a container with every service."""
    wiring: list[str] = json.loads(
        house.terok("prepare", name, "--scope", "work", "--profiles", "lab", "--json").stdout
    )
    return wiring


def ours(house: House) -> list[tuple[int, str]]:
    """Every process of ours in this house: hooks, supervisor, standby, their children, dnsmasq."""
    found = []
    for each in Path("/proc").iterdir():
        try:
            comm, command = (each / "comm").read_text().strip(), (each / "cmdline").read_bytes().decode()
        except (OSError, ValueError):
            continue
        if each.name.isdigit() and str(house.base) in command and ("hookbin" in command or comm == "dnsmasq"):
            found.append((int(each.name), f"{comm} {command.replace(chr(0), ' ')}"))
    return found


def kill_one(house: House, chance: random.Random) -> str:
    """Kill one of ours, if there is one; returns what it was."""
    found = ours(house)
    if not found:
        return "nobody"
    pid, what = chance.choice(found)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return "nobody"
    return what


def podman(house: House, *words: str) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen(["podman", *words], env=house.env, cwd=house.home, stdin=null, stdout=null, stderr=null)


def safe(house: House, name: str, told: str = "") -> None:
    """Its firewall is as it should be and its resolver answers, as soon as the killed process is replaced."""

    def now() -> bool:
        said = house.podman("exec", name, "nslookup", "not-allowed.test", "127.0.0.1", check=False)
        return "NXDOMAIN" in said.stdout and house.terok("shield", "status", name, check=False).returncode == 0

    until(now, 10, why=told)


@pytest.mark.parametrize("phase", ["start", "stop"])
def test_a_kill_at_any_moment(house: House, name: str, flags: list[str], phase: str) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    before: Any = leaks.take(house, bundles=False)
    for number in range(KILLS):
        if phase == "stop":
            house.podman("run", "--detach", *flags, house.image, "sleep", "1000")
        words = (
            ("stop", "--time", "0", name)
            if phase == "stop"
            else ("run", "--detach", *flags, house.image, "sleep", "1000")
        )
        process = podman(house, *words)
        delay = chance.uniform(*(START if phase == "start" else STOP))
        time.sleep(delay)
        killed = kill_one(house, chance)
        told = f"seed {seed}, kill {number} after {delay * 1000:.0f} ms: {killed}"
        code = process.wait(60)
        assert code in ((0, 125, 126, 127) if phase == "start" else (0,)), told
        if phase == "start" and code == 0:
            safe(house, name, told)
        house.podman("rm", "--force", "--time", "0", "--ignore", name)
        rest = leaks.left(house, before, within=5, bundles=False)
        assert not rest, f"{told}\nleft behind:\n" + "\n".join(rest)


def test_a_live_verb_that_is_killed(house: House, name: str, flags: list[str]) -> None:
    """The supervisor puts in force what the files say by then, old or new; the next verb goes on from there."""
    house.podman("run", "--detach", *flags, house.image, "sleep", "1000")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)

    def enforced() -> bool:
        return house.terok("shield", "status", name, check=False).returncode == 0

    for number in range(KILLS):
        verb, *words = chance.choice((("deny", "two.test:8443"), ("deny", "192.88.99.66"), ("forget", "two.test:8443")))
        process = subprocess.Popen(
            [str(house.program), "shield", verb, name, *words], env=house.env, stdout=subprocess.DEVNULL
        )
        delay = chance.uniform(*VERB)
        time.sleep(delay)
        process.kill()
        process.wait()
        told = f"seed {seed}, kill {number}: {verb} {words[0]} after {delay * 1000:.0f} ms"
        until(enforced, 10, why=told)
    house.terok("shield", "reset", name)
    safe(house, name)
