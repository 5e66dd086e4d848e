"""The vault in running containers: what crosses, what is refused, and whose token works where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.supervisor import record
from tests.lab import scope
from tests.lab.house import House
from tests.standins import models, turns
from tests.standins.upstream import Upstream

CURL = 'curl -sS -m 20 -H "x-api-key: $ANTHROPIC_API_KEY"'
CODE = '-o /dev/null -w "%{http_code}"'


@pytest.fixture(scope="module")
def world(vendor: Upstream) -> Upstream:
    """The scope's provider on its stand-in address."""
    vendor.handlers["/v1/messages"] = models.anthropic
    return vendor


@pytest.fixture
def container(house: House, name: str, world: Upstream) -> Iterator[str]:
    """A running container with the vault."""
    house.terok("run", name, "--scope", scope.SCOPE, "--", "--detach", house.image, "sleep", "1000")
    yield name
    house.podman("rm", "--force", "--time", "0", name, check=False)
    house.terok("cleanup", name, check=False)


def inside(house: House, name: str, script: str) -> str:
    """What a shell command in the container prints."""
    return house.podman("exec", name, "sh", "-c", script, check=False).stdout


def test_streams_and_refusals_in_a_container(house: House, container: str, world: Upstream) -> None:
    asked = '{"stream": true, "messages": [{"role": "user", "content": "Say three words."}]}'
    stream = inside(house, container, f"{CURL} -N -d '{asked}' $TEROK_URL_ANTHROPIC/v1/messages")
    assert stream.count("event: content_block_delta") == len(turns.WORDS)
    assert world.seen[-1].header("x-api-key") == scope.SECRET
    over_unix = inside(house, container, f"{CURL} --unix-socket $TEROK_VAULT_SOCKET http://localhost/v1/a%2Fb")
    assert json.loads(over_unix)["path"] == "/v1/a%2Fb"
    leak = json.loads(inside(house, container, f"{CURL} $TEROK_URL_ANTHROPIC/leak/base641"))
    assert leak["reason"] == "echo"
    assert inside(house, container, f"curl -sS {CODE} $TEROK_URL_ANTHROPIC/v1/models") == "401"
    refused = json.loads(inside(house, container, f"{CURL} $TEROK_URL_ANTHROPIC/v1/organizations/x"))
    assert refused["reason"] == "rule:no-administration"
    lines = [json.loads(line) for line in Path(house.bundle(container).audit).read_text().splitlines()]
    mine = [line for line in lines if line.get("source") == "vault"]
    assert [line.get("reason") for line in mine] == [None, None, "echo", "no-token", "rule:no-administration"]
    assert mine[0]["tokens"] == {"input": 12, "output": 3, "cached": 0}
    assert house.terok("vault", "audit", "--verify").returncode == 0


def test_a_token_works_at_its_own_container_only(house: House, container: str, name: str, world: Upstream) -> None:
    token = inside(house, container, "printf %s $ANTHROPIC_API_KEY")
    other = name + "-other"
    house.terok("run", other, "--scope", scope.SCOPE, "--", "--detach", house.image, "sleep", "1000")
    try:
        ask = f'curl -sS {CODE} -H "x-api-key: {token}" $TEROK_URL_ANTHROPIC/small'
        assert inside(house, other, ask) == "401"
        assert inside(house, container, ask) == "200"
    finally:
        house.podman("rm", "--force", "--time", "0", other, check=False)
        house.terok("cleanup", other, check=False)


def test_no_secret_and_no_privilege_where_the_container_could_find_them(
    house: House, container: str, world: Upstream
) -> None:
    assert inside(house, container, f"{CURL} {CODE} $TEROK_URL_ANTHROPIC/small") == "200"
    found = inside(house, container, f"env; grep -rl '{scope.SECRET}' /run /etc /root 2>/dev/null")
    assert scope.SECRET not in found and "/run/terok" not in found.splitlines()
    state = record.read(house.bundle(container).record)
    assert state is not None
    running = state.service("vault").process
    assert running is not None
    vault = running.pid
    status = Path(f"/proc/{vault}/status").read_text()
    assert "NoNewPrivs:\t1\n" in status
    assert "CapEff:\t0000000000000000\n" in status
