"""`terok doctor`: each cause is provoked for real, named alone, and mended where that is safe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from terok_host.runtime.care import doctor_checks
from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House
from tests.standins.stores import unlocked

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house of this file's own: its vault and hooks are broken on purpose."""
    made = House.build()
    made.podman("run", "--rm", made.image, "true")
    yield made
    made.destroy()


@pytest.fixture(autouse=True)
def healthy(house: House, nothing_left: None) -> Iterator[None]:
    """Before and after each test nothing is wrong."""
    assert cause(house) is None
    yield
    assert cause(house) is None, "the test repaired what it broke"


def examine(house: House, *options: str, **more: Any) -> tuple[int, dict[str, Any]]:
    done = house.terok("doctor", "--json", *options, check=False, **more)
    return done.returncode, json.loads(done.stdout)


def cause(house: House, **more: Any) -> dict[str, Any] | None:
    found: dict[str, Any] | None = examine(house, **more)[1]["cause"]
    return found


@contextmanager
def moved(path: Path) -> Iterator[None]:
    """The file is away meanwhile."""
    away = path.with_name(path.name + ".away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


@contextmanager
def written(path: Path, text: str) -> Iterator[None]:
    """The file has this content meanwhile."""
    old = path.read_text() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    try:
        yield
    finally:
        if old is None:
            path.unlink()
        else:
            path.write_text(old)


def hook_missing(house: House) -> AbstractContextManager[None]:
    return moved(Path(house.layout.hooks, "terok-createRuntime.json"))


def hook_not_announced(house: House) -> AbstractContextManager[None]:
    return moved(house.home / ".config/containers/containers.conf.d/99-terok.conf")


def hook_shadowed(house: House) -> AbstractContextManager[None]:
    other = house.home / ".config/containers/containers.conf.d/99-z-other.conf"
    return written(other, '[engine]\nhooks_dir = ["/elsewhere"]\n')


def runtime_directory_too_long(house: House) -> AbstractContextManager[None]:
    return written(Path(house.layout.config_file), f"paths: {{runtime: /tmp/{'x' * 90}}}\n")


def clock_behind(house: House) -> AbstractContextManager[None]:
    @contextmanager
    def future() -> Iterator[None]:
        with written(Path(house.layout.config, "note"), ""):
            os.utime(Path(house.layout.config, "note"), (time.time() + 9999,) * 2)
            yield

    return future()


@pytest.mark.parametrize(
    ("breaking", "what", "says", "fix"),
    [
        (hook_missing, "hooks", "is missing", "terok setup"),
        (hook_not_announced, "hooks", "no containers.conf names it", "terok setup"),
        (hook_shadowed, "hooks", "99-z-other.conf sets hooks_dir", "99-z-other.conf"),
        (runtime_directory_too_long, "socket paths", "no room", "paths.runtime"),
        (clock_behind, "clock", "is behind", "timedatectl"),
    ],
)
def test_one_cause_is_named(
    house: House, breaking: Callable[[House], AbstractContextManager[None]], what: str, says: str, fix: str
) -> None:
    with breaking(house):
        code, report = examine(house)
        found = report["cause"]
        assert found is not None
        assert (found["what"], found["state"]) == (what, "FAIL")
        assert says in found["detail"]
        assert fix in found["fix"]
        assert code in (Exit.FAILURE, Exit.MANUAL)


def test_missing_hooks_are_mended(house: House) -> None:
    Path(house.layout.hooks, "terok-poststop.json").unlink()
    code, report = examine(house, "--fix")
    assert code == Exit.OK
    assert report["done"]


def hidden(house: House, program: str) -> dict[str, Any]:
    """The doctor's report in a mount namespace where a program is none."""
    places = [f"{folder}/{program}" for folder in ("/usr/local/bin", "/usr/bin", "/usr/sbin")]
    hide = "; ".join(f"mount --bind /dev/null {path}" for path in places if os.path.exists(path))
    command = f"set -e; {hide}; exec {house.program} doctor --json"
    done = house.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command], check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("program", "state"), [("nft", "FAIL"), ("dnsmasq", "WARN"), ("newuidmap", "FAIL")])
def test_a_missing_program_is_named(house: House, program: str, state: str) -> None:
    found = next(each for each in hidden(house, program)["checks"] if each["what"] == program)
    assert found["state"] == state
    assert "install" in found["fix"]


def test_missing_subuid_ranges_are_named(house: House, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("someone:100000:65536\n")
    command = f"mount --bind {tmp_path}/empty /etc/subuid; exec {house.program} doctor --json"
    done = house.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command], check=False)
    found = json.loads(done.stdout)["cause"]
    assert found["what"] == "subuid"
    assert "usermod --add-subuids" in found["fix"]


def test_an_old_podman_is_named(house: House, tmp_path: Path) -> None:
    old = tmp_path / "podman"
    old.write_text("#!/bin/sh\necho podman version 3.4.4\n")
    old.chmod(0o755)
    found = cause(house, env={"PATH": f"{tmp_path}:{house.env['PATH']}"})
    assert found is not None
    assert found["what"] == "podman"
    assert "3.4.4 is older" in found["detail"]


def test_a_locked_vault_and_an_expired_login_are_named(house: House) -> None:
    keys.create_vault(house.layout)
    key = Path(house.layout.vault_key)
    with moved(key):
        found = cause(house)
        assert found is not None
        assert (found["what"], found["fix"]) == ("vault", "terok vault unlock")
    with unlocked(house.layout) as store:
        store.put("credential", "p", "github", b"x", {"auth": "api-key", "expires_at": time.time() - 600})
    found = cause(house)
    assert found is not None
    assert (found["what"], found["state"]) == ("login", "WARN")
    assert "p/github: it ended on" in found["detail"]
    with Store.open(house.layout.vault_db) as store:
        store.remove("credential", "p", "github")


def test_a_stale_bundle_is_named_and_removed(house: House, name: str) -> None:
    house.terok("prepare", name)
    os.utime(house.bundle(name).root, (time.time() - 120,) * 2)
    assert cause(house) is None, "a container may still be created"
    assert examine(house, "--fix")[1]["done"] == []
    house.terok("run", name, "--", house.image, "true")
    house.podman("rm", name)
    found = cause(house)
    assert found is not None
    assert name in found["detail"]
    code, report = examine(house, "--fix")
    assert code == Exit.OK
    assert report["done"] == [f"Removed the bundle of {name}"]
    assert not os.path.exists(house.bundle(name).root)


def test_a_container_that_lost_its_supervisor_is_named(house: House, name: str) -> None:
    house.terok("run", name, "--", "--detach", house.image, *PATIENT)
    record = json.loads(Path(house.bundle(name).record).read_text())
    pids = [record["standby"]["pid"], record["pid"]] if record.get("standby") else [record["pid"]]
    for pid in pids:  # both at once: either of them would bring the other back
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    found = cause(house)
    assert found is not None
    assert found["what"] == "supervisor"
    assert found["fix"] == f"terok heal {name}"
    house.terok("heal", name)


def test_an_orphan_is_named_and_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = Path(house.layout.containers, "gone", "dnsmasq.conf")
    orphan = subprocess.Popen(["/bin/sh", "-c", "read line", f"--conf-file={marker}"], stdin=subprocess.PIPE)
    try:
        env = doctor_env(house)
        monkeypatch.setattr(doctor_checks, "ORPHAN_SECONDS", 0)
        assert [each.pid for each in doctor_checks.orphans(env)] == [orphan.pid]
        assert doctor_checks.end_orphans(env) == [f"Ended sh (pid {orphan.pid})"]
        assert orphan.wait(5) == -signal.SIGTERM
    finally:
        orphan.kill()
        orphan.communicate()


def doctor_env(house: House) -> Any:
    """The surroundings of a verb in this house, without a process of its own."""
    import sys

    from terok_host.runtime.kit.env import Env, Output

    return Env(house.env, out=Output(json_output=True, stream=sys.stdout), messages=sys.stderr)


def test_the_key_quota(healthy: None, tmp_path: Path) -> None:
    path = tmp_path / "key-users"
    path.write_text("    0:     9 8/8 3/1000000 40/25000000\n 1000:   180 180/180 180/200 4000/20000\n")
    assert doctor_checks.key_usage(str(path), 1000) == (180, 200)
    assert doctor_checks.key_usage(str(path), 1) is None
    assert doctor_checks.key_usage("/proc/key-users", os.getuid()) is not None or os.getuid() != 0
