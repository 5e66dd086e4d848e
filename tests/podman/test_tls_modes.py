"""HTTPS at the providers' own hosts outside of the airlock: what else of a host passes, the verbs, foreign changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import scope
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.authority import Authority
from tests.standins.behaviours import silent
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

from .test_tls import CODE, inside

HOST, OTHER_PORT = "files.example.org", 2222
URL = f"https://{HOST}/v1/models"
ASK = f'curl -sS -m 20 {CODE} -H "x-api-key: $ANTHROPIC_API_KEY" {URL}'
PROFILE = (HOST, f"{HOST}:{OTHER_PORT}", scope.ALLOWED)


@pytest.fixture(scope="module")
def address(resolver: Resolver) -> str:
    """The host's own one."""
    return resolver.records[HOST][0]


@pytest.fixture(scope="module")
def vendor(house: House, address: str) -> Iterator[Upstream]:
    """The scope's provider."""
    authority = Authority(house.base / "modes-authority.pem", HOST)
    scope.furnish(house, upstream=f"https://{HOST}", ca_bundle=authority.file, allowed=PROFILE)
    with Upstream(authority.context, address, 443) as provider:
        yield provider


@pytest.fixture(scope="module")
def beside(vendor: Upstream, address: str) -> Iterator[Upstream]:
    """Another service of the provider's host, in the clear."""
    with Upstream(None, address, OTHER_PORT) as service:
        yield service


def start(house: House, name: str, network: str = "auto") -> None:
    words = ("--scope", scope.SCOPE, "--network", network, "--profiles", scope.PROFILE)
    house.terok("run", name, *words, "--", "--detach", house.image, "sleep", "1000")


def explain(house: House, name: str, url: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(house.terok("explain", name, url, "--json", check=False).stdout)
    return found


def test_other_ports_of_the_host_and_its_own_address(
    house: House, name: str, vendor: Upstream, beside: Upstream, address: str
) -> None:
    start(house, name)
    assert inside(house, name, ASK) == "200"
    assert vendor.seen[-1].header("x-api-key") == scope.SECRET
    assert inside(house, name, f"curl -sS -m 20 {CODE} http://{HOST}:{OTHER_PORT}/v1/models") == "200"
    refused = inside(house, name, f"curl -sS -m 20 {CODE} http://{HOST}:2223/")
    assert refused.startswith("000") and beside.seen
    # the host's own address was never learned, and is closed; with a phantom it would be refused by the real server
    before = len(vendor.seen)
    around = f'-sS -m 20 -k --resolve {HOST}:443:{address} -H "x-api-key: $ANTHROPIC_API_KEY" {URL}'
    assert "curl: (7)" in inside(house, name, f"curl {around}") and len(vendor.seen) == before
    answered = inside(house, name, f"nslookup -type=aaaa {HOST} 127.0.0.1; nslookup -type=a {HOST} 127.0.0.1")
    assert address not in answered and "NXDOMAIN" not in answered and "198.18." in answered
    assert explain(house, name, URL)["way"] == "terminated"
    assert explain(house, name, f"http://{HOST}:{OTHER_PORT}/")["way"] == "spliced"
    assert explain(house, name, f"https://{scope.ALLOWED}/")["way"] == "direct"
    rules = json.loads(house.terok("shield", "rules", name, "--json").stdout)
    assert "brokered" in str(rules) and house.terok("shield", "status", name).returncode == 0
    assert HOST in house.terok("shield", "resolve", name).stdout


def test_the_shields_verbs(house: House, name: str, vendor: Upstream) -> None:
    start(house, name)
    assert inside(house, name, ASK) == "200"
    house.terok("shield", "deny", name, HOST)
    assert "Could not resolve" in inside(house, name, ASK)
    house.terok("shield", "forget", name, HOST)
    assert inside(house, name, ASK) == "200"
    waits = f'curl -sS -m 60 -d {{}} -H "x-api-key: $ANTHROPIC_API_KEY" https://{HOST}/v1/messages; echo $? >/tmp/ended'
    vendor.handlers["/v1/messages"] = silent
    house.podman("exec", "--detach", name, "sh", "-c", waits)
    until(lambda: vendor.seen[-1].path == "/v1/messages", 20, why=lambda: inside(house, name, "cat /tmp/ended"))
    house.terok("shield", "quarantine", name)
    assert until(lambda: inside(house, name, "cat /tmp/ended 2>/dev/null").strip(), 10) != "28"
    vendor.event("speak").set()
    assert inside(house, name, ASK).startswith("000")
    house.terok("shield", "up", name)
    assert inside(house, name, ASK) == "200"
    for mode in ("down", "up"):
        house.terok("shield", mode, name)
        assert inside(house, name, ASK) == "200", mode
    assert house.terok("doctor", check=False).returncode == 0


def test_a_foreign_change_is_undone(house: House, name: str, vendor: Upstream) -> None:
    start(house, name)
    assert inside(house, name, ASK) == "200"
    audit = Path(house.bundle(name).audit)
    for number, command in enumerate(("nft flush chain inet terok relay", "ip addr del 198.18.0.1/15 dev lo")):
        pid = house.podman("inspect", "--format", "{{.State.Pid}}", name).stdout.strip()
        house.podman("unshare", "nsenter", "-t", pid, "-n", *command.split())
        until(lambda done=number + 1: audit.read_text().count('"restored"') == done, 10, why=audit.read_text)  # type: ignore[misc]
        assert inside(house, name, ASK) == "200"


def test_a_container_without_a_network_has_its_providers(
    house: House, name: str, vendor: Upstream, beside: Upstream
) -> None:
    start(house, name, "none")
    beside.seen.clear()
    assert inside(house, name, ASK) == "200"
    for host in (f"{HOST}:{OTHER_PORT}", HOST, scope.ALLOWED):
        for mode in ("up", "down"):
            house.terok("shield", mode, name)
            assert inside(house, name, f"curl -sS -m 20 {CODE} http://{host}/").startswith("000"), (host, mode)
    assert not beside.seen
    assert explain(house, name, f"http://{HOST}:{OTHER_PORT}/")["why"] == "the container has no network"


def test_names_without_dnsmasq(house: House, name: str, vendor: Upstream, address: str) -> None:
    house.terok("config", "set", "shield.dns", "static")
    try:
        start(house, name)
    finally:
        house.terok("config", "set", "shield.dns", "auto")
    assert inside(house, name, ASK) == "200"
    assert address not in inside(house, name, "cat /etc/hosts")
    around = f"curl -sS -m 20 -k --resolve {HOST}:443:{address} {URL}"
    assert "curl: (7)" in inside(house, name, around)
