"""A newcomer who follows only the pages: their own commands, in their order, in a home where nothing was done before.

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

ROOT = Path(__file__).parents[2]
README, TUTORIAL = ROOT / "README.md", ROOT / "docs/tutorial.md"
SAME = (
    "terok vault add", "terok ssh generate", "terok run", "terok shield allow",
    "podman exec box ssh-add", "podman exec box nslookup",
)  # fmt: skip
"""Commands whose output must look as on the page; `terok cleanup` and `podman rm` too, the others vary by nature."""
REFUSED = ("curl: (", "** server can't find")
"""What a command prints that shows a refusal; its exit code says so too."""


def commands(page: Path) -> list[tuple[str, str]]:
    """(command, output) of every `$ ` line of a page's blocks, in its order."""
    blocks = re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL)
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


@pytest.mark.parametrize("page", [README, TUTORIAL], ids=lambda page: page.name)
def test_the_commands_of_a_page_work_and_print_what_it_shows(newcomer: House, resolver: Resolver, page: Path) -> None:
    assert "terok setup " in README.read_text()
    newcomer.run(["terok", "setup"])
    authority = Authority(newcomer.base / "authority.pem", "upstream.test")
    stand_in = f"--upstream https://upstream.test --allow-private --ca-bundle {authority.file}"
    add = f"terok vault add work anthropic {stand_in} < key"
    if page == README:  # its section begins where a credential is there
        newcomer.run(["sh", "-c", add])
    with (
        Upstream(authority.context, resolver.records["upstream.test"][0], 443) as provider,
        Upstream(None, resolver.records["files.example.org"][0], 80),
    ):
        for command, printed in commands(page):
            words = add if command == "terok vault add work anthropic < key" else command
            done = newcomer.run(["sh", "-c", f"exec 2>&1; {words}"], check=False)
            assert (done.returncode == 0) is not any(word in printed for word in REFUSED), (command, done.stdout)
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
