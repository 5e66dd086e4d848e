"""`terok start`: a stand-in agent in a project directory, from a terminal and without one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.runtime.project import connected
from terok_host.sidecars.store import keys
from terok_host.supervisor.ground.errors import Exit
from tests.lab import scope
from tests.lab.house import House
from tests.lab.terminal import Terminal
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.forge import PASSWORD, HttpsForge
from tests.standins.gate import git, make_upstream
from tests.standins.stores import unlocked
from tests.standins.upstream import Upstream

PROJECT = "toy-project"
CONTAINER = f"{PROJECT}-claude"


@pytest.fixture
def place(house: House, nothing_left: None) -> Iterator[Path]:
    """An empty project directory; its container, its volume and its scope's credential are removed afterwards."""
    directory = house.home / "src" / PROJECT
    directory.mkdir(parents=True)
    yield directory
    house.terok("rm", "--force", CONTAINER, check=False)
    house.podman("volume", "rm", "--force", f"terok-{PROJECT}-home", check=False)
    house.terok("vault", "remove", PROJECT, scope.PROVIDER, check=False)
    shutil.rmtree(directory)


@pytest.fixture
def provider(house: House, resolver: Resolver) -> Iterator[Upstream]:
    """The stand-in for the provider, and the words that send the scope's requests to it."""
    authority = Authority(house.base / "start-authority.pem", "upstream.test")
    with Upstream(authority.context, resolver.records["upstream.test"][0], 443) as server:
        words = scope.add_words(PROJECT, "https://upstream.test", authority.file)
        house.terok(*words, stdin=scope.SECRET + "\n")
        yield server


def start(house: House, place: Path, *words: str) -> Terminal:
    return Terminal(house, [str(house.program), "start", *words], place)


def test_an_agent_at_work_and_again(house: House, place: Path, agent_image: str, provider: Upstream) -> None:
    first = start(house, place, "claude", "--image", agent_image)
    first.until(f"Use the existing scope {PROJECT} for {place}? [y/N] ")
    first.type("y\r")
    shown = first.until("READY")
    assert "arguments: --dangerously-skip-permissions" in shown
    assert "provider: 200" in shown
    assert provider.seen[-1].header("x-api-key") == scope.SECRET
    assert scope.SECRET not in shown
    assert house.podman("inspect", "--format", "{{.HostConfig.NetworkMode}}", CONTAINER).stdout.strip() == "none"
    # the file belongs to the operator, and the agent was not root
    assert (place / "agent-was-here").stat().st_uid == os.getuid()
    assert (place / "agent-was-here").read_text() == "1000\n"
    listed = json.loads(house.terok("ps", "--json").stdout)
    assert [(row["name"], row["state"], row["workspace"]) for row in listed] == [(CONTAINER, "running", str(place))]
    inside = house.terok("shell", CONTAINER, "--", "cat", "/workspace/agent-was-here").stdout
    assert inside == "1000\n"
    first.type("go\r")
    first.until("word: go")
    assert first.end() == 0
    # the same container, without naming the agent; its home has kept what it remembered
    second = start(house, place)
    assert "starts: 2" in second.until("READY")
    second.type("\r")
    assert second.end() == 0


def test_a_missing_login_is_asked_for_at_a_terminal(house: House, place: Path, agent_image: str) -> None:
    terminal = start(house, place, "claude", "--image", agent_image)
    terminal.until("Which one?")
    terminal.type("n\r")
    shown = terminal.until("READY")
    assert "provider: 200" not in shown
    terminal.type("\r")
    assert terminal.end() == 0


@pytest.mark.parametrize("agent", ["opencode", "copilot", "aider", "gemini"])
def test_every_agents_login_is_asked_for(house: House, place: Path, agent_image: str, agent: str) -> None:
    terminal = start(house, place, agent, "--image", agent_image)
    assert "k  type a key of" in terminal.until("Which one?")
    terminal.process.terminate()
    terminal.end()


def test_without_a_terminal_nothing_is_asked(house: House, place: Path, agent_image: str) -> None:
    done = house.terok("start", "claude", "--image", agent_image, cwd=place, check=False)
    assert done.returncode == Exit.NOT_FOUND
    assert f"terok vault add {PROJECT} anthropic" in done.stderr
    assert house.podman("container", "exists", CONTAINER, check=False).returncode == 1
    assert not os.path.exists(house.bundle(CONTAINER).root)


def test_a_key_may_come_from_standard_input(house: House, place: Path, agent_image: str) -> None:
    house.terok(
        "start", "claude", "--image", agent_image, "--login", "key", "--detach", cwd=place, stdin=scope.SECRET + "\n"
    )
    assert scope.PROVIDER in house.terok("vault", "list", "--scope", PROJECT).stdout
    assert scope.SECRET not in house.podman("inspect", CONTAINER).stdout
    house.terok("stop", CONTAINER)
    assert json.loads(house.terok("ps", "--json").stdout) == []
    assert [row["state"] for row in json.loads(house.terok("ps", "--all", "--json").stdout)] == ["exited"]


def test_another_project_of_the_same_name_is_refused(house: House, place: Path, agent_image: str) -> None:
    house.terok("start", "claude", "--image", agent_image, "--login", "none", "--detach", cwd=place)
    other = house.home / "other" / PROJECT
    other.mkdir(parents=True)
    done = house.terok("start", "claude", cwd=other, check=False)
    assert done.returncode == Exit.REFUSED
    assert str(place) in done.stderr


def test_the_home_directory_is_no_workspace(house: House) -> None:
    done = house.terok("start", "claude", check=False)
    assert done.returncode == Exit.REFUSED
    assert "home directory" in done.stderr


def test_an_image_that_cannot_be_built_leaves_nothing(house: House, place: Path) -> None:
    house.terok("config", "set", "agents.base_image", house.image)
    try:
        done = house.terok("start", "claude", "--login", "none", cwd=place, check=False, timeout=110)
        assert done.returncode == Exit.FAILURE
        assert "could not be built" in done.stderr
        assert not os.path.exists(house.bundle(CONTAINER).root)
    finally:
        house.terok("config", "set", "agents.base_image", "debian:13")


def test_rm_takes_tokens_and_bundle_with_the_container(house: House, place: Path, agent_image: str) -> None:
    house.terok("start", "claude", "--image", agent_image, "--login", "none", "--detach", cwd=place)
    refused = house.terok("rm", CONTAINER, check=False)
    assert refused.returncode == Exit.REFUSED
    house.terok("rm", "--force", CONTAINER)
    assert house.podman("container", "exists", CONTAINER, check=False).returncode == 1
    assert not os.path.exists(house.bundle(CONTAINER).root)


def test_a_project_file_counts_after_trust(house: House, place: Path, agent_image: str) -> None:
    (place / "docs").mkdir(exist_ok=True)
    (place / "Containerfile").write_text(f"FROM {agent_image}\nRUN echo made >/made\n")
    text = (
        "agent: claude\ncontainerfile: Containerfile\nenvironment: {GREETING: hello there}\nallow: [a.example:8443]\n"
    )
    (place / ".terok.yml").write_text(text + "mounts: ['docs:/docs:ro']\n")
    refused = house.terok("start", "--login", "none", "--detach", cwd=place, check=False)
    assert refused.returncode == Exit.REFUSED
    assert f"fix: terok trust {place}" in refused.stderr
    assert house.podman("container", "exists", CONTAINER, check=False).returncode == 1
    shown = house.terok("trust", cwd=place, check=False)
    assert shown.returncode == Exit.MANUAL
    assert "+environment: {GREETING: hello there}" in shown.stdout
    assert "+RUN echo made >/made" in shown.stdout
    asking = Terminal(house, [str(house.program), "trust"], place)
    asking.until("Trust this content? [y/N]")
    asking.type("y\r")
    assert asking.end() == 0
    house.terok("start", "--login", "none", "--detach", cwd=place, timeout=110)
    inside = house.terok("shell", CONTAINER, "--", "sh", "-c", "cat /made; echo $GREETING; ls -d /docs").stdout
    assert inside.split() == ["made", "hello", "there", "/docs"]
    assert "a.example " in house.terok("shield", "resolve", CONTAINER).stdout
    # the agent changes the file: the container that exists goes on, and a new one needs trust again
    (place / ".terok.yml").write_text(text + "scope: another\n")
    house.terok("stop", CONTAINER)
    again = house.terok("start", "--detach", cwd=place)
    assert "The project file has changed" in again.stderr
    house.terok("rm", "--force", CONTAINER)
    assert house.terok("start", "--detach", cwd=place, check=False).returncode == Exit.REFUSED
    house.podman("rmi", "--force", "--ignore", *images_of_projects(house))


def images_of_projects(house: House) -> list[str]:
    listed = house.podman("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    return [name for name in listed if name.startswith("localhost/terok-project-")]


def test_a_clone_through_the_gate_leaves_the_directory_alone(house: House, place: Path, agent_image: str) -> None:
    words = ("start", "claude", "--image", agent_image, "--login", "none", "--detach", "--clone", "--scope", PROJECT)
    missing = house.terok(*words, cwd=place, check=False)
    assert missing.returncode == Exit.NOT_FOUND
    assert f"terok gate add {PROJECT} URL" in missing.stderr
    root = house.base / "forge"
    root.mkdir()
    make_upstream(root / "toy.git")
    forge = HttpsForge(root, house.base)
    try:
        if not os.path.exists(house.layout.vault_key):
            keys.create_vault(house.layout)
        with unlocked(house.layout) as store:
            store.put("credential", PROJECT, "localhost", PASSWORD.encode(), {"auth": "basic"})
        house.terok("gate", "add", PROJECT, f"{forge.url}/toy.git", "--ca-file", str(forge.ca_file))
        house.terok(*words, cwd=place)
        log = house.terok("shell", CONTAINER, "--", "sh", "-c", WAIT_FOR_CLONE).stdout
        assert log == git("log", "-1", "--format=%H", cwd=root / "toy.git").stdout
        assert list(place.iterdir()) == []
        # another start finds the container by the directory, and the clone as it was
        house.terok("stop", CONTAINER)
        house.terok("start", "--detach", cwd=place)
        assert house.terok("shell", CONTAINER, "--", "sh", "-c", WAIT_FOR_CLONE).stdout == log
    finally:
        house.terok("rm", "--force", CONTAINER, check=False)
        house.podman("volume", "rm", "--force", f"terok-{CONTAINER}-clone")
        house.terok("gate", "remove", PROJECT, "--yes", check=False)
        house.terok("vault", "remove", PROJECT, "localhost", check=False)
        forge.close()


WAIT_FOR_CLONE = "until [ -e agent-was-here ]; do :; done; git log -1 --format=%H"
"""The agent writes its file once the clone is there; the test's timeout bounds the wait."""


@pytest.mark.parametrize(("option", "why"), [("--restricted", "is not restricted"), ("--rm", "stays when it ends")])
def test_a_container_that_exists_is_not_what_the_options_say(
    house: House, place: Path, agent_image: str, option: str, why: str
) -> None:
    words = ("start", "claude", "--login", "none", "--image", agent_image)
    house.terok(*words, "--detach", cwd=place)
    house.terok("stop", CONTAINER)
    refused = house.terok("start", "claude", option, "--detach", cwd=place, check=False)
    assert refused.returncode == Exit.REFUSED
    assert f"The container {CONTAINER} exists and {why}." in refused.stderr
    assert f"terok rm {CONTAINER}" in refused.stderr
    house.terok("rm", CONTAINER)
    if option == "--restricted":  # one that is goes on with the option and without it
        house.terok(*words, "--restricted", "--detach", cwd=place)
        for more in ((), ("--restricted",)):
            house.terok("stop", CONTAINER)
            house.terok("start", "claude", "--detach", *more, cwd=place)


def test_a_login_that_is_refused_connects_no_scope(house: House, place: Path, agent_image: str) -> None:
    words = ("start", "claude", "--login", "key", "--scope", "mistyped", "--image", agent_image, "--detach")
    done = house.terok(*words, cwd=place, check=False, stdin="ghp_" + "a" * 36 + "\n")
    assert done.returncode == Exit.REFUSED and "begins like" in done.stderr
    assert connected.scopes(house.layout, str(place)) == []
