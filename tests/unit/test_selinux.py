"""What the SELinux block of `terok setup` says in each state of the host, and which files and sockets get labels."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from terok_host.runtime.host import selinux
from terok_host.runtime.host.selinux import CURRENT, MISSING, OTHER, Facts, decide
from terok_host.runtime.kit.env import Env, Output
from terok_host.supervisor import schema
from terok_host.supervisor.container import selinux as labels
from terok_host.supervisor.ground import layout

CONFIG = "~/.config/terok/config.yml"
ROOT = Path(__file__).parents[2]


def facts(own: bool | None = True, served: bool | None = None, module: str = MISSING, **more: object) -> Facts:
    values = {"own": own, "served": served, "module": module, "confined": True, "mode": "socket", **more}
    return Facts(**values)  # type: ignore[arg-type]  # a table of booleans and words


def printed(given: Facts) -> list[str]:
    out = Output(json_output=False, stream=io.StringIO())
    return decide(given, config_file=CONFIG, installer="/path/to/install_policy.sh").lines(out)


def test_no_way_in_has_the_wording_with_both_fixes() -> None:
    assert printed(facts(own=False)) == [
        "SELinux:",
        "  terok_socket_t   WARN (policy NOT installed)",
        "                   Containers cannot connect to service sockets.",
        "                   Fix (pick one):",
        "                     install policy: sudo bash /path/to/install_policy.sh",
        "                     or opt out:     add `services: {mode: tcp}` to ~/.config/terok/config.yml",
    ]


@pytest.mark.parametrize(
    ("given", "way", "state", "says"),
    [
        (facts(), "own labels", "ok", "policy not installed, not needed"),
        (facts(module=CURRENT, served=True), "own labels", "ok", "terok_socket_t   ok (policy installed)"),
        (
            facts(own=False, module=CURRENT, served=True),
            "policy module",
            "ok",
            "terok_socket_t   ok (policy installed)",
        ),
        (facts(own=False, module=CURRENT, served=False), "none", "WARN", "does not cover the domain"),
        (facts(module=OTHER, served=True), "own labels", "WARN", "update policy: sudo bash /path/to/install_policy.sh"),
        (facts(own=False, module=OTHER, served=True), "policy module", "WARN", "sudo semodule -r terok_socket"),
        (facts(own=False, mode="tcp"), "tcp", "ok", "services.mode is tcp"),
        (facts(module=OTHER, mode="tcp"), "tcp", "ok", "services.mode is tcp"),
        (facts(own=None), "unknown", "WARN", "the first start will tell"),
        (facts(own=None, confined=False), "not confined", "ok", "does not confine containers"),
    ],
)
def test_each_state_of_the_host(given: Facts, way: str, state: str, says: str) -> None:
    found = decide(given, config_file=CONFIG, installer="/path/to/install_policy.sh")
    assert (found.way, found.state) == (way, state)
    assert says in "\n".join(printed(given))
    assert all(check.fix for check in found.checks() if check.state == "WARN") or way == "unknown"
    json.dumps(found.to_dict())


def test_nothing_is_said_without_selinux_and_where_it_is_permissive(tmp_path: Path) -> None:
    assert not selinux.enforcing(str(tmp_path / "none"))
    (tmp_path / "enforce").write_text("0")
    assert not selinux.enforcing(str(tmp_path))
    (tmp_path / "enforce").write_text("1")
    assert selinux.enforcing(str(tmp_path))
    if not labels.enabled():
        assert (
            selinux.block(Env({}, out=Output(json_output=False, stream=io.StringIO()), messages=io.StringIO())) is None
        )
        assert selinux.removal() is None


def test_the_module_names_its_version_once() -> None:
    text = (ROOT / "selinux/terok_socket.te").read_text()
    version = text.partition("module terok_socket ")[2].partition(";")[0]
    assert selinux.marker() == f"terok_socket_v{version.partition('.')[0]}_t"


def test_the_installer_is_where_errors_say_it_is() -> None:
    assert Path(layout.policy_installer()).is_file()


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    """A private copy of the installer with its source."""
    directory = tmp_path / "selinux"
    directory.mkdir(mode=0o755)
    for name in ("install_policy.sh", "terok_socket.te"):
        shutil.copy(ROOT / "selinux" / name, directory / name)
        (directory / name).chmod(0o644)
    return directory / "install_policy.sh"


def run(script: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(script), *options], capture_output=True, text=True, timeout=20)


def test_the_installer_shows_exactly_its_source(installer: Path) -> None:
    shown = run(installer, "--show")
    assert shown.returncode == 0
    assert shown.stdout == (installer.parent / "terok_socket.te").read_text()


def test_the_installer_refuses_a_linked_source(installer: Path) -> None:
    source = installer.parent / "terok_socket.te"
    source.rename(installer.parent / "elsewhere.te")
    source.symlink_to("elsewhere.te")
    refused = run(installer, "--show")
    assert refused.returncode == 2
    assert "symbolic link" in refused.stderr


@pytest.mark.parametrize("what", ["install_policy.sh", "terok_socket.te", "."])
def test_the_installer_refuses_what_others_can_write(installer: Path, what: str) -> None:
    path = installer.parent / what
    path.chmod(path.stat().st_mode | 0o020)
    refused = run(installer, "--show")
    assert refused.returncode == 2
    assert "can be written by others" in refused.stderr


def test_the_installer_knows_its_options(installer: Path) -> None:
    assert run(installer, "--force").returncode == 2
    assert run(installer, "--check", "--show").returncode == 2
    if not labels.enabled():
        assert run(installer, "--check").returncode == 4


def wiring(directory: Path, *sources: Path) -> schema.Wiring:
    return schema.Wiring(
        container="c",
        scope=None,
        bundle=layout.Bundle(str(directory / "bundle/c")),
        runtime_dir=str(directory / "run/c"),
        sidecars=(),
        mounts=tuple(schema.Mount(str(source), "/target", True) for source in sources),
        shield=None,
    )


def test_only_files_of_the_container_are_relabelled(tmp_path: Path) -> None:
    bundle, runtime = tmp_path / "bundle/c", tmp_path / "run/c"
    foreign = (bundle, tmp_path, bundle.parent / "cc/file", tmp_path / "run/cc")
    given = wiring(tmp_path, bundle / "resolv.conf", *foreign)
    assert labels.own_files(given) == [str(runtime), str(bundle / "resolv.conf")]


def test_without_a_label_no_file_is_touched(tmp_path: Path) -> None:
    labels.relabel("", [str(tmp_path / "missing")])


def test_sockets_listen_without_selinux(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.sock", "b.sock")]
    opened = labels.listen_unix("", paths)
    try:
        assert [os.path.exists(path) for path in paths] == [True, True]
    finally:
        for fd in opened:
            os.close(fd)
