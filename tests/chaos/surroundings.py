"""What is done to a container's surroundings: the clock, the disk, the program itself, Podman in the middle of a start.

Mounts are made in Podman's own mount namespace, which the hooks and all that they start share: `podman unshare` enters
it, and it ends with the house.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terok_host.supervisor import record
from tests.chaos.world import ROLES, Box, Canary, Row, box, flags, judge, strike
from tests.lab import leaks
from tests.lab.house import House
from tests.lab.waiting import until

ROOT = Path(__file__).parent.parent.parent
WHEELS = ROOT / "build" / "chaos"
"""The previous release's wheel and this one's, in `old` and `new`; see wheels.sh."""
YEAR = 365 * 86400
JUMPS = {
    "a day ahead": 86400,
    "a day back": -86400,
    "to 2039": 13 * YEAR,
    "to 1996": -30 * YEAR,
    "five minutes back": -300,
}
STARTS = 20
MOMENTS = {"podman": (0.0, 0.25), "conmon": (0.0, 0.1), "crun": (0.0, 0.05)}
"""Seconds in which a program of Podman's is killed, from its own beginning."""


def unshared(house: House, script: str, *words: str) -> None:
    """Run a script in Podman's user and mount namespace."""
    house.podman("unshare", "sh", "-euc", script, "sh", *words)


@contextmanager
def clock(house: House) -> Iterator[Path]:
    """A wall clock that can be set, for all that is started from now on; yields the file with its shift."""
    place = house.base / "clock"
    place.mkdir()
    shift, library, etc = place / "shift", place / "clock.so", place / "etc"
    shift.write_bytes(struct.pack("q", 0))
    source = str(Path(__file__).parent / "clock.c")
    house.run(["cc", "-shared", "-fPIC", "-O1", f'-DSHIFT="{shift}"', "-o", str(library), source])
    # a copy of what may be read: a file cannot be added to the machine's own directory, nor an overlay laid over it
    house.run(["cp", "--archive", "--no-preserve=ownership", "/etc", str(etc)], check=False)
    (etc / "ld.so.preload").write_text(f"{library}\n")
    unshared(house, 'mount --bind "$1" /etc', str(etc))
    house.env["LD_PRELOAD"] = str(library)
    try:
        yield shift
    finally:
        del house.env["LD_PRELOAD"]
        unshared(house, "umount -l /etc")


def clocks(house: House, canary: Canary, _chance: random.Random) -> Iterator[Row]:
    """The wall clock jumps, for supervisor, services, resolver and the operator's own commands."""
    with clock(house) as shift, box(house, canary) as one:
        for what, seconds in JUMPS.items():
            one.load(on=True)
            set_clock(shift, seconds)
            seen = house.podman("unshare", "date", "+%s").stdout
            assert abs(int(seen) - time.time() - seconds) < 60, f"the clock stands at {seen}"
            took = one.recovered()
            # a process that starts at the other time, too
            for role in ("vault", "ssh", "supervisor"):
                strike(one, role, signal.SIGKILL)
                took = max(took, one.recovered())
            judge(one)
            yield Row(f"the wall clock jumps {what}", "under load", 1, took)
        set_clock(shift, 0)
        one.recovered()


def set_clock(shift: Path, seconds: int) -> None:
    """Shift the clock from now on; in place, since every process has the file mapped."""
    with shift.open("r+b") as file:
        file.write(struct.pack("q", seconds))


def disks(house: House, canary: Canary, _chance: random.Random) -> Iterator[Row]:
    """State and runtime directories turn read-only, every process is killed, and the disk is writable again."""
    places = [str(Path(house.layout.containers).parent), house.layout.runtime]
    with box(house, canary) as one:
        for role in ROLES:
            one.load(on=True)
            one.recovered()
            for place in places:
                unshared(house, 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"', place)
            try:
                strike(one, role, signal.SIGKILL)
                one.asked()
                judge(one)
            finally:
                for place in places:
                    unshared(house, 'mount -o remount,bind,rw "$1"; umount -l "$1"', place)
            took = one.recovered(30)
            judge(one)
            yield Row(f"read-only disk, and SIGKILL to {role}", "under load", 1, took)


def killed(house: House, canary: Canary, chance: random.Random, *, starts: int = STARTS) -> Iterator[Row]:
    """Podman's own processes are killed in the middle of a start; what runs nevertheless is as safe as any."""
    words, before = flags(house, "killed"), leaks.take(house, bundles=False)
    for program in ("podman", "conmon", "crun"):
        kills, lost, slowest = 0, 0, 0.0
        for number in range(starts):
            delay = chance.uniform(*MOMENTS[program])
            kills += killed_start(house, words, program, delay)
            one, told = Box(house, "killed", canary), f"{program}, kill {number} after {delay * 1000:.0f} ms"
            if program != "conmon" and is_running(one):
                slowest = max(slowest, one.recovered(why=told))
                judge(one)
            house.podman("rm", "--force", "--time", "0", "--ignore", one.name, check=False)
            lost += end_unlisted(one)
            rest = leaks.left(house, before, within=10, bundles=False)
            assert not rest, f"{told}: left behind:\n" + "\n".join(rest)
        yield Row(f"SIGKILL to {program}", "starting", kills, slowest or None)
        if lost:
            yield Row(
                f"of these, containers that run and Podman does not list; doctor ends them ({program})", "-", lost, None
            )


def is_running(one: Box) -> bool:
    """Whether Podman knows it as running."""
    state = one.house.podman("inspect", "--format", "{{.State.Running}}", one.name, check=False)
    return state.stdout.strip() == "true"


def killed_start(house: House, words: list[str], program: str, delay: float) -> bool:
    """Start a container, and kill one of Podman's programs so many seconds after its beginning; whether it ran then."""
    command, null = ["podman", "run", "--detach", *words, house.image, "sleep", "1000"], subprocess.DEVNULL
    with subprocess.Popen(command, env=house.env, cwd=house.home, stdin=null, stdout=null, stderr=null) as run:
        pid = until(lambda: run.poll() is not None or find(house, run.pid, program), 30)
        time.sleep(delay)  # the moment itself is left to chance
        hit = not isinstance(pid, bool)
        if hit:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                hit = False  # it had done its work
        try:
            run.wait(10)
        except subprocess.TimeoutExpired:
            run.kill()  # with no hook at all, too, `podman run` sometimes waits forever for a runtime that was killed
    return hit


def find(house: House, run: int, program: str) -> int | None:
    """The process of `podman run` itself, or of the monitor, or of the runtime that the monitor has started."""
    if program == "podman":
        return run
    base = str(house.base)
    for entry in Path("/proc").iterdir():
        name, command = leaks.read(entry / "comm").strip(), leaks.read(entry / "cmdline")
        if entry.name.isdigit() and name == program and base in command:
            return int(entry.name)
    return None


def end_unlisted(one: Box) -> bool:
    """End a container that Podman made and, killed, did not note; False when there is none.

    It is guarded as long as it lives, and `doctor` says which command ends it.
    """
    known = record.read(one.house.bundle(one.name).record)
    if known is None or not known.alive():
        return False
    judge(one)
    assert known.supervisor is not None and known.phase in (record.READY, "starting")
    checks = json.loads(one.house.terok("doctor", "--json", check=False).stdout)
    fixes = [check["fix"] for check in checks["checks"] if check["what"] == "unlisted containers"]
    assert fixes or not known.alive(), checks
    if fixes:
        one.house.run(fixes[0].split())
    return bool(fixes)


def upgrade(house: House, canary: Canary, _chance: random.Random) -> Iterator[Row]:
    """The previous release is replaced in its place while its containers run."""
    venv = installed(house)
    house.program = venv / "bin/terok"
    with upgraded(house, canary, venv) as one:
        one.load(on=True)
        yield Row("upgraded in its place, then terok setup", "under load", 1, one.recovered(30))
        for role in ROLES:
            strike(one, role, signal.SIGKILL)
            took = one.recovered(30)
            judge(one)
            yield Row(f"upgraded, SIGKILL to {role} of the previous release", "under load", 1, took)
    with upgraded(house, canary, venv) as one:
        house.terok("heal", one.name)
        yield Row("upgraded, then terok heal", "in use", 1, one.recovered(30))
        house.podman("stop", "--time", "0", one.name)
        house.podman("start", one.name)
        yield Row("upgraded, then podman stop and start", "in use", 1, one.recovered(30))


@contextmanager
def upgraded(house: House, canary: Canary, venv: Path) -> Iterator[Box]:
    """A container of the previous release that runs, and the present one installed over it."""
    install(venv, "old")
    house.terok("setup")
    with box(house, canary) as one:
        install(venv, "new")
        house.terok("setup")
        yield one
    house.terok("cleanup", one.name)


def installed(house: House) -> Path:
    """A virtual environment of the house's own for one of the wheels; dependencies are copies of this one's."""
    venv = house.base / "venv"
    house.run([os.path.realpath(sys.executable), "-m", "venv", str(venv)], timeout=120)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = Path(sys.prefix) / "lib" / name / "site-packages"
    for entry in packages.iterdir():
        target = venv / "lib" / name / "site-packages" / entry.name
        if "terok" not in entry.name and entry.suffix != ".pth" and not target.exists():
            (shutil.copytree if entry.is_dir() else shutil.copy)(entry, target)
    return venv


def install(venv: Path, which: str) -> None:
    """Install one of the two wheels over what is there."""
    (wheel,) = (WHEELS / which).glob("*.whl")
    words = ["install", "--quiet", "--no-index", "--no-deps", "--force-reinstall", "--disable-pip-version-check"]
    done = subprocess.run(
        [str(venv / "bin/python"), "-m", "pip", *words, str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
