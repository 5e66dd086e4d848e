"""What a launch refuses, and what stays closed when Podman, an image or the surroundings play along with nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.runtime.host import podman, preconditions
from terok_host.runtime.host.flags import ALIASES, SHORT, SWITCHES, VALUED
from terok_host.supervisor.ground.errors import Exit
from tests.lab import scope
from tests.lab.house import House
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

from .test_origin import hostile

__all__ = ["hostile"]

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
PYTHON = ("-v", "/usr/bin:/host/bin:ro", "-v", "/usr/lib:/host/lib:ro", "-e", "PYTHONHOME=/host")
LOADER = ("/host/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "--library-path", "/host/lib/x86_64-linux-gnu")
FAMILIES = """
import ctypes, socket
def family(number):
    try:
        socket.socket(number, socket.SOCK_STREAM).close()
        return "opened"
    except OSError as error:
        return "refused"
libc = ctypes.CDLL(None, use_errno=True)
ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
print(family(2), family(1), family(40), "refused" if ring < 0 else "opened")
"""


@pytest.fixture(scope="module", autouse=True)
def furnished(house: House) -> None:
    scope.furnish(house)


def files_of(house: House, name: str) -> dict[str, bytes]:
    root = Path(house.bundle(name).root)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_failed_run_changes_nothing_of_a_container_that_exists(house: House, name: str) -> None:
    house.terok("run", name, "--scope", scope.SCOPE, "--", "--detach", house.image, "true")
    house.podman("wait", name)
    house.terok("status", name)
    before = files_of(house, name)
    for words in (("--no-shield",), ("--scope", "other", "--allow-missing"), ()):
        done = house.terok("run", name, *words, "--", "--detach", house.image, "true", check=False)
        assert done.returncode == Exit.REFUSED
        assert f"podman start {name}" in done.stderr
        assert files_of(house, name) == before
    house.terok("run", name, "--", "--replace", "--rm", house.image, "true")


def test_a_container_that_is_none_of_terok_keeps_its_name_and_gets_no_bundle(house: House, name: str) -> None:
    house.podman("run", "--detach", "--name", name, house.image, "true")
    done = house.terok("run", name, "--", "--detach", house.image, "true", check=False)
    assert done.returncode == Exit.REFUSED
    assert f"podman start {name}" in done.stderr
    assert not Path(house.bundle(name).root).exists()


def test_a_scope_that_does_not_exist_and_an_agent_without_a_login_refuse_the_start(house: House, name: str) -> None:
    for words in (("--scope", "wrok"), ("--scope", scope.SCOPE, "--agent", "gh")):
        done = house.terok("run", name, *words, "--", "--rm", house.image, "true", check=False)
        assert done.returncode == Exit.NOT_FOUND, done.stderr
        assert "terok vault add" in done.stderr
        assert not Path(house.bundle(name).root).exists()
        house.terok("run", name, *words, "--allow-missing", "--", "--rm", house.image, "true")
        house.terok("cleanup", name)


def test_vsock_and_io_uring_are_closed_unless_the_operator_brings_a_profile(house: House, name: str) -> None:
    words = ("--rm", *PYTHON, house.image, *LOADER, "/host/bin/python3", "-c", FAMILIES)
    closed = house.terok("run", name, "--network", "none", "--", *words).stdout
    assert closed.split() == ["opened", "opened", "refused", "refused"]
    house.terok("cleanup", name)
    own = house.home / "profile.json"
    own.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}))
    more = ("--security-opt", f"seccomp={own}")
    opened = house.terok("run", name, "--network", "none", "--", *more, *words).stdout
    assert opened.split()[:2] == ["opened", "opened"] and opened != closed
    own.unlink()


def test_nothing_starts_through_a_service(house: House, name: str) -> None:
    variables = {"CONTAINER_HOST": f"unix://{house.runtime}/podman/podman.sock"}
    done = house.terok("run", name, "--", "--rm", house.image, "true", env=variables, check=False)
    assert done.returncode == Exit.REFUSED
    assert "unset CONTAINER_HOST" in done.stderr
    assert not Path(house.bundle(name).root).exists()


def test_the_network_namespace_of_another_container_is_refused(house: House, name: str) -> None:
    other = f"{name}-other"
    house.podman("run", "--detach", "--name", other, "--network", "slirp4netns", house.image, *PATIENT)
    path = house.podman("inspect", "--format", "{{.NetworkSettings.SandboxKey}}", other).stdout.strip()
    flag = f"--annotation=terok.shield.profiles={scope.PROFILE}"
    try:
        words = ("--network", f"ns:{path}", flag, house.image, "echo", "it ran")
        done = house.podman("run", "--name", name, *words, check=False)
        assert done.returncode != 0 and "it ran" not in done.stdout
        assert path
    finally:
        house.podman("rm", "--force", "--time", "0", other)
    rows = json.loads(house.terok("status", "--json").stdout)["containers"]
    refusals = [str(row["error"]) for row in rows]
    refusals += [path.read_text() for path in Path(house.layout.data).rglob("hook-error.log")]
    house.terok("cleanup", *(row["container"] for row in rows))
    assert any("in the container's network already" in text for text in refusals), refusals


@pytest.mark.parametrize("hostile", [{preconditions.CHECKPOINT: "runc"}], ids=["checkpoint"], indirect=True)
def test_a_checkpoint_is_no_image(house: House, name: str, hostile: str) -> None:
    if podman.version(house.env) >= preconditions.FIXED_IN:
        return
    for words in (("run", name, "--", "--rm", hostile, "true"), ("prepare", name, "--", hostile)):
        done = house.terok(*words, check=False)
        assert done.returncode == Exit.REFUSED
        assert "is a checkpoint" in done.stderr
        assert not Path(house.bundle(name).root).exists()


@pytest.fixture
def without_hooks(house: House) -> Iterator[None]:
    """A test that uninstalls the hooks; they are back afterwards."""
    yield
    house.terok("setup")


def test_uninstall_names_what_it_would_leave_open(house: House, name: str, without_hooks: None) -> None:
    flag = f"--annotation=terok.shield.profiles={scope.PROFILE}"
    house.podman("create", "--name", name, "--network", "slirp4netns", flag, house.image, *PATIENT)
    done = house.terok("uninstall", check=False)
    assert done.returncode == Exit.REFUSED
    assert name in done.stderr and "--force" in done.stderr
    house.podman("rm", name)
    house.terok("uninstall")


def test_a_prepared_container_does_not_start_without_the_hooks(house: House, name: str, without_hooks: None) -> None:
    house.terok("run", name, "--network", "slirp4netns", "--", "--detach", house.image, *PATIENT)
    house.podman("stop", "--time", "0", name)
    house.terok("uninstall")
    assert house.podman("start", name, check=False).returncode != 0
    house.terok("setup")
    house.podman("start", name)


def test_a_container_without_its_supervisor_is_called_unprotected_and_healed(house: House, name: str) -> None:
    house.terok("run", name, "--profiles", scope.PROFILE, "--", "--detach", house.image, *PATIENT)
    house.podman("stop", "--time", "0", name)
    empty = house.home / "no-hooks.conf"
    conf = house.home / ".config/containers/containers.conf"
    empty.write_text(conf.read_text())
    house.podman("start", name, env={"CONTAINERS_CONF": str(empty)})
    text = house.terok("status", check=False).stdout
    assert f"{name}: UNPROTECTED" in text and f"terok heal {name}" in text
    first = json.loads(house.terok("top", "--json").stdout)["containers"][0]
    assert (first["name"], first["state"], first["fix"]) == (name, "UNPROTECTED", f"terok heal {name}")
    report = json.loads(house.terok("doctor", "--json", check=False).stdout)
    assert any("UNPROTECTED" in row["detail"] and name in row["detail"] for row in report["checks"])
    house.terok("heal", name)
    assert "UNPROTECTED" not in house.terok("status").stdout
    assert "UNPROTECTED" not in house.terok("top").stdout
    rules = house.terok("shield", "status", name).stdout
    assert "enforced" in rules
    empty.unlink()


def test_a_refused_start_says_where_the_reason_is(house: House, name: str) -> None:
    """Of a hook that fails, crun and Podman show its path and its exit code, on every Debian."""
    words = ("--name", name, "--network", "none", "--annotation=terok.scop=x", house.image, "true")
    done = house.podman("run", *words, check=False)
    assert "terok-status-says-why" in done.stderr
    assert "The annotation 'terok.scop' is unknown" in house.terok("status").stdout
    Path(house.layout.hook_error).unlink()


def test_a_name_does_not_open_the_hosts_own_address(house: House, name: str, resolver: Resolver) -> None:
    ask = (
        "curl -s -m 9 -o /dev/null -w '%{http_code}' http://own.test/; curl -s -m 9 -w '%{http_code}' http://192.0.2.2/"
    )
    house.terok("run", name, "--network", "slirp4netns", "--", "--detach", house.image, *PATIENT)
    house.terok("shield", "allow", name, "own.test")
    with Upstream(None, resolver.records["own.test"][0], 80):
        assert house.podman("exec", name, "sh", "-c", ask, check=False).stdout == "000000"
        house.terok("shield", "allow", name, "192.0.2.2")
        assert house.podman("exec", name, "sh", "-c", ask, check=False).stdout.endswith("200")


def test_podmans_own_flags_are_all_known(house: House, nothing_left: None) -> None:
    text = house.podman("run", "--help").stdout.partition("Options:")[2]
    for line in text.splitlines():
        words = line.split()
        if not words or not words[0].startswith("-"):
            continue
        if words[0].endswith(","):
            assert SHORT[words[0][1]] == words[1][2:], line
            words = words[1:]
        name = words[0][2:]
        takes_value = not line[line.index(words[0]) + len(words[0]) :].startswith("   ")
        assert name in (VALUED if takes_value else SWITCHES) or name in ("help",), line
    assert "network" in ALIASES.values()
