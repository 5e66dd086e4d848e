"""`terok start`: a stand-in agent in a project directory, from a terminal and without one."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.supervisor.ground.errors import Exit
from tests.lab import scope
from tests.lab.house import House
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

AGENT = """\
#!/bin/sh
# stands in for the vendor's program: asks its provider once, writes into the project, remembers, waits for a word
echo "arguments: $*"
code=$(curl -sS -m 20 -o /dev/null -w '%{http_code}' -H "x-api-key: $ANTHROPIC_API_KEY" "$ANTHROPIC_BASE_URL/v1/models")
echo "provider: $code"
id -u >agent-was-here
echo again >>"$HOME/history"
echo "starts: $(wc -l <"$HOME/history")"
echo READY
read word
echo "word: $word"
"""
PROJECT = "toy-project"
CONTAINER = f"{PROJECT}-claude"


@pytest.fixture(scope="module")
def image(house: House) -> str:
    """The test image with a program `claude` in it."""
    context = house.base / "agent-image"
    context.mkdir()
    (context / "claude").write_text(AGENT)
    (context / "claude").chmod(0o755)
    (context / "Containerfile").write_text(f"FROM {house.image}\nCOPY claude /usr/bin/claude\n")
    house.podman("build", "--quiet", "--tag", "localhost/toy-agent:1", str(context))
    return "localhost/toy-agent:1"


@pytest.fixture
def place(house: House, nothing_left: None) -> Iterator[Path]:
    """An empty project directory; its container, its volume and its scope's credential are removed afterwards."""
    directory = house.home / "src" / PROJECT
    directory.mkdir(parents=True)
    yield directory
    house.terok("rm", "--force", CONTAINER, check=False)
    house.podman("volume", "rm", "--force", f"terok-{PROJECT}-home", check=False)
    house.terok("vault", "remove", PROJECT, scope.PROVIDER, check=False)
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


@pytest.fixture
def provider(house: House, resolver: Resolver) -> Iterator[Upstream]:
    """The stand-in for the provider, and the words that send the scope's requests to it."""
    authority = Authority(house.base / "start-authority.pem", "upstream.test")
    with Upstream(authority.context, resolver.records["upstream.test"][0], 443) as server:
        words = scope.add_words(PROJECT, "https://upstream.test", authority.file)
        house.terok(*words, stdin=scope.SECRET + "\n")
        yield server


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, house: House, argv: list[str], cwd: Path) -> None:
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=house.env | {"TERM": "xterm"}, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.fd, self.text = ours, ""

    def until(self, word: str, seconds: float = 60) -> str:
        """Everything that was printed, once `word` is in what was printed since the last call."""
        begin, deadline = len(self.text), time.monotonic() + seconds
        while word not in self.text[begin:]:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{word!r} did not appear:\n{self.text}"
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""  # EIO: the other side is closed
            assert data, f"the program ended without {word!r}:\n{self.text}"
            self.text += data.decode(errors="replace")
        return self.text

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self, seconds: float = 30) -> int:
        """Wait for its end; returns the exit code."""
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            os.close(self.fd)


def start(house: House, place: Path, *words: str) -> Terminal:
    return Terminal(house, [str(house.program), "start", *words], place)


def test_an_agent_at_work_and_again(house: House, place: Path, image: str, provider: Upstream) -> None:
    first = start(house, place, "claude", "--image", image)
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


def test_a_missing_login_is_asked_for_at_a_terminal(house: House, place: Path, image: str) -> None:
    terminal = start(house, place, "claude", "--image", image)
    terminal.until("Which one?")
    terminal.type("n\r")
    shown = terminal.until("READY")
    assert "provider: 200" not in shown
    terminal.type("\r")
    assert terminal.end() == 0


def test_without_a_terminal_nothing_is_asked(house: House, place: Path, image: str) -> None:
    done = house.terok("start", "claude", "--image", image, cwd=place, check=False)
    assert done.returncode == Exit.NOT_FOUND
    assert f"terok vault add {PROJECT} anthropic" in done.stderr
    assert house.podman("container", "exists", CONTAINER, check=False).returncode == 1
    assert not os.path.exists(house.bundle(CONTAINER).root)


def test_a_key_may_come_from_standard_input(house: House, place: Path, image: str) -> None:
    house.terok("start", "claude", "--image", image, "--login", "key", "--detach", cwd=place, stdin=scope.SECRET + "\n")
    assert scope.PROVIDER in house.terok("vault", "list", "--scope", PROJECT).stdout
    assert scope.SECRET not in house.podman("inspect", CONTAINER).stdout
    house.terok("stop", CONTAINER)
    assert json.loads(house.terok("ps", "--json").stdout) == []
    assert [row["state"] for row in json.loads(house.terok("ps", "--all", "--json").stdout)] == ["exited"]


def test_another_project_of_the_same_name_is_refused(house: House, place: Path, image: str) -> None:
    house.terok("start", "claude", "--image", image, "--login", "none", "--detach", cwd=place)
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


def test_rm_takes_tokens_and_bundle_with_the_container(house: House, place: Path, image: str) -> None:
    house.terok("start", "claude", "--image", image, "--login", "none", "--detach", cwd=place)
    refused = house.terok("rm", CONTAINER, check=False)
    assert refused.returncode == Exit.REFUSED
    house.terok("rm", "--force", CONTAINER)
    assert house.podman("container", "exists", CONTAINER, check=False).returncode == 1
    assert not os.path.exists(house.bundle(CONTAINER).root)
