"""What bad input gets: the start is refused with the reason, within a moment, and nothing is left behind.

The reason stands in `hook-error.log`: crun swallows most of a hook's stderr. Where no directory of ours can be
trusted, the log is the one in terok's data directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor.ground import layout
from tests.lab import leaks, wiring
from tests.lab.house import House
from tests.lab.waiting import until

HOOK_TIMEOUT = 8
"""Seconds; the hook itself gives up on its stdin after 5."""


def hook_errors(house: House) -> dict[Path, str]:
    """What the hooks wrote about refusals, in every directory of ours."""
    found = {}
    for path in Path(house.layout.data).rglob(Path(layout.Bundle("/").hook_error).name):
        found[path] = path.read_text()
    return found


def refused(house: House, name: str, annotation: str, *, flags: tuple[str, ...] = ("--network=none",)) -> str:
    """Start a container that must not start; returns the reason that the operator can read."""
    before = leaks.take(house, bundles=False)
    known = hook_errors(house)
    began = time.monotonic()
    done = house.podman(
        "run",
        "--name",
        name,
        *flags,
        annotation,
        house.image,
        "sh",
        "-c",
        "echo it ran; sleep 1000",
        check=False,
        timeout=30,
    )
    assert done.returncode not in (0, 137), done
    assert "it ran" not in done.stdout
    assert time.monotonic() - began < HOOK_TIMEOUT
    house.podman("rm", "--force", "--time", "0", "--ignore", name)
    rest = leaks.left(house, before, within=5, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)
    reason = "".join(text.removeprefix(known.get(path, "")) for path, text in hook_errors(house).items())
    assert reason.count("createRuntime: ") == 1, (reason, done)
    assert "Traceback" not in done.stderr + reason
    return reason


def changed(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    """A change of one key of the sidecar JSON, `.` between levels; `...` removes it."""

    def change(document: dict[str, Any]) -> dict[str, Any]:
        *above, last = key.split(".")
        place: Any = document
        for part in above:
            place = place[int(part) if part.isdigit() else part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
        return document

    return change


CONTENTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "not JSON": (lambda _: b"{'schema': 1}", "is not JSON"),
    "empty": (lambda _: b"", "is not JSON"),
    "not UTF-8": (lambda _: b'{"schema": "\xff\xfe"}', "is not JSON"),
    "deeply nested": (lambda _: b"[" * 100_000, "is not JSON"),
    "not an object": (lambda _: [], "is not an object"),
    "10 MB": (lambda _: b" " * (10 << 20), "is larger than"),
    "a newer schema": (changed("schema", 99), "schema 99"),
    "no schema": (changed("schema", ...), "lacks schema"),
    "schema is a word": (changed("schema", "1"), "schema has the wrong type"),
    "schema is a truth value": (changed("schema", True), "schema has the wrong type"),
    "no container": (changed("container", ...), "lacks container"),
    "container with a slash": (changed("container", "a/b"), "is not a usable name"),
    "container is the parent": (changed("container", ".."), "is not a usable name"),
    "another container's name": (changed("container", "somebody"), "not those of container somebody"),
    "scope with a slash": (changed("scope", "../x"), "is not a usable name"),
    "scope is a number": (changed("scope", 7), "scope has the wrong type"),
    "a relative bundle": (changed("bundle", "containers/x"), "bundle is not an absolute, plain path"),
    "a bundle with dots": (changed("bundle", "/tmp/../tmp/x"), "bundle is not an absolute, plain path"),
    "a relative runtime directory": (changed("runtime_dir", "run"), "runtime_dir is not an absolute, plain path"),
    "a relative mount": (changed("mounts.0.source", "run"), "source is not an absolute, plain path"),
    "a mount that is no object": (changed("mounts", ["/run"]), "mounts is not a list of objects"),
    "mounts missing": (changed("mounts", ...), "lacks mounts"),
    "an unknown key": (changed("extra", 1), "unknown key: extra"),
    "an unknown sidecar": (changed("sidecars.0.name", "../vault"), "unknown sidecar"),
    "a socket elsewhere": (
        changed("sidecars.0.listeners.0.path", "/tmp/x.sock"),
        "not a socket in the runtime directory",
    ),
    "port 0": (changed("sidecars.0.listeners.1.port", 0), "port is not a number from 1 to 65535"),
    "an unknown listener": (changed("sidecars.0.listeners.1.kind", "udp"), "kind is unknown"),
    "a negative idle time": (changed("sidecars.0.idle_seconds", -1), "idle_seconds is negative"),
}


@pytest.mark.parametrize(("change", "reason"), CONTENTS.values(), ids=CONTENTS.keys())
def test_contents(house: House, name: str, change: Callable[[dict[str, Any]], Any], reason: str) -> None:
    path = wiring.write(house, name, change(wiring.with_signer(house, name)))
    assert reason in refused(house, name, wiring.annotation(path))


def missing(house: House, path: Path) -> Path:
    path.unlink()
    return path


def unreadable(house: House, path: Path) -> Path:
    # Podman's uid 0 is the operator and passes any mode of its own files: a foreign owner's file is unreadable
    path.chmod(0)
    house.podman("unshare", "chown", "1:1", str(path))
    return path


def foreign(house: House, path: Path) -> Path:
    path.chmod(0o644)
    house.podman("unshare", "chown", "1:1", str(path))
    return path


def group_writable(house: House, path: Path) -> Path:
    path.chmod(0o620)
    return path


def in_a_group_writable_directory(house: House, path: Path) -> Path:
    path.parent.chmod(0o770)
    return path


def a_symlink(house: House, path: Path) -> Path:
    path.rename(path.with_name("real.json"))
    path.symlink_to("real.json")
    return path


def a_directory(house: House, path: Path) -> Path:
    path.unlink()
    path.mkdir()
    return path


def a_fifo(house: House, path: Path) -> Path:
    path.unlink()
    os.mkfifo(path, 0o600)
    return path


def copied_elsewhere(house: House, path: Path) -> Path:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    return path.rename(elsewhere / path.name)


def relative(house: House, path: Path) -> Path:
    return path.relative_to("/")


def dotted(house: House, path: Path) -> Path:
    return path.parent / ".." / path.parent.name / path.name


FILES = {
    missing: "cannot be opened: No such file",
    unreadable: "belongs to uid",
    foreign: "belongs to uid",
    group_writable: "can be written by others",
    in_a_group_writable_directory: "can be written by others",
    a_symlink: "cannot be opened: Too many levels",
    a_directory: "is not a regular one",
    a_fifo: "is not a regular one",
    copied_elsewhere: "does not lie in the bundle",
    relative: "is not absolute and plain",
    dotted: "is not absolute and plain",
}


@pytest.mark.parametrize(("spoil", "reason"), FILES.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_files(house: House, name: str, spoil: Callable[[House, Path], Path], reason: str) -> None:
    path = spoil(house, wiring.write(house, name, wiring.with_signer(house, name)))
    assert reason in refused(house, name, wiring.annotation(path))


def test_unreadable_for_the_operator(house: House, name: str) -> None:
    """A file that even the owner of the home may not read: the directory belongs to somebody else."""
    path = wiring.write(house, name, wiring.with_signer(house, name))
    house.podman("unshare", "chown", "1:1", str(path.parent))
    try:
        assert "belongs to uid" in refused(house, name, wiring.annotation(path))
    finally:
        house.podman("unshare", "chown", "0:0", str(path.parent))


def test_host_network(house: House, name: str) -> None:
    path = wiring.write(house, name, wiring.with_signer(house, name))
    reason = refused(house, name, wiring.annotation(path), flags=("--network=host",))
    assert "shares the host's network" in reason
    assert "without --network=host" in reason


@pytest.mark.parametrize("scope", ["no/such", ".."])
def test_annotations_alone_with_a_scope_that_cannot_be(house: House, name: str, scope: str) -> None:
    """Without a sidecar JSON the wiring is composed from the annotations: a scope that names nothing is refused."""
    reason = refused(house, name, f"--annotation={layout.ANNOTATION_SCOPE}={scope}")
    assert "could not be composed from the annotations" in reason


@pytest.mark.parametrize("annotation", ["terok.scope=", "Terok.scope=work", "terok.shield.profile=base"])
def test_an_annotation_that_only_resembles_ours(house: House, name: str, annotation: str) -> None:
    reason = refused(house, name, f"--annotation={annotation}")
    assert "has no value" in reason or "is unknown" in reason


def test_a_mount_source_that_is_missing(house: House, name: str) -> None:
    document = wiring.with_signer(house, name)
    document["mounts"].append({"source": "/no/such/file", "target": "/etc/resolv.conf", "read_only": True})
    reason = refused(house, name, wiring.annotation(wiring.write(house, name, document)))
    assert "/no/such/file" in reason


def test_a_second_container_with_the_same_wiring(house: House, name: str) -> None:
    annotation = wiring.annotation(wiring.write(house, name, wiring.with_signer(house, name)))
    house.podman("run", "--detach", "--name", name, "--network=none", annotation, house.image, "sleep", "1000")
    first = Path(house.bundle(name).record).read_text()
    try:
        assert f"belongs to a container named {name}" in refused(house, f"{name}-2", annotation)
        assert Path(house.bundle(name).record).read_text() == first
    finally:
        house.podman("rm", "--force", "--time", "0", "--ignore", name, f"{name}-2")


def test_a_second_supervisor_for_one_container(house: House, name: str) -> None:
    """The hook runs again for a container that is served already: it sees the first supervisor and does nothing."""
    path = wiring.write(house, name, wiring.with_signer(house, name))
    house.podman(
        "run", "--detach", "--name", name, "--network=none", wiring.annotation(path), house.image, "sleep", "1000"
    )

    def record() -> dict[str, Any]:
        read: dict[str, Any] = json.loads(Path(house.bundle(name).record).read_text())
        return read

    # what goes on after `podman run` has returned: the record's last writing, and crun becoming the container's program
    until(lambda: record()["standby"])
    until(lambda: leaks.read(Path(f"/proc/{record()['container_pid']}/cmdline")).startswith("sleep\0"))
    served, before = record(), leaks.take(house)
    identity, bundle = house.podman("inspect", "--format", "{{.Id}} {{.OCIConfigPath}}", name).stdout.split()
    state = {
        "id": identity,
        "pid": served["container_pid"],
        "bundle": os.path.dirname(bundle),
        "annotations": {layout.ANNOTATION_SIDECAR: str(path)},
    }
    house.run(["podman", "unshare", *entry(), "createRuntime"], stdin=json.dumps(state), timeout=HOOK_TIMEOUT)
    assert leaks.left(house, before, within=1) == []
    assert record() == served


def entry() -> list[str]:
    """The hook program as `terok setup` writes it into the descriptors."""
    return [sys.executable, "-I", "-S", os.path.join(layout.package_root(), "hookbin", "entry.py")]


STDIN: dict[str, tuple[tuple[str, ...], bytes, int, str]] = {
    "nothing": (("createRuntime",), b"", 1, "is not JSON"),
    "garbage": (("createRuntime",), b"\x00\xff garbage", 1, "is not JSON"),
    "a list": (("createRuntime",), b"[]", 1, "is not a JSON object"),
    "bottomless nesting": (("createRuntime",), b"[" * 500_000, 1, "is not JSON"),
    "20 MB": (("createRuntime",), b" " * (20 << 20), 1, "is not JSON"),
    "annotations are a list": (("createRuntime",), b'{"annotations": ["x"]}', 1, "annotations are not an object"),
    "no pid": (
        ("createRuntime",),
        b'{"bundle": "/tmp", "annotations": {"terok.sandbox.sidecar": "/x"}}',
        1,
        "has no pid",
    ),
    "pid 0": (("createRuntime",), b'{"pid": 0, "annotations": {"terok.sandbox.sidecar": "/x"}}', 1, "has no pid"),
    "pid is true": (
        ("createRuntime",),
        b'{"pid": true, "annotations": {"terok.sandbox.sidecar": "/x"}}',
        1,
        "has no pid",
    ),
    "no bundle": (
        ("createRuntime",),
        b'{"pid": 1, "annotations": {"terok.sandbox.sidecar": "/x"}}',
        1,
        "no absolute bundle",
    ),
    "unknown stage": (("prestart",), b"{}", 2, "Unknown hook stage"),
    "no stage": ((), b"{}", 2, "Unknown hook stage"),
    "two stages": (("createRuntime", "poststop"), b"{}", 2, "Unknown hook stage"),
    "poststop with garbage": (("poststop",), b"garbage", 1, "is not JSON"),
}


@pytest.mark.parametrize(("stage", "stdin", "code", "reason"), STDIN.values(), ids=STDIN.keys())
def test_hook_called_with(house: House, stage: tuple[str, ...], stdin: bytes, code: int, reason: str) -> None:
    done = house.run([*entry(), *stage], stdin=stdin, check=False, timeout=HOOK_TIMEOUT)
    assert done.returncode == code
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("stage", ["createRuntime", "poststop"])
def test_hook_of_somebody_elses_container(house: House, stage: str) -> None:
    done = house.run([*entry(), stage], stdin=json.dumps({"pid": 1, "bundle": "/", "annotations": {"other": "1"}}))
    assert (done.stdout, done.stderr) == ("", "")


def test_hook_whose_stdin_never_ends(house: House) -> None:
    with subprocess.Popen(
        [*entry(), "createRuntime"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=house.env, text=True
    ) as hook:
        assert hook.stdin is not None and hook.stderr is not None
        hook.stdin.write("{")
        hook.stdin.flush()
        assert "No OCI state came on stdin within" in hook.stderr.readline()
        assert hook.wait(HOOK_TIMEOUT) == 1
