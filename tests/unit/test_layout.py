"""Where everything lies, and which names may become part of a path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.supervisor.ground import layout
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.ground.layout import Layout


def test_an_ordinary_user_has_the_xdg_directories(tmp_path: Path) -> None:
    made = Layout.from_environ({"HOME": "/home/u", "XDG_RUNTIME_DIR": str(tmp_path)}, uid=1000)
    assert made.data == "/home/u/.local/share/terok"
    assert made.runtime == f"{tmp_path}/terok"
    assert made.config_file == "/home/u/.config/terok/config.yml"
    assert made.bundle("web").sidecar == "/home/u/.local/share/terok/containers/web/sidecar.json"


def test_xdg_variables_move_everything_but_a_relative_one_is_ignored(tmp_path: Path) -> None:
    environ = {"HOME": "/home/u", "XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "rel", "XDG_RUNTIME_DIR": str(tmp_path)}
    made = Layout.from_environ(environ, uid=1000)
    assert (made.data, made.config) == ("/d/terok", "/home/u/.config/terok")


def test_real_root_has_the_system_directories() -> None:
    made = Layout.from_environ({"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}, uid=0)
    assert (made.data, made.runtime) == ("/var/lib/terok", "/run/terok")


@pytest.fixture
def no_runtime_directory(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str], int]]:
    """The directory below /tmp of a user who has no other one, and the environment and the number of such a user."""
    uid = 4_000_000_000 + os.getpid()
    below = Path(f"/tmp/terok-runtime-{uid}")
    yield below, {"HOME": "/home/u", "XDG_RUNTIME_DIR": str(tmp_path / "none")}, uid
    if below.is_symlink():
        below.unlink()
    elif below.exists():
        below.rmdir()


def test_without_a_runtime_directory_there_is_one_of_ones_own_below_tmp(
    no_runtime_directory: tuple[Path, dict[str, str], int],
) -> None:
    below, environ, uid = no_runtime_directory
    for _ in range(2):
        assert Layout.from_environ(environ, uid=uid).runtime == f"{below}/terok"
        assert below.stat().st_mode & 0o777 == 0o700


def test_a_runtime_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000_000)
    with pytest.raises(TerokError, match="belongs to another user") as caught:
        Layout.from_environ({"HOME": "/home/u", "XDG_RUNTIME_DIR": str(tmp_path)}, uid=4_000_000_000)
    assert "export XDG_RUNTIME_DIR" in (caught.value.fix or "")


@pytest.mark.parametrize("foreign", ["a link", "a file", "another user's"])
def test_a_directory_below_tmp_that_another_user_made_is_refused(
    no_runtime_directory: tuple[Path, dict[str, str], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    foreign: str,
) -> None:
    below, environ, uid = no_runtime_directory
    if foreign == "a link":
        below.symlink_to("/")  # of which the target is another user's where the tests are not root's
        monkeypatch.setattr("os.geteuid", lambda: uid)
    elif foreign == "a file":
        below.touch()
    else:
        below.mkdir(0o777)
        monkeypatch.setattr("os.geteuid", lambda: uid)
    with pytest.raises(TerokError, match="belongs to another user"):
        Layout.from_environ(environ, uid=uid)
    if foreign == "a file":
        below.unlink()


@pytest.mark.parametrize(
    ("lines", "uid"),
    [("0 0 4294967295", "same"), ("0 1000 1\n1 100000 65536", 1000)],
)
def test_the_outer_uid_is_read_from_the_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, uid: int | str
) -> None:
    (tmp_path / "uid_map").write_text(lines + "\n")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert layout.outer_uid(str(tmp_path / "uid_map")) == (0 if uid == "same" else uid)


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "x" * 128])
def test_podmans_names_are_usable(name: str) -> None:
    assert layout.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "-x", "_x", "a/b", "a b", "a\0", "ä", "x" * 129, "a\n"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(TerokError, match="not a usable name"):
        layout.check_name(name)


def test_a_socket_path_is_limited_to_107_bytes() -> None:
    assert layout.check_socket_path("/" + "x" * 106)
    with pytest.raises(TerokError, match=r"108 bytes.*\n?.*shorten the container's name by 1"):
        layout.check_socket_path("/" + "x" * 107)
