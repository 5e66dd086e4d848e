"""What a supervisor survives: no disk, no processes, no descriptors, a polite kill, its own directory removed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor import record, services
from terok_host.supervisor.record import Process, Record
from tests.lab import leaks, scope
from tests.lab.house import House
from tests.lab.waiting import until

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")


def known(house: House, name: str) -> Record:
    found = record.read(house.bundle(name).record)
    assert found is not None
    return found


def replaced(house: House, name: str, first: Record) -> Record | None:
    """The record once the standby has taken over and written so."""
    now = known(house, name)
    return now if now.supervisor == first.standby and now.standby else None


def pid(process: Process | None) -> int:
    assert process is not None
    return process.pid


def look(house: House, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(house.terok("status", name, "--json").stdout)["containers"][0]
    return found


def inside(house: House, name: str, script: str) -> str:
    done = house.podman("exec", name, "sh", "-c", script, check=False)
    return str(done.stdout + done.stderr)


def signer_answers(house: House, name: str) -> bool:
    return "ED25519" in inside(house, name, "ssh-add -l")


def signer_is_there(house: House, name: str) -> bool:
    """It answers, and be it that it signs nothing which it cannot write into its audit log."""
    return "connect" not in inside(house, name, "timeout 10 ssh-add -l")


def limit(process: Process | None, kind: int, soft: int | None) -> None:
    """Set the soft limit of a running process; None: as high as it may be."""
    hard = resource.prlimit(pid(process), kind)[1]
    resource.prlimit(pid(process), kind, (hard if soft is None else soft, hard))


def gone(house: House, before: leaks.Traces) -> None:
    rest = leaks.left(house, before, within=3, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)


@pytest.fixture
def served(house: House, name: str) -> Iterator[str]:
    """A container with every service, its signer in use."""
    scope.furnish(house)
    house.terok(
        "run", name, "--scope", scope.SCOPE, "--profiles", scope.PROFILE, "--", "--detach", house.image, *PATIENT
    )
    assert signer_answers(house, name)
    yield name
    house.podman("rm", "--force", "--time", "0", "--ignore", name)


def test_a_full_disk_ends_neither_supervisor_nor_standby(house: House, served: str) -> None:
    """RLIMIT_FSIZE makes every write to a file fail (EFBIG), to the log and to the record."""
    first = known(house, served)
    written = Path(house.bundle(served).record).read_text()
    for half in (first.supervisor, first.standby):
        limit(half, resource.RLIMIT_FSIZE, 0)
    os.kill(pid(first.service("ssh").process), signal.SIGKILL)
    assert signer_is_there(house, served)
    os.kill(pid(first.supervisor), signal.SIGKILL)
    assert signer_is_there(house, served)
    assert Path(house.bundle(served).record).read_text() == written
    assert look(house, served)["state"] == "running"
    limit(first.standby, resource.RLIMIT_FSIZE, None)
    after = until(lambda: replaced(house, served, first), within=40)
    assert after.phase == record.READY
    if (signer := after.service("ssh").process) is not None:
        os.kill(signer.pid, signal.SIGKILL)  # it has inherited the limit
    until(lambda: signer_answers(house, served), within=15)


@pytest.mark.parametrize("kind", [resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE], ids=["processes", "descriptors"])
def test_without_a_process_or_descriptor_the_standby_becomes_the_sidecar(house: House, served: str, kind: int) -> None:
    first = known(house, served)
    limit(first.supervisor, kind, 3)
    os.kill(pid(first.service("ssh").process), signal.SIGKILL)
    assert signer_answers(house, served)
    after = known(house, served)
    if kind == resource.RLIMIT_NPROC:  # without a descriptor no record can be written
        assert after.service("ssh").process == first.standby
        until(lambda: any("standby" in line for line in known(house, served).troubles))
        assert any("standby" in line for line in look(house, served)["troubles"])
    limit(first.supervisor, kind, None)
    renewed = until(
        lambda: now if (now := known(house, served)).standby not in (None, first.standby) else None, within=40
    )
    until(lambda: not known(house, served).troubles)
    os.kill(pid(renewed.supervisor), signal.SIGKILL)
    assert signer_answers(house, served)


def test_an_asked_supervisor_hands_over_while_its_container_runs(house: House, served: str) -> None:
    first = known(house, served)
    os.kill(pid(first.supervisor), signal.SIGTERM)
    after = until(lambda: replaced(house, served, first))
    assert after.phase == record.READY and signer_answers(house, served)
    assert look(house, served)["state"] == "running"


def test_restart_counts_survive_a_change_of_supervisor(house: House, served: str) -> None:
    first = known(house, served)
    os.kill(pid(first.service("ssh").process), signal.SIGKILL)
    until(lambda: known(house, served).service("ssh").restarts == 1)
    os.kill(pid(first.supervisor), signal.SIGKILL)
    after = until(lambda: replaced(house, served, first))
    assert (after.service("ssh").restarts, after.service("ssh").last_exit) == (1, "killed by signal 9")


def test_three_heals_at_once_make_one_supervisor_and_mount_anew(house: House, served: str) -> None:
    os.kill(pid(known(house, served).supervisor), signal.SIGUSR2)
    until(lambda: known(house, served).over())
    assert look(house, served)["state"] == "stopped"
    with ThreadPoolExecutor(3) as pool:
        heals = list(pool.map(lambda _: house.terok("heal", served, "--json"), range(3)))
    assert sorted(json.loads(done.stdout)["healed"] for done in heals) == [False, False, True]
    assert signer_answers(house, served)
    # below it lies the directory that Podman mounts so that nothing starts without the hooks
    assert inside(house, served, "grep ' /run/terok ' /proc/self/mountinfo | grep -vc /hooks.d/present").strip() == "1"
    assert len([line for line in leaks.take(house).processes if "terok-superv" in line]) <= 1


def test_a_removed_runtime_directory_is_noticed_and_healed(house: House, served: str) -> None:
    shutil.rmtree(house.layout.runtime_dir(served))
    assert any(f"terok heal {served}" in line for line in look(house, served)["troubles"])
    checks = json.loads(house.terok("doctor", "--json", check=False).stdout)["checks"]
    assert any("runtime directory was removed" in check["detail"] for check in checks)
    assert json.loads(house.terok("heal", served, "--json").stdout)["healed"]
    assert signer_answers(house, served) and look(house, served)["troubles"] == []


def test_a_suspended_supervisor_is_seen(house: House, served: str) -> None:
    supervisor = pid(known(house, served).supervisor)
    os.kill(supervisor, signal.SIGSTOP)
    found = until(lambda: (now := look(house, served))["state"] == "suspended" and now)
    assert any(f"kill -CONT {supervisor}" in line for line in found["troubles"])
    os.kill(supervisor, signal.SIGCONT)
    until(lambda: look(house, served)["state"] == "running")


def test_a_resolver_that_no_record_names_is_kept_and_found_again(house: House, served: str) -> None:
    first = known(house, served)
    Path(house.bundle(served).record).write_text("{ damaged")
    os.kill(pid(first.supervisor), signal.SIGKILL)
    after = until(lambda: now if (now := record.read(house.bundle(served).record)) and now.standby else None)
    assert after.service("dnsmasq").process == first.service("dnsmasq").process
    assert after.service("dnsmasq").state == services.RUNNING


def test_a_resolver_that_no_record_names_ends_with_its_container(house: House, name: str) -> None:
    before = leaks.take(house, bundles=False)
    house.terok("run", name, "--", "--detach", house.image, *PATIENT)
    first = known(house, name)
    for half in (first.supervisor, first.standby):
        os.kill(pid(half), signal.SIGSTOP)  # so that neither can replace the other
    for half in (first.supervisor, first.standby):
        os.kill(pid(half), signal.SIGKILL)
    Path(house.bundle(name).record).write_text("{ damaged")
    house.podman("stop", "--time", "5", name)
    gone(house, before)


@pytest.fixture
def whole(house: House) -> Path:
    """Where `broken` keeps the sidecar JSON that would work."""
    return house.base / "whole.json"


@pytest.fixture
def broken(house: House, name: str, whole: Path) -> Iterator[str]:
    """A container whose signer and gate end at once, each time, and whose vault can only say why it does not open."""
    scope.furnish(house)
    flags = json.loads(
        house.terok("prepare", name, "--scope", scope.SCOPE, "--profiles", scope.PROFILE, "--json").stdout
    )
    path = Path(house.bundle(name).sidecar)
    whole.write_text(path.read_text())
    whole.chmod(0o600)
    wiring = json.loads(path.read_text())
    for sidecar in wiring["sidecars"]:
        if sidecar["name"] != "audit":
            sidecar["settings"] = {}
    path.write_text(json.dumps(wiring))
    house.podman("run", "--detach", *flags, house.image, *PATIENT)
    yield name
    house.podman("rm", "--force", "--time", "0", name)


def test_clients_of_a_service_that_cannot_start_are_told_why(house: House, broken: str) -> None:
    said = inside(house, broken, "curl -sS -m 10 -i http://127.0.0.1:9419/v1/models")
    assert said.startswith("HTTP/1.1 503 ") and "The vault's settings in the sidecar JSON are not understood" in said
    assert "terok prepare" in said
    said = inside(house, broken, "curl -sS -m 10 -i --unix-socket /run/terok/vault.sock http://vault/v1/models")
    assert said.startswith("HTTP/1.1 503 ")
    assert "agent refused operation" in inside(house, broken, "timeout 10 ssh-add -l")
    said = inside(house, broken, "timeout 10 git ls-remote http://127.0.0.1:9418/project.git")
    assert "remote: terok: The gate of this container cannot start" in said
    found = look(house, broken)
    states = {row["name"]: row["state"] for row in found["sidecars"]}
    assert (states["ssh"], states["gate"]) == ("failed", "failed")
    assert any(line.startswith("gate cannot start: exit code") for line in found["troubles"])
    troubles = until(lambda: [line for line in look(house, broken)["troubles"] if line.startswith("vault ")])
    # it answers its clients itself, so it waits for the next one between two tries
    assert "could not serve: exit code" in troubles[0] and "settings in the sidecar JSON" in troubles[0]
    checks = json.loads(house.terok("doctor", "--json", check=False).stdout)["checks"]
    assert any("gate cannot start" in check["detail"] for check in checks)
    assert any("vault could not serve" in check["detail"] for check in checks)


def test_a_service_that_cannot_start_costs_nothing_and_comes_back(house: House, broken: str, whole: Path) -> None:
    inside(house, broken, "timeout 10 ssh-add -l")
    first = known(house, broken).service("ssh")
    assert first.state == services.FAILED
    for _ in range(10):
        assert "agent refused operation" in inside(house, broken, "timeout 10 ssh-add -l")
    assert known(house, broken).service("ssh").restarts <= first.restarts + 1
    shutil.copy(whole, house.bundle(broken).sidecar)
    until(lambda: signer_answers(house, broken), within=15)
    assert known(house, broken).service("ssh").state == services.RUNNING
