"""The hook program itself, with whatever may arrive on its stdin: a clear error, no hang, nothing started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor.ground import layout

ENTRY = Path(layout.package_root()) / "hookbin" / "entry.py"


def hook(stage: str, stdin: bytes, home: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    # the directories are given: real root's would be those of this machine
    places = [str(home / name) for name in ("data", "run", "config")]
    return subprocess.run(
        [sys.executable, "-I", "-S", ENTRY, stage, *(more or places)],
        input=stdin,
        capture_output=True,
        timeout=20,
        env={"HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        check=False,
    )


def state(**fields: Any) -> bytes:
    return json.dumps({"ociVersion": "1.0.2", "id": "abc", "status": "created", **fields}).encode()


def wired(home: Path) -> dict[str, str]:
    return {layout.ANNOTATION_SIDECAR: str(home / "none" / "sidecar.json")}


@pytest.mark.parametrize("stage", ["createRuntime", "poststop"])
@pytest.mark.parametrize(
    "stdin",
    [b"", b"garbage", b"{'a': 1}", b'{"a": "\n"}', b"[]", b"3", b"\xff\xfe\x00", b"[" * 100_000, b'{"annotations": 5}'],
)
def test_garbage_on_stdin_is_a_clear_error(tmp_path: Path, stage: str, stdin: bytes) -> None:
    done = hook(stage, stdin, tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith(b"terok: The OCI state") and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("stage", ["", "prestart", "createruntime", "--help", "createRuntime\n"])
def test_an_unknown_stage_is_a_usage_error(tmp_path: Path, stage: str) -> None:
    done = hook(stage, state(), tmp_path)
    assert done.returncode == 2 and b"Unknown hook stage" in done.stderr


def test_more_arguments_are_a_usage_error(tmp_path: Path) -> None:
    assert hook("createRuntime", state(), tmp_path, "x").returncode == 2


@pytest.mark.parametrize("stage", ["createRuntime", "poststop"])
def test_a_container_that_is_not_ours_costs_nothing(tmp_path: Path, stage: str) -> None:
    done = hook(stage, state(pid=os.getpid(), bundle="/", annotations={"io.podman": "x"}), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pid", [None, 0, -1, "1", True, 1.5])
def test_a_state_without_a_pid_is_refused(tmp_path: Path, pid: Any) -> None:
    done = hook("createRuntime", state(pid=pid, bundle="/tmp", annotations=wired(tmp_path)), tmp_path)
    assert done.returncode == 1 and b"no pid" in done.stderr


@pytest.mark.parametrize("bundle", [None, "", "relative", 7])
def test_a_state_without_a_bundle_is_refused(tmp_path: Path, bundle: Any) -> None:
    done = hook("createRuntime", state(pid=1, bundle=bundle, annotations=wired(tmp_path)), tmp_path)
    assert done.returncode == 1 and b"bundle" in done.stderr


def test_the_reason_is_kept_in_the_operators_data_directory(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    data = layout.Layout.from_environ(environ).data
    script = 'mkdir -m 700 -p "$0"; "$@"; cat "$0/hook-error.log"'
    command = ["sh", "-c", script, data, sys.executable, "-I", "-S", str(ENTRY), "createRuntime"]
    if os.getuid() == 0:  # real root's data lies below /var/lib: not in the machine's own
        command[2] = f"mount -t tmpfs lib /var/lib; {script}"
        command = ["unshare", "--mount", *command]
    given = state(pid=1, bundle=str(tmp_path), annotations=wired(tmp_path))
    done = subprocess.run(command, input=given, capture_output=True, timeout=20, env=environ, check=True)
    assert f"The OCI configuration {tmp_path}/config.json cannot be read" in done.stdout.decode()


def test_poststop_for_wiring_that_is_gone_is_harmless(tmp_path: Path) -> None:
    assert hook("poststop", state(annotations=wired(tmp_path)), tmp_path).returncode == 0


def test_a_stdin_that_never_ends_is_given_up(tmp_path: Path) -> None:
    read, write = os.pipe()
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", ENTRY, "createRuntime"],
            stdin=read,
            capture_output=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(read)
        os.close(write)
    assert done.returncode == 1 and b"No OCI state came on stdin within 5 s" in done.stderr
    assert time.monotonic() - began < 10


def test_the_hook_imports_nothing_heavy() -> None:
    script = (
        "import sys, runpy; sys.argv = ['entry.py', 'poststop']\n"
        f"sys.path.insert(0, {str(ENTRY.parent)!r}); import entry, os\n"
        "os.dup2(os.open(os.devnull, 0), 0)\n"
        "entry.main()\n"
        "from terok_host.supervisor import container, reap, start, supervise\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    out = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True).stdout
    heavy = {"asyncio", "dataclasses", "inspect", "pathlib", "subprocess", "typing", "socket", "ssl", "httpx", "yaml"}
    heavy |= {"ctypes", "enum", "json", "re"}
    assert not heavy & set(eval(out.splitlines()[-1]))


@pytest.mark.parametrize(
    "annotations",
    [
        {"terok.shield.profile": "dev"},
        {"Terok.scope": "work"},
        {"TEROK.SCOPE": "work"},
        {"terok.scopes": "work"},
        {"com.terok.scope": "work"},
        {"terok": "work"},
        {"terok.scope": ""},
        {"terok.scope": " "},
        {"terok.scope": "work", "terok.shield.profile": "dev"},
    ],
    ids=lambda annotations: "&".join(f"{key}={value}" for key, value in annotations.items()),
)
def test_an_annotation_that_only_resembles_ours_refuses_the_start(tmp_path: Path, annotations: dict[str, str]) -> None:
    done = hook("createRuntime", state(pid=os.getpid(), bundle="/tmp", annotations=annotations), tmp_path)
    assert done.returncode == 1, done.stderr
    assert b"is unknown" in done.stderr or b"has no value" in done.stderr


def test_keys_of_podman_may_hold_a_container_name(tmp_path: Path) -> None:
    annotations = {"io.podman.annotations.apparmor/terok-box": "x", "io.kubernetes.cri-o.Name": "terok"}
    done = hook("createRuntime", state(pid=os.getpid(), bundle="/tmp", annotations=annotations), tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
