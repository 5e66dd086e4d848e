"""Whose credentials `terok start` takes: the author of a repository chooses its name, and gets none by it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.runtime.project import connected
from terok_host.supervisor.ground.errors import Exit
from tests.lab import scope
from tests.lab.house import House
from tests.lab.terminal import Terminal

SCOPE = "prized"
CONTAINER = f"{SCOPE}-claude"
WORDS = ("start", "claude", "--login", "none", "--detach")


@pytest.fixture
def clone(house: House, nothing_left: None) -> Iterator[Path]:
    """A directory that is named like a scope which the operator has; its containers are removed afterwards."""
    house.terok(*scope.add_words(SCOPE, "https://upstream.test", None), stdin=scope.SECRET + "\n")
    directory = house.home / "clones" / SCOPE
    directory.mkdir(parents=True)
    yield directory
    for name in (CONTAINER, f"{SCOPE}-shell"):
        house.terok("rm", "--force", name, check=False)
    house.podman("volume", "rm", "--force", f"terok-{SCOPE}-home", check=False)
    house.terok("vault", "remove", SCOPE, scope.PROVIDER, check=False)
    shutil.rmtree(directory.parent)
    shutil.rmtree(house.layout.trust, ignore_errors=True)


def asked(house: House, place: Path, *words: str) -> Terminal:
    terminal = Terminal(house, [str(house.program), *words], place, size=(24, 300))
    terminal.until(f"Use the existing scope {SCOPE} for {place}? [y/N] ")
    assert f"It holds the credential {scope.PROVIDER}" in terminal.text
    return terminal


def test_a_name_alone_gives_no_scope(house: House, clone: Path, agent_image: str) -> None:
    words = (*WORDS, "--image", agent_image)
    refused = house.terok(*words, cwd=clone, check=False)
    assert refused.returncode == Exit.REFUSED
    assert f"fix: terok start claude --scope {SCOPE}" in refused.stderr
    for answer in ("\r", "n\r", "maybe\r", "\x04"):
        terminal = asked(house, clone, *words)
        terminal.type(answer)
        terminal.until("terok start claude --scope ANOTHER")
        assert terminal.end() == Exit.REFUSED
    assert house.podman("container", "exists", CONTAINER, check=False).returncode == 1
    assert connected.scopes(house.layout, str(clone)) == []


def test_one_yes_is_remembered_for_the_directory(house: House, clone: Path, agent_image: str) -> None:
    words = (*WORDS, "--image", agent_image)
    terminal = asked(house, clone, *words)
    terminal.type("y\r")
    assert terminal.end(60) == 0
    house.terok("rm", "--force", CONTAINER)
    house.terok(*words, cwd=clone)
    house.terok("stop", CONTAINER)
    # another repository in its place gets neither the scope nor the container that has it
    shutil.rmtree(clone)
    clone.mkdir()
    for again in (("start",), ("start", "claude"), ("start", "claude", "--name", "x", "--image", agent_image)):
        refused = house.terok(*again, "--login", "none", "--detach", cwd=clone, check=False)
        assert refused.returncode == Exit.REFUSED, again
        assert f"--scope {SCOPE}" in refused.stderr
    house.terok("start", "--detach", "--scope", SCOPE, cwd=clone)
    house.terok("stop", CONTAINER)
    house.terok("start", "--detach", cwd=clone)


def test_a_profile_of_that_name_makes_a_scope_too(house: House, clone: Path, agent_image: str) -> None:
    """A profile that is named like a scope opens the network of its containers."""
    house.terok("vault", "remove", SCOPE, scope.PROVIDER)
    named = clone.parent / "dev-python"
    named.mkdir()
    refused = house.terok(*WORDS, "--image", agent_image, cwd=named, check=False)
    assert refused.returncode == Exit.REFUSED
    assert "--scope dev-python" in refused.stderr


def test_a_scope_that_is_named_is_used_again(house: House, clone: Path, agent_image: str) -> None:
    other = clone.parent / "other"
    other.mkdir()
    house.terok(*WORDS, "--scope", SCOPE, "--name", CONTAINER, "--image", agent_image, cwd=other)
    words = ("start", "shell", "--name", f"{SCOPE}-shell", "--detach", "--image", agent_image)
    assert f"scope {SCOPE}" in house.terok(*words, cwd=other).stderr
    mixed = house.terok("start", "claude", "--name", CONTAINER, "--scope", "another", cwd=other, check=False)
    assert mixed.returncode == Exit.REFUSED
    assert f"uses the scope {SCOPE}" in mixed.stderr


def test_a_scope_that_start_made_is_the_directorys_own(house: House, clone: Path, agent_image: str) -> None:
    """It is new at the first start, holds a volume then, and is not asked for again; a second directory asks."""
    house.terok("vault", "remove", SCOPE, scope.PROVIDER)
    words = (*WORDS, "--image", agent_image)
    for _ in range(2):
        house.terok(*words, cwd=clone)
        house.terok("rm", "--force", CONTAINER)
    second = clone.parent / "deeper" / SCOPE
    second.mkdir(parents=True)
    assert house.terok(*words, cwd=second, check=False).returncode == Exit.REFUSED
    assert connected.directories(house.layout, SCOPE) == [str(clone)]


def test_a_project_file_gives_no_scope_by_repeating_the_directorys_name(
    house: House, clone: Path, agent_image: str
) -> None:
    text = f"agent: claude\nscope: {SCOPE}\n"
    (clone / ".terok.yml").write_text(text)
    words = ("start", "--login", "none", "--detach", "--image", agent_image)
    refused = house.terok(*words, cwd=clone, check=False)
    assert refused.returncode == Exit.REFUSED
    assert f"fix: terok trust {clone}" in refused.stderr
    shown = house.terok("trust", "--yes", cwd=clone).stdout
    assert f"use the credentials, keys and mirror of the scope {SCOPE}" in shown
    house.terok(*words, cwd=clone)
    house.terok("rm", "--force", CONTAINER)
    # the trusted text in another repository at the same path is not enough
    shutil.rmtree(clone)
    clone.mkdir()
    (clone / ".terok.yml").write_text(text)
    again = house.terok(*words, cwd=clone, check=False)
    assert again.returncode == Exit.REFUSED
    assert f"--scope {SCOPE}" in again.stderr
