"""Where everything lies, and which names may become part of a path."""

from __future__ import annotations

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
