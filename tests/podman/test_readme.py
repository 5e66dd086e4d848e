"""A newcomer who follows only the README: its own commands, in its order, in a home where nothing was done before.

Two things are not as on the page: the image's name stands for one that the test made, and the provider is a stand-in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import scope
from tests.lab.house import House
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

README = Path(__file__).parents[2] / "README.md"
SAME = ("terok vault add", "terok ssh generate", "terok run", "podman exec box ssh-add", "podman exec box nslookup")
"""Commands whose output must look as on the page; `terok cleanup` and `podman rm` too, the others vary by nature."""
FAILS = ("podman exec box curl", "podman exec box nslookup")
"""Commands that show a refusal and say so by their exit code."""


def commands() -> list[tuple[str, str]]:
    """(command, output) of every `$ ` line of the section for every day, in its order."""
    section = README.read_text().split("## Every day")[1].split("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    found: list[tuple[str, str]] = []
    for line in "".join(blocks).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def shape(text: str) -> list[str]:
    """Output without what differs from run to run: keys, ids, times, numbers."""
    text = re.sub(r"AAAA\S+|SHA256:\S+|\b[0-9a-f]{64}\b|\b(?:[A-Z0-9]{4}-){8}[A-Z0-9]{4}\b", "KEY", text)
    return [re.sub(r"\d+", "N", line).rstrip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def newcomer(resolver: Resolver) -> Iterator[House]:
    made = House.build(setup=False)
    made.env["PATH"] = f"{made.program.parent}:{made.env['PATH']}"
    made.podman("tag", made.image, "localhost/work:1")
    (made.home / "key").write_text(scope.SECRET + "\n")
    yield made
    made.destroy()


def test_the_readmes_commands_work_and_print_what_it_shows(newcomer: House, resolver: Resolver) -> None:
    assert "terok setup " in README.read_text()
    newcomer.run(["terok", "setup"])
    authority = Authority(newcomer.base / "authority.pem", "upstream.test")
    stand_in = f"--upstream https://upstream.test --allow-private --ca-bundle {authority.file}"
    with Upstream(authority.context, resolver.records["upstream.test"][0], 443) as provider:
        for command, printed in commands():
            words = command.replace(" < key", f" {stand_in} < key")
            done = newcomer.run(["sh", "-c", f"exec 2>&1; {words}"], check=False)
            assert (done.returncode == 0) is not command.startswith(FAILS), (command, done.stdout)
            if command.startswith((*SAME, "terok cleanup", "podman rm")):
                assert shape(done.stdout) == shape(printed), command
            if command.startswith("terok run"):
                agents_request(newcomer, provider)


def agents_request(house: House, provider: Upstream) -> None:
    """What an agent in the container does, with nothing but the environment that it was given."""
    key = '-H "x-api-key: $ANTHROPIC_API_KEY"'
    ask = f'curl -sS -m 20 -o /dev/null -w "%{{http_code}}" {key} $TEROK_URL_ANTHROPIC/v1/models'
    assert house.podman("exec", "box", "sh", "-c", ask).stdout == "200"
    assert provider.seen[-1].header("x-api-key") == scope.SECRET
    assert scope.SECRET not in house.podman("exec", "box", "env").stdout
