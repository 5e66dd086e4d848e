"""`terok start` with the agents as their vendors publish them, at a pseudo-terminal, with nothing configured.

Too heavy for every run: `make test-agents` installs them below build/agents and runs this. One question is answered,
the login; then the prompt of the agent is there, and a whole turn with a stand-in model goes through the vault.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab.house import House
from tests.lab.terminal import Terminal
from tests.standins import models
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

INSTALLED = Path(__file__).parents[2] / "build/agents"
SHOWN = ("/usr/bin", "/usr/lib", "/usr/share", "/etc/ssl", "/etc/alternatives")
ANSWER = "one two three"


class Agent(NamedTuple):
    """Whose key it asks for, what its screen shows when it waits for a person, whether the stand-ins speak to it."""

    provider: str
    secret: str
    prompt: str
    turn: bool = True


AGENTS = {
    "claude": Agent("anthropic", "sk-ant-api03-REAL-w3Xq0Zt8LhVn5KyB7cRj2MdF9sPgU4aE6iToQ1", "bypass permissions on"),
    "codex": Agent("openai", "sk-REAL-openai-0123456789abcdefghijklmnopqrstuv", "Ask Codex to do anything"),
    "opencode": Agent("anthropic", "sk-ant-api03-REAL-w3Xq0Zt8LhVn5KyB7cRj2MdF9sPgU4aE6iToQ1", "Ask anything"),
    "gemini": Agent("google", "AIzaREALgoogle0123456789abcdefghijklmno", "Type your message", turn=False),
    "copilot": Agent("copilot", "github_pat_" + "a" * 22 + "_" + "b" * 59, "/ commands", turn=False),
}


@pytest.fixture
def vendor(house: House, resolver: Resolver) -> Iterator[Upstream]:
    """All of the vendors at one address, known by a certificate that only the vault trusts."""
    hosts = [name for name, addresses in resolver.records.items() if addresses == resolver.records["api.openai.com"]]
    authority = Authority(house.base / "agents-authority.pem", *hosts)
    with Upstream(authority.context, resolver.records["api.openai.com"][0], 443) as vendors:
        models.serve(vendors)
        yield vendors


@pytest.mark.timeout(200)
@pytest.mark.parametrize("which", AGENTS)
def test_one_question_and_the_prompt(house: House, vendor: Upstream, which: str) -> None:
    agent = AGENTS[which]
    place = house.home / f"new-{which}"
    place.mkdir()
    scope, container = place.name, f"{place.name}-{which}"
    mounts = [word for path in SHOWN if Path(path).exists() for word in ("--mount", f"{path}:{path}:ro")]
    image = ["--image", house.image, *mounts, "--mount", f"{INSTALLED}:/agents:ro"]
    path = ["--env", "PATH=/agents/node_modules/.bin:/usr/bin:/bin"]
    terminal = Terminal(house, [str(house.program), "start", which, *image, *path], place, size=(36, 100))
    try:
        terminal.until("Which one? [k] ")
        terminal.type("\r")
        terminal.until("Key for ")
        began = time.monotonic()
        terminal.type(agent.secret + "\r")
        terminal.until_shown(agent.prompt)
        print(f"{which}: its prompt after {time.monotonic() - began:.1f} s")
        assert agent.secret not in terminal.text
        if agent.turn:
            words = ["vault", "add", scope, agent.provider, "--allow-private", "--replace"]
            words += ["--ca-bundle", str(house.base / "agents-authority.pem")]
            house.terok(*words, stdin=agent.secret + "\n")
            terminal.type("say hi")
            terminal.until_shown("say hi")
            terminal.type("\r")
            terminal.until_shown(ANSWER)
    finally:
        house.terok("rm", "--force", container, check=False)
        terminal.process.terminate()
        terminal.end()
        house.podman("volume", "rm", "--force", f"terok-{scope}-home", check=False)
        house.terok("vault", "remove", scope, agent.provider, check=False)
        place.rmdir()
