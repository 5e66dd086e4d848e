"""`terok start` without Podman: recipes, names of projects, and the words that Podman gets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.runtime.agent import recipes
from terok_host.runtime.agent.order import Order
from terok_host.runtime.agent.scopes import home_volume
from terok_host.runtime.agent.start import command, run_words
from terok_host.runtime.project import names
from terok_host.sidecars.roster import files as roster
from terok_host.sidecars.roster.compile import compile_files
from terok_host.supervisor.ground.errors import Exit, TerokError
from terok_host.supervisor.ground.layout import check_name

CLAUDE = recipes.RECIPES["claude"]


def describe(directory: Path, home: Path, **given_options: str | None) -> names.Place:
    options: dict[str, str | None] = {"scope": None, "name": None, "workspace": None, **given_options}
    return names.describe(
        "claude",
        str(directory),
        str(home),
        scope=options["scope"],
        name=options["name"],
        workspace=options["workspace"],
    )


@pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=list(recipes.RECIPES))
def test_every_recipe_makes_a_whole_containerfile(recipe: recipes.Recipe) -> None:
    text = recipes.containerfile(recipe, "debian:13")
    instructions = [line.split()[0] for line in text.splitlines() if not line.startswith("#")]
    assert instructions[0] == "FROM"
    assert set(instructions) <= {"FROM", "ENV", "RUN", "USER", "WORKDIR", "CMD"}
    # the last user is not root, whatever comes before
    assert [line for line in text.splitlines() if line.startswith("USER")] == ["USER 1000:1000"]
    assert f"CMD {json.dumps(list(recipe.command))}" in text
    for package in (*recipe.npm, *recipe.pypi):
        assert package in text


def test_a_recipes_tag_follows_its_text() -> None:
    image = recipes.tag(CLAUDE, "debian:13")
    assert re.fullmatch(r"localhost/terok-agent-claude:[0-9a-f]{12}", image)
    assert recipes.tag(CLAUDE, "debian:13") == image != recipes.tag(CLAUDE, "debian:12")


def test_recipes_are_of_agents_that_the_roster_knows(tmp_path: Path) -> None:
    catalogue = compile_files([str(path) for path in Path(roster.bundled()).glob("*.yml")])
    assert set(recipes.RECIPES) - {"shell"} <= set(catalogue.agents)


def test_an_unknown_agent_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TerokError) as caught:
        recipes.recipe_of("clod")
    assert caught.value.code == Exit.NOT_FOUND
    assert "claude" in (caught.value.fix or "")


def test_names_come_from_the_directory(tmp_path: Path) -> None:
    place = tmp_path / "My Project (old)"
    place.mkdir()
    found = describe(place, tmp_path / "home")
    assert (found.scope, found.container) == ("my-project-old", "my-project-old-claude")
    assert (found.workspace, found.writable) == (str(place), True)
    assert describe(place, tmp_path / "home", scope="work", name="box").scope == "work"


@given(st.text(max_size=120))
def test_every_directory_gives_a_usable_name(text: str) -> None:
    assert check_name(names.slug(text))


@pytest.mark.parametrize("given_text", ["ro", "rw"])
def test_a_workspace_may_be_read_only(tmp_path: Path, given_text: str) -> None:
    (tmp_path / "src").mkdir()
    found = describe(tmp_path, tmp_path / "home", workspace=f"src:{given_text}")
    assert (found.workspace, found.writable) == (str(tmp_path / "src"), given_text == "rw")


@pytest.mark.parametrize("directory", ["/", ".", "..", "link"])
def test_a_workspace_that_holds_the_home_directory_is_refused(tmp_path: Path, directory: str) -> None:
    home = tmp_path / "homes" / "me"
    home.mkdir(parents=True)
    (home / "link").symlink_to(tmp_path / "homes")
    with pytest.raises(TerokError) as caught:
        describe(home, home, workspace=directory)
    assert caught.value.code == Exit.REFUSED


def test_a_workspace_that_podman_would_misread_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    with pytest.raises(TerokError, match="colon"):
        describe(tmp_path / "a:b", tmp_path / "home")


def test_a_workspace_must_exist(tmp_path: Path) -> None:
    with pytest.raises(TerokError) as caught:
        describe(tmp_path, tmp_path / "home", workspace="missing")
    assert caught.value.code == Exit.NOT_FOUND


def test_prompts_are_off_only_where_the_container_is_not_restricted() -> None:
    assert command(Order("claude", words=("-p", "hello")), CLAUDE) == ["claude", *CLAUDE.unattended, "-p", "hello"]
    assert command(Order("claude", restricted=True), CLAUDE) == ["claude"]


def test_a_variable_that_turns_prompts_off_is_left_out_too(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    place = describe(tmp_path, tmp_path / "elsewhere" / "home", workspace="src")
    for restricted in (False, True):
        order = Order("copilot", restricted=restricted)
        words = run_words(order, recipes.RECIPES["copilot"], place, "IMAGE", terminal={"TERM": "xterm"}, root=False)
        assert ("COPILOT_ALLOW_ALL=true" in words) is not restricted
        assert "TERM=xterm" in words


@pytest.mark.parametrize("root", [False, True])
def test_podmans_words(tmp_path: Path, root: bool) -> None:
    (tmp_path / "src").mkdir()
    place = describe(tmp_path, tmp_path / "elsewhere" / "home", workspace="src:ro")
    words = run_words(Order("claude", rm=True), CLAUDE, place, "IMAGE", terminal={"TERM": "xterm"}, root=root)
    assert words[words.index("IMAGE") :] == ["IMAGE", "claude", *CLAUDE.unattended]
    assert f"{tmp_path}/src:/workspace:ro,z" in words
    assert f"{home_volume(place.scope)}:/home/agent" in words
    assert "--rm" in words
    assert ("keep-id:uid=1000,gid=1000" in words) is not root
    assert not any(os.environ.get("HOME", "/root") == word for word in words)
