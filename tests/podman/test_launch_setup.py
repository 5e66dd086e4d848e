"""`terok setup` and `terok uninstall` on a host of their own: exact, repeatable, beside other people's hooks."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.runtime.host.hooks import SYSTEM_HOOK_DIRS
from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A house where nothing was set up."""
    made = House.build(setup=False)
    made.podman("run", "--rm", made.image, "true")  # Podman's own first-time work
    yield made
    made.destroy()


@pytest.fixture(autouse=True)
def as_before(house: House) -> Iterator[None]:
    """After each test the house is as it was built."""
    conf = house.home / ".config/containers/containers.conf"
    text = conf.read_text()
    yield
    conf.write_text(text)
    house.terok("uninstall")


def tree(house: House) -> dict[str, str]:
    """Every file and directory below the home, with content, but for Podman's storage."""
    found = {}
    for path in sorted(house.home.rglob("*")):
        name = str(path.relative_to(house.home))
        if not name.startswith(".local/share/containers"):
            found[name] = path.read_bytes().decode(errors="backslashreplace") if path.is_file() else "directory"
    return found


def dropin(house: House) -> Path:
    return house.home / ".config/containers/containers.conf.d/99-terok.conf"


def test_uninstall_reverses_setup_exactly(house: House) -> None:
    before = tree(house)
    first = house.terok("setup")
    assert f"Wrote {dropin(house)}" in first.stdout
    installed = tree(house)
    assert installed != before
    second = house.terok("setup")
    assert "nothing was changed" in second.stdout
    assert tree(house) == installed
    house.terok("uninstall")
    after = tree(house)
    for made_on_the_way in (".local", ".local/share", ".config/containers/containers.conf.d"):
        if made_on_the_way not in before:
            after.pop(made_on_the_way, None)
    assert after == before
    assert "not installed" in house.terok("uninstall").stdout


def test_other_hook_directories_stay_in_force(house: House) -> None:
    theirs = house.home / "theirs"
    theirs.mkdir()
    ran = house.home / "ran"
    script = theirs / "hook.sh"
    script.write_text(f"#!/bin/sh\ncat >/dev/null\necho yes >{ran}\n")
    script.chmod(0o755)
    (theirs / "hook.json").write_text(
        json.dumps(
            {"version": "1.0.0", "hook": {"path": str(script)}, "when": {"always": True}, "stages": ["createRuntime"]}
        )
    )
    conf = house.home / ".config/containers/containers.conf"
    conf.write_text(conf.read_text().replace("[engine]", f'[engine]\nhooks_dir = ["{theirs}"]'))
    house.terok("setup")
    assert f'"{theirs}"' in dropin(house).read_text()
    house.terok("run", "both", "--", "--rm", house.image, "true")
    assert ran.read_text() == "yes\n"
    house.terok("cleanup", "both")


def test_the_systems_own_directories_are_repeated(house: House) -> None:
    house.terok("setup")
    text = dropin(house).read_text()
    for directory in (*SYSTEM_HOOK_DIRS, house.layout.hooks):
        assert f'"{directory}"' in text


def test_the_hooks_are_readable_and_private(house: House) -> None:
    house.terok("setup")
    assert stat.S_IMODE(os.stat(house.layout.hooks).st_mode) == 0o700
    descriptors = sorted(Path(house.layout.hooks).glob("*.json"))
    assert [json.loads(each.read_text())["stages"] for each in descriptors] == [["createRuntime"], ["poststop"]]
    for each in descriptors:
        hook = json.loads(each.read_text())["hook"]
        assert os.access(hook["path"], os.X_OK)
        assert hook["args"][1:3] == ["-I", "-S"]


def test_an_old_descriptor_is_brought_up_to_date(house: House) -> None:
    house.terok("setup")
    path = next(Path(house.layout.hooks).glob("*.json"))
    right = path.read_text()
    path.write_text(right.replace("python", "python-old"))
    done = house.terok("run", "x", "--", house.image, "true", check=False)
    assert done.returncode == Exit.FAILURE
    assert "terok setup" in done.stderr
    assert f"Updated {path}" in house.terok("setup").stdout
    assert path.read_text() == right


@pytest.mark.parametrize(
    ("missing", "says", "fix"),
    [
        ("podman", "podman is not installed", "podman"),
        ("crun", "neither crun nor runc", "crun"),
        ("newuidmap", "is not installed", "uidmap"),
    ],
)
def test_what_is_missing_is_named_with_the_command(house: House, missing: str, says: str, fix: str) -> None:
    done = without(house, missing.split(), "setup", "--check", "--json")
    report = json.loads(done.stdout)
    failed = [each for each in report["checks"] if each["state"] == "FAIL" and says in each["detail"]]
    assert len(failed) == 1
    assert fix in failed[0]["fix"]
    assert done.returncode == Exit.MANUAL
    assert not report["done"], "--check changes nothing"


def test_programs_of_a_network_are_needed_where_it_is_configured(house: House) -> None:
    programs = ["slirp4netns", "pasta"]
    report = json.loads(without(house, programs, "setup", "--check", "--json").stdout)
    assert [row["detail"] for row in report["checks"] if row["what"] == "network"] == ["airlock"]
    house.terok("config", "set", "network.mode", "auto")
    try:
        report = json.loads(without(house, programs, "setup", "--check", "--json").stdout)
    finally:
        house.terok("config", "set", "network.mode", "airlock")
    (failed,) = [row for row in report["checks"] if row["what"] == "network"]
    assert failed["state"] == "FAIL" and "Rootless containers need" in failed["detail"] and "install" in failed["fix"]


def without(house: House, missing: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run terok in a mount namespace where some programs are not programs."""
    places = [f"{folder}/{name}" for folder in ("/usr/local/bin", "/usr/bin", "/usr/sbin") for name in missing]
    hide = "; ".join(f"mount --bind /dev/null {path}" for path in places if os.path.exists(path))
    command = f"set -e; {hide}; exec {house.program} {' '.join(words)}"
    return house.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command], check=False)


def test_setup_never_needs_root_and_says_nothing_on_stderr(house: House) -> None:
    done = house.terok("setup")
    assert os.getuid() != 0
    assert done.stderr == ""
    blocks = [line for line in done.stdout.splitlines() if line and not line.startswith((" ", "Wrote"))]
    assert blocks[:-1] == ["podman:", "hooks:", "shield:", "kernel:"]
    assert blocks[-1].startswith("Next, in a project's directory: terok start claude")


def test_a_container_without_our_annotations_is_not_touched(house: House) -> None:
    house.terok("setup")
    out = house.podman("run", "--rm", house.image, "sh", "-c", "ls /run/terok 2>&1; cat /etc/resolv.conf").stdout
    assert "No such file" in out
    assert "127.0.0.1" not in out
    assert not [each for each in Path(house.layout.containers).glob("*") if each.is_dir()]
