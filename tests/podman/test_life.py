"""Lives of containers, as Podman gives them: what the supervisor holds meanwhile, and that nothing is left afterwards.

The wiring here is written by hand and has listeners but no work, so these tests are about the hooks, the supervisor
and its standby alone. Whole containers with every service are in test_whole_life.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab import leaks, wiring
from tests.lab.house import House
from tests.lab.waiting import until
from tests.lab.wakeups import woken

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
"""A container that lives until it is asked to end, and then ends at once."""


@pytest.fixture
def prepared(house: House, name: str) -> str:
    """The annotation of a container with a Unix socket and a loopback listener."""
    return wiring.annotation(wiring.write(house, name, wiring.with_signer(house, name)))


def record(house: House, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(house.bundle(name).record).read_text())
    return read


def start(
    house: House, name: str, annotation: str, *command: str, flags: tuple[str, ...] = ("--network=none",)
) -> None:
    house.podman("run", "--detach", "--name", name, *flags, annotation, house.image, *(command or PATIENT))


def inside(house: House, name: str, script: str) -> str:
    return house.podman("exec", name, "sh", "-c", script).stdout


def serves(house: House, name: str) -> bool:
    """Whether the container sees its runtime directory and its loopback listener."""
    return inside(house, name, "ls /run/terok; netstat -ltn | grep -o 127.0.0.1:9419").split() == [
        "ssh-agent.sock",
        "127.0.0.1:9419",
    ]


def gone(house: House, before: leaks.Traces) -> None:
    """Fails unless everything but the state bundles is as before, at once: Podman's command has returned already."""
    rest = leaks.left(house, before, within=3, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)


def test_run_stop_start_again(house: House, name: str, prepared: str) -> None:
    before = leaks.take(house, bundles=False)
    start(house, name, prepared)
    assert serves(house, name)
    first = record(house, name)
    assert first["phase"] == "ready"
    house.podman("stop", "--time", "5", name)
    gone(house, before)
    assert record(house, name)["phase"] == "ended"
    house.podman("start", name)
    assert serves(house, name)
    second = record(house, name)
    assert second["phase"] == "ready"
    assert second["sockets"] == first["sockets"]
    assert (second["pid"], second["start_time"]) != (first["pid"], first["start_time"])
    house.podman("restart", "--time", "5", name)
    assert serves(house, name)
    house.podman("stop", "--time", "5", name)
    gone(house, before)


@pytest.mark.parametrize(
    "end", [("kill",), ("rm", "--force", "--time", "0"), ("stop", "--time", "0")], ids=lambda end: end[0]
)
def test_violent_ends(house: House, name: str, prepared: str, end: tuple[str, ...]) -> None:
    before = leaks.take(house, bundles=False)
    start(house, name, prepared)
    house.podman(*end, name)
    house.podman("wait", "--ignore", name, check=False)
    gone(house, before)
    assert record(house, name)["phase"] == "ended"


@pytest.mark.parametrize("flags", [("--rm",), ("--rm", "--detach"), ("--rm", "--init")], ids=" ".join)
def test_exits_at_once(house: House, name: str, prepared: str, flags: tuple[str, ...]) -> None:
    before = leaks.take(house, bundles=False)
    house.podman("run", *flags, "--name", name, "--network=none", prepared, house.image, "true")
    house.podman("wait", name, check=False)
    gone(house, before)
    assert record(house, name)["phase"] == "ended"


def test_a_command_that_does_not_exist(house: House, name: str, prepared: str) -> None:
    before = leaks.take(house, bundles=False)
    done = house.podman("run", "--rm", "--name", name, "--network=none", prepared, house.image, "/no/such", check=False)
    assert done.returncode == 127
    gone(house, before)


def test_ten_at_the_same_time(house: House, name: str) -> None:
    before = leaks.take(house, bundles=False)
    names = [f"{name}-{number}" for number in range(10)]
    annotations = {
        each: wiring.annotation(wiring.write(house, each, wiring.with_signer(house, each))) for each in names
    }
    try:
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda each: start(house, each, annotations[each]), names))
            assert all(pool.map(lambda each: serves(house, each), names))
        supervisors = {record(house, each)["pid"] for each in names}
        assert len(supervisors) == 10
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda each: house.podman("rm", "--force", "--time", "0", each), names))
        gone(house, before)
    finally:
        house.podman("rm", "--force", "--time", "0", "--ignore", *names)
        for each in names:
            house.terok("cleanup", each)


def test_the_supervisor_is_detached(house: House, name: str, prepared: str) -> None:
    start(house, name, prepared)
    known = record(house, name)
    conmon = int(house.podman("inspect", "--format", "{{.State.ConmonPid}}", name).stdout)
    for pid in (known["pid"], known["standby"]["pid"]):
        proc = Path(f"/proc/{pid}")
        assert os.getsid(pid) not in (os.getsid(0), os.getsid(conmon))
        assert os.readlink(proc / "cwd") == "/"
        variables = (proc / "environ").read_text().strip("\0").split("\0")
        assert {each.partition("=")[0] for each in variables} == {"PATH", "LANG"}
        assert re.search(r"^SigBlk:\s+0+$", (proc / "status").read_text(), re.M)
        files = [os.readlink(fd) for fd in (proc / "fd").iterdir()]
        assert sorted({file for file in files if file.startswith("/")}) == sorted(
            ["/dev/null", house.bundle(name).lock, house.bundle(name).log, house.layout.hook_modules]
        )
        kinds = {re.sub(r"[:\[(].*", "", file) for file in files if not file.startswith("/")}
        assert kinds <= {"anon_inode", "pipe", "socket", "net"}


def test_a_killed_supervisor_is_replaced_behind_the_same_sockets(house: House, name: str, prepared: str) -> None:
    before = leaks.take(house, bundles=False)
    start(house, name, prepared)
    first = record(house, name)
    inode = inside(house, name, "stat -c %i /run/terok/ssh-agent.sock")
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: (now := record(house, name))["pid"] == first["standby"]["pid"] and now["standby"])
    assert inside(house, name, "stat -c %i /run/terok/ssh-agent.sock") == inode
    assert serves(house, name)
    house.podman("stop", "--time", "5", name)
    gone(house, before)


@pytest.fixture
def without_poststop(house: House) -> Iterator[None]:
    """Meanwhile Podman calls no hook after a container's end."""
    path = next(path for path in Path(house.layout.hooks).glob("*.json") if "poststop" in path.read_text())
    text = path.read_text()
    path.unlink()
    yield
    path.write_text(text)


@pytest.mark.usefixtures("without_poststop")
def test_the_supervisor_alone_takes_everything_away(house: House, name: str, prepared: str) -> None:
    before = leaks.take(house, bundles=False)
    start(house, name, prepared)
    assert os.path.exists(house.layout.runtime_dir(name))
    house.podman("stop", "--time", "5", name)
    gone(house, before)
    assert not os.path.exists(house.layout.runtime_dir(name))
    assert record(house, name)["phase"] == "ended"


def test_poststop_reaps_what_a_killed_pair_left(house: House, name: str, prepared: str) -> None:
    before = leaks.take(house, bundles=False)
    start(house, name, prepared)
    known = record(house, name)
    for pid in (known["pid"], known["standby"]["pid"]):
        os.kill(pid, signal.SIGSTOP)  # so that neither can replace the other
    for pid in (known["pid"], known["standby"]["pid"]):
        os.kill(pid, signal.SIGKILL)
    house.podman("stop", "--time", "5", name)
    gone(house, before)
    assert record(house, name)["phase"] == "ended"


def test_a_container_without_our_annotations_costs_nothing(house: House, name: str) -> None:
    house.podman("run", "--detach", "--name", name, "--network=none", house.image, *PATIENT)
    traces = leaks.take(house)
    assert not [each for each in traces.processes if "entry.py" in each]
    house.podman("rm", "--force", "--time", "0", name)


def test_an_idle_supervisor_never_wakes_up(house: House, name: str, prepared: str) -> None:
    start(house, name, prepared)
    known = record(house, name)
    pids = [known["pid"], known["standby"]["pid"]]
    assert woken(pids, seconds=15, log=house.base / "calls") == []
    # the tracer does see calls: a connection is one
    with pytest.raises(AssertionError, match="ended"), ThreadPoolExecutor(1) as pool:
        watching = pool.submit(woken, pids, seconds=15, log=house.base / "calls")
        house.podman("stop", "--time", "5", name)
        watching.result()
