"""What is done to containers. Each scenario takes the house, the canary and a generator of chances, and yields rows."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.chaos import surroundings
from tests.chaos.world import ROLES, Box, Canary, Row, box, flags, judge, strike
from tests.lab import leaks
from tests.lab.house import House
from tests.lab.waiting import until

Scenario = Callable[[House, Canary, random.Random], Iterator[Row]]
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGSEGV": signal.SIGSEGV, "SIGSTOP": signal.SIGSTOP}
STATES = ("idle", "in use", "under load")


def matrix(
    house: House, canary: Canary, _chance: random.Random, *, signals: tuple[str, ...] = tuple(SIGNALS)
) -> Iterator[Row]:
    """Every process of terok, each signal, in each state."""
    with box(house, canary) as one:
        for state in STATES:
            one.load(on=state == "under load")
            for role in ROLES:
                for name in signals:
                    if state != "idle":
                        one.recovered()
                    if strike(one, role, SIGNALS[name]):
                        took = one.recovered()
                        judge(one)
                        yield Row(f"{name} to {role}", state, 1, took)


def monitor(house: House, canary: Canary, _chance: random.Random) -> Iterator[Row]:
    """Podman's monitor of the container, without which Podman takes it for ended."""
    with box(house, canary) as one:
        conmon = one.process("conmon")
        strike(one, "conmon", signal.SIGKILL)
        assert conmon is not None
        until(lambda: not os.path.exists(f"/proc/{conmon.pid}"))
        yield Row("SIGKILL to conmon", "in use", 1, None)


def storm(house: House, canary: Canary, chance: random.Random, *, seconds: float = 60.0) -> Iterator[Row]:
    """Five kills a second of any of terok's processes, under load."""
    with box(house, canary) as one:
        one.load(on=True)
        end, kills = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            kills += strike(one, chance.choice(ROLES), signal.SIGKILL)
            time.sleep(0.2)
        yield Row("SIGKILL to any process, five a second", "under load", kills, one.recovered(30))


def exhaustion(house: House, canary: Canary, _chance: random.Random) -> Iterator[Row]:
    """No descriptors (EMFILE), no processes (EAGAIN), no room on the disk (EFBIG), in each process for two seconds."""
    limits = {
        "no descriptor": resource.RLIMIT_NOFILE,
        "no process": resource.RLIMIT_NPROC,
        "no room on the disk": resource.RLIMIT_FSIZE,
    }
    with box(house, canary) as one:
        one.load(on=True)
        for role in ROLES:
            for what, kind in limits.items():
                one.recovered()
                process = one.process(role)
                if process is None:
                    continue
                soft, hard = resource.prlimit(process.pid, kind)
                resource.prlimit(process.pid, kind, (3 if kind == resource.RLIMIT_NOFILE else 0, hard))
                time.sleep(2)
                try:
                    resource.prlimit(process.pid, kind, (soft, hard))
                except ProcessLookupError:
                    pass  # it gave up, and another one has its place
                took = one.recovered(40)
                judge(one)
                yield Row(f"{what} for {role}", "under load", 1, took)


def lost(house: House, canary: Canary, _chance: random.Random) -> Iterator[Row]:
    """The runtime directory and the state bundle are deleted while the container runs."""
    with box(house, canary) as one:
        shutil.rmtree(house.layout.runtime_dir(one.name))
        began = time.monotonic()
        house.terok("heal", one.name)
        one.recovered()
        yield Row("runtime directory deleted, then terok heal", "in use", 1, time.monotonic() - began)
    with box(house, canary, "bundleless") as one:
        shutil.rmtree(house.bundle(one.name).root)
        one.asked()
        judge(one)
        yield Row("state bundle deleted", "in use", 1, None)


def many(house: House, canary: Canary, _chance: random.Random, *, count: int = 100) -> Iterator[Row]:
    """Many containers at once, started four at a time; their supervisors are all killed."""
    before, names = leaks.take(house, bundles=False), [f"many-{number}" for number in range(count)]

    def start(name: str) -> Box:
        house.podman("run", "--detach", *flags(house, name), house.image, "sleep", "1000")
        return Box(house, name, canary)

    try:
        with ThreadPoolExecutor(4) as pool:
            boxes = list(pool.map(start, names))
        for one in boxes:
            strike(one, "supervisor", signal.SIGKILL)
        slowest = max(one.recovered(60) for one in boxes)
    finally:
        house.podman("rm", "--force", "--time", "0", "--ignore", *names, timeout=300)
    rest = leaks.left(house, before, within=20, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)
    yield Row("containers at once, every supervisor killed", "idle", count, slowest)


def cycles(house: House, _canary: Canary, _chance: random.Random, *, count: int = 500) -> Iterator[Row]:
    """One container started and removed again and again; nothing grows."""
    words, before = flags(house, "cycle"), leaks.take(house, bundles=False)
    for _ in range(count):
        house.podman("run", "--rm", *words, house.image, "true")
    rest = leaks.left(house, before, within=10, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)
    yield Row("start and removal", "-", count, None)


SCENARIOS: dict[str, Scenario] = {
    "matrix": matrix,
    "monitor": monitor,
    "storm": storm,
    "exhaustion": exhaustion,
    "lost": lost,
    "clocks": surroundings.clocks,
    "disks": surroundings.disks,
    "killed": surroundings.killed,
    "upgrade": surroundings.upgrade,
    "many": many,
    "cycles": cycles,
}
