"""The configuration file: what it may say, and what a mistake in it gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from terok_host.runtime.kit import config, config_file
from terok_host.supervisor.ground.errors import Exit, TerokError


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], config.Config]:
    """Writes a configuration file and loads it as an ordinary user."""

    def load(text: str) -> config.Config:
        directory = tmp_path / ".config" / "terok"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yml").write_text(text)
        return config.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}, uid=1000)

    return load


def test_defaults_without_a_file(tmp_path: Path) -> None:
    found = config.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}, uid=1000)
    assert found.services.mode == "socket"
    assert found.shield.profiles == ("dev-standard",)
    assert found.layout.containers == f"{tmp_path}/.local/share/terok/containers"


@pytest.mark.parametrize("text", ["", "# nothing\n", "services:\n", "---\n"])
def test_an_empty_file_or_section_changes_nothing(load: Callable[[str], config.Config], text: str) -> None:
    assert load(text).services == config.Services()


def test_values_are_read_and_frozen(load: Callable[[str], config.Config]) -> None:
    found = load("services: {mode: tcp}\nnetwork: {port_range: [18700, 32700]}\nshield:\n  forwarder: 10.0.2.2#5353\n")
    assert found.services.mode == "tcp"
    assert found.network.port_range == (18700, 32700)
    assert found.shield.forwarder == "10.0.2.2#5353"
    with pytest.raises(AttributeError):
        found.services.mode = "socket"  # type: ignore[misc]  # the assignment that must fail


def test_paths_move_the_layout(load: Callable[[str], config.Config]) -> None:
    layout = load("paths: {data: /srv/terok/, runtime: /run/t}").layout
    assert layout.vault_db == "/srv/terok/vault/vault.db"
    assert layout.runtime_dir("c") == "/run/t/c"


@pytest.mark.parametrize(
    ("text", "line", "column", "says", "fix"),
    [
        ("services: {mod: tcp}", 1, 12, "unknown key services.mod", "services.mode"),
        ("shild:\n  enabled: true", 1, 1, "unknown key shild", "shield"),
        ("vault:\n  idle_seconds: soon", 2, 17, "whole number", ""),
        ("vault:\n  idle_seconds: -1", 2, 17, "whole number", ""),
        ("vault:\n  idle_seconds: true", 2, 17, "whole number", ""),
        ("services:\n  mode: tcp\n  mode: socket", 3, 3, "given twice", ""),
        ("services: tcp", 1, 11, "must be a mapping", ""),
        ("- services", 1, 1, "must be a mapping", ""),
        ("services: {mode: udp}", 1, 18, "socket or tcp", ""),
        ("services: {mode: [tcp]}", 1, 18, "socket or tcp", ""),
        ("network: {port_range: [1, 2]}", 1, 23, "two ports", ""),
        ("network: {port_range: [2000, 2001]}", 1, 23, "two ports", ""),
        ("network: {port_range: [9000, 8000]}", 1, 23, "two ports", ""),
        ("paths: {data: relative}", 1, 15, "absolute path", ""),
        ("paths: {data: /a/../b}", 1, 15, "absolute path", ""),
        ("shield: {enabled: 1}", 1, 19, "true or false", ""),
        ("shield: {profiles: dev}", 1, 20, "list of words", ""),
        ("shield: {profiles: !!python/name:os.system }", 1, 20, "plain YAML", ""),
        ("services: {mode: tcp", 2, 1, "not YAML", ""),
        ("vault: &a {idle_seconds: 1}\nshield: *a", 2, 9, "aliases", ""),
        ("shield:\n  profiles: " + "[" * 25, 2, 31, "levels of nesting", ""),
        ("? [a]\n: 1", 1, 3, "a key must be a word", ""),
        ("#" * 300_000, 1, 1, "more than 256 KiB", ""),
    ],
)
def test_a_mistake_is_named_with_its_place(
    load: Callable[[str], config.Config], text: str, line: int, column: int, says: str, fix: str
) -> None:
    with pytest.raises(TerokError) as caught:
        load(text)
    assert caught.value.code == Exit.USAGE
    assert f"config.yml:{line}:{column}: " in caught.value.what
    assert says in caught.value.what
    assert fix in caught.value.fix


def test_every_default_is_what_its_kind_allows() -> None:
    for name, each in config.keys().items():
        value = list(each.default) if isinstance(each.default, tuple) else each.default
        assert config_file.check(each.metadata["kind"], value) == each.default, name
        assert each.metadata["doc"].endswith("."), name


@pytest.mark.parametrize("damage", ["not UTF-8", "could not be read"])
def test_a_file_that_cannot_be_read_gets_a_sentence(
    load: Callable[[str], config.Config], tmp_path: Path, damage: str
) -> None:
    load("services: {mode: tcp}\n")
    file = tmp_path / ".config" / "terok" / "config.yml"
    if damage == "not UTF-8":
        file.write_bytes(b"services: {mode: \xff}\n")
    else:
        file.unlink()
        file.mkdir()
    with pytest.raises(TerokError, match=damage):
        config.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}, uid=1000)
