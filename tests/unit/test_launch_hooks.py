"""Which hook directories Podman uses, told from the files that it reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from terok_host.runtime.host import hooks
from terok_host.supervisor.ground.layout import Layout

SYSTEM = list(hooks.SYSTEM_HOOK_DIRS)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".config/containers/containers.conf.d").mkdir(parents=True)
    return tmp_path


def found(home: Path, **variables: str) -> tuple[list[str], str]:
    return hooks.effective_hook_dirs({"HOME": str(home), **variables}, uid=1000)


def write(home: Path, name: str, text: str) -> Path:
    path = home / ".config/containers" / name
    path.write_text(text)
    return path


def test_without_any_file_the_defaults_hold(home: Path) -> None:
    assert found(home) == (SYSTEM, "")


def test_the_last_file_wins(home: Path) -> None:
    write(home, "containers.conf", '[engine]\nhooks_dir = ["/a"]\n')
    assert found(home)[0] == ["/a"]
    later = write(home, "containers.conf.d/50-x.conf", '[engine]\nhooks_dir = ["/b"]\n')
    write(home, "containers.conf.d/10-y.conf", '[engine]\nhooks_dir = ["/c"]\n')
    write(home, "containers.conf.d/90-not-a-conf", '[engine]\nhooks_dir = ["/d"]\n')
    assert found(home) == (["/b"], str(later))


def test_a_list_may_add_to_the_ones_before(home: Path) -> None:
    write(home, "containers.conf", '[engine]\nhooks_dir = ["/a", {append = true}]\n')
    assert found(home)[0] == [*SYSTEM, "/a"]


def test_files_that_say_nothing_or_make_no_sense_are_passed_over(home: Path) -> None:
    write(home, "containers.conf", '[engine]\nhooks_dir = ["/a"]\n')
    for number, text in enumerate(("", "[engine]\n", "[engine]\nhooks_dir = 3\n", "engine = 1\n", "not toml [")):
        write(home, f"containers.conf.d/{number}.conf", text)
    assert found(home)[0] == ["/a"]


def test_the_environment_can_replace_and_override(home: Path) -> None:
    write(home, "containers.conf", '[engine]\nhooks_dir = ["/a"]\n')
    only = write(home, "only.conf", '[engine]\nhooks_dir = ["/only"]\n')
    last = write(home, "last.conf", '[engine]\nhooks_dir = ["/last"]\n')
    assert found(home, CONTAINERS_CONF=str(only))[0] == ["/only"]
    assert found(home, CONTAINERS_CONF="/nonexistent") == (SYSTEM, "")
    assert found(home, CONTAINERS_CONF_OVERRIDE=str(last))[0] == ["/last"]


def test_a_launch_is_refused_when_the_environment_hides_the_hooks(home: Path) -> None:
    layout = Layout(str(home / "data"), str(home / "run"), str(home / "config"))
    Path(layout.presence).mkdir(parents=True)
    assert hooks.link_program(layout) and not hooks.link_program(layout)
    for stage in hooks.STAGES:
        Path(hooks.descriptor_path(layout, stage)).write_text(hooks.descriptor_text(layout, stage))
    write(home, "containers.conf.d/99-terok.conf", hooks.dropin_text(layout, SYSTEM))
    environ = {"HOME": str(home)}
    assert hooks.problem(layout, environ, uid=1000) is None
    for variable in ("CONTAINERS_CONF", "CONTAINERS_CONF_OVERRIDE"):
        other = write(home, "other.conf", '[engine]\nhooks_dir = ["/x"]\n')
        hidden = {**environ, variable: str(other)}
        assert "hides it" in (hooks.problem(layout, hidden, uid=1000) or "")
        assert variable in hooks.how_to_fix(layout, hidden, uid=1000)


def test_podman_6_sorts_the_drop_ins_of_all_folders_by_name(home: Path) -> None:
    layout = Layout(str(home / "data"), str(home / "run"), str(home / "config"))
    Path(layout.presence).mkdir(parents=True)
    assert hooks.link_program(layout) and not hooks.link_program(layout)
    for stage in hooks.STAGES:
        Path(hooks.descriptor_path(layout, stage)).write_text(hooks.descriptor_text(layout, stage))
    write(home, "containers.conf.d/50-terok.conf", hooks.dropin_text(layout, SYSTEM))
    write(home, "containers.conf", '[engine]\nhooks_dir = ["/main"]\n')
    order = hooks.config_files({"HOME": str(home)}, uid=1000, by_name=True)
    names = [Path(path).name for path in order if ".conf.d/" in path]
    assert names == sorted(names)
    assert all(".conf.d/" not in path for path in order[: len(order) - len(names)])


@pytest.mark.parametrize(
    ("key", "runs"),
    [("terok.scope", True), ("Terok.Shield.profile", True), ("x.terok", True), ("org.example.title", False)],
)
def test_the_descriptor_matches_every_key_that_resembles_ours(tmp_path: Path, key: str, runs: bool) -> None:
    layout = Layout(str(tmp_path), str(tmp_path), str(tmp_path))
    patterns = hooks.descriptor(layout, "createRuntime")["when"]["annotations"]
    assert any(bool(re.search(pattern, key) and re.search(value, "")) for pattern, value in patterns.items()) is runs
