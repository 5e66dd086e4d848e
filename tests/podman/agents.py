"""Agents as their vendors publish them, in a container without a base URL: whole turns with a stand-in model.

Too heavy for every run: `make test-agents` installs them below build/agents and runs this. Each agent is asked twice:
once for an answer, once to run a command, so that its tool, the second request and the last answer are seen too.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab import scope
from tests.lab.house import House
from tests.standins import models
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

from .conftest import VENDORS

INSTALLED = Path(__file__).parents[2] / "build/agents"
SHOWN = ("/usr/bin", "/usr/lib", "/usr/share", "/etc/ssl", "/etc/alternatives")
SAY, TOOL = "say hi", "Please run: `printf STAND-%s-42 IN`"
ANSWER, RESULT = "one two three", "The tool said: STAND-IN-42"


class Login(NamedTuple):
    """A credential in a scope of its own: its secret, and more words for `terok vault add`."""

    provider: str
    secret: str
    words: tuple[str, ...] = ()


LOGINS = {
    "anthropic": Login("anthropic", scope.SECRET),
    "subscription": Login("anthropic", "sk-ant-oat01-REAL-0123456789abcdefghijklmnopqrstuv", ("--auth", "oauth")),
    "openai": Login("openai", "sk-REAL-openai-0123456789abcdefghijklmnopqrstuv"),
    "google": Login("google", "AIzaREALgoogle0123456789abcdefghijklmno"),
    "copilot": Login("copilot", "github_pat_REAL0123456789abcdefgh_" + "0123456789" * 6),
}


class Agent(NamedTuple):
    """An agent's command line in its mode without a terminal.

    Attributes:
        name: the roster's.
        login: which of `LOGINS` its scope has.
        command: `{}` stands for the prompt.
        unattended: what lets it run commands without a question.
    """

    name: str
    login: str
    command: str
    unattended: str = ""


CLAUDE = ("claude -p {}", "--dangerously-skip-permissions")
CODEX = ("codex exec --skip-git-repo-check {}", "--dangerously-bypass-approvals-and-sandbox")
AGENTS = {
    "claude": Agent("claude", "anthropic", *CLAUDE),
    "claude-subscription": Agent("claude", "subscription", *CLAUDE),
    "codex": Agent("codex", "openai", *CODEX),
    "gemini": Agent("gemini", "google", "gemini -p {}", "--yolo"),
    "opencode-anthropic": Agent("opencode", "anthropic", "opencode run {}"),
    "opencode-openai": Agent("opencode", "openai", "opencode run {}"),
    "opencode-google": Agent("opencode", "google", "opencode run {}"),
    "copilot": Agent("copilot", "copilot", "copilot -p {}", "--allow-all-tools"),
    "copilot-anthropic": Agent("copilot", "anthropic", "copilot -p {} --model claude-sonnet-4-5", "--allow-all-tools"),
}


@pytest.fixture(scope="module")
def vendor(house: House, resolver: Resolver) -> Iterator[Upstream]:
    """All of the vendors at one address, known by a certificate that only the vault trusts."""
    authority = Authority(house.base / "agents-authority.pem", *VENDORS)
    for name, login in LOGINS.items():
        secret = json.dumps({"access_token": login.secret}) if "oauth" in login.words else login.secret
        words = ["vault", "add", f"agents-{name}", login.provider, *login.words, "--allow-private"]
        house.terok(*words, "--ca-bundle", authority.file, "--replace", stdin=secret + "\n")
    with Upstream(authority.context, resolver.records["api.openai.com"][0], 443) as vendors:
        models.serve(vendors)
        yield vendors


@pytest.fixture
def box(house: House, name: str, request: pytest.FixtureRequest) -> str:
    """A container with the agents, for the agent that the test is about."""
    agent = AGENTS[request.getfixturevalue("which")]
    shown = [word for path in SHOWN if Path(path).exists() for word in ("--volume", f"{path}:{path}:ro")]
    house.terok(
        "run", name, "--scope", f"agents-{agent.login}", "--agent", agent.name, "--network", "airlock", "--",
        "--detach", *shown, "--volume", f"{INSTALLED}:/agents:ro", "--workdir", "/tmp",
        "--env", "PATH=/agents/node_modules/.bin:/usr/bin:/bin", house.image, "sleep", "1000",
    )  # fmt: skip
    return name


@pytest.mark.parametrize(("prompt", "answer"), [(SAY, ANSWER), (TOOL, RESULT)], ids=["says", "calls"])
@pytest.mark.parametrize("which", AGENTS)
def test_a_turn(house: House, vendor: Upstream, box: str, which: str, prompt: str, answer: str) -> None:
    agent = AGENTS[which]
    vendor.seen.clear()
    command = agent.command.format(f"'{prompt}'") + (f" {agent.unattended}" if prompt == TOOL else "")
    began = time.monotonic()
    done = house.podman("exec", box, "timeout", "100", "sh", "-c", command, check=False, timeout=120)
    print(f"\n{which}: {time.monotonic() - began:.1f} s, {version(house, box, agent.name)}")
    report = story(house, box, vendor, done)
    assert done.returncode == 0 and answer in done.stdout, report
    secret = LOGINS[agent.login].secret
    sent = json.dumps([[request.path, request.headers, request.body.decode("latin-1")] for request in vendor.seen])
    assert secret in sent, report
    variables = house.podman("exec", box, "env").stdout
    tokens = [line.partition("=")[2] for line in variables.splitlines() if line.startswith("TEROK_TOKEN_")]
    assert tokens and not [token for token in tokens if token in sent], "no phantom upstream"
    words = ("exec", "--interactive", box, "grep", "-rlF", "-f", "-", "/root", "/run/terok", "/tmp")
    assert house.podman(*words, stdin=secret, check=False).stdout == "" and secret not in variables
    assert "9419" not in "".join(line for line in variables.splitlines() if not line.startswith("TEROK_"))


def version(house: House, box: str, program: str) -> str:
    done = house.podman("exec", box, "sh", "-c", f"{program} --version 2>/dev/null", check=False)
    return done.stdout.strip().replace("\n", " ")


def story(house: House, box: str, vendor: Upstream, done: subprocess.CompletedProcess[str]) -> str:
    """What the agent printed, what arrived at the vendor, what the airlock and the vault said."""
    seen = [f"{request.method} {request.header('host')}{request.path}" for request in vendor.seen]
    audit = Path(house.bundle(box).audit).read_text().splitlines()
    lines = [f"exit {done.returncode}", done.stdout, done.stderr, *seen, *audit]
    return "\n".join(lines)
