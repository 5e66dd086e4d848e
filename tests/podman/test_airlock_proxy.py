"""Containers behind an HTTP proxy: the relay and the vault reach upstreams through it alone."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.supervisor import record
from tests.lab import scope
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.authority import Authority
from tests.standins.dns import Resolver
from tests.standins.proxy import Proxy
from tests.standins.upstream import Upstream

FAR, API = "far.test", "api.far.test"
"""Names that the proxy alone can resolve."""
HERE, SOURCE = "198.51.100.40", "198.51.100.41"
"""Where the proxy listens, and from where it connects."""
LOGIN = "jane:open-sesame-4711"


class Counted(Upstream):
    """Keeps the addresses that connected to it."""

    def __init__(self, context: ssl.SSLContext, address: str) -> None:
        super().__init__(context, address, 443)
        self.peers: list[str] = []

    def _serve(self, raw: socket.socket) -> None:
        self.peers.append(raw.getpeername()[0])
        super()._serve(raw)


class World:
    """The proxy and what is behind it."""

    def __init__(self, proxy: Proxy, far: Counted, api: Counted, near: Counted) -> None:
        self.proxy, self.far, self.api, self.near = proxy, far, api, near


@pytest.fixture(scope="module", params=["http", "https"])
def world(house: House, resolver: Resolver, request: pytest.FixtureRequest) -> Iterator[World]:
    authority = Authority(house.base / f"proxy-{request.param}.pem", FAR, API, "allowed.test", HERE)
    tls = authority.context if request.param == "https" else None
    names = {FAR: ("192.88.99.70", 0), API: ("192.88.99.71", 0)}
    with (
        Counted(authority.context, "192.88.99.70") as far,
        Counted(authority.context, "192.88.99.71") as api,
        Counted(authority.context, "192.88.99.10") as near,
        Proxy(names, login=LOGIN, tls=tls, host=HERE, port=3128, source=SOURCE) as proxy,
    ):
        settings = {
            "upstream_proxy": f"{request.param}://{HERE}:3128",
            "no_proxy": '["allowed.test"]',
            "upstream_ca": authority.file,
        }
        for key, value in settings.items():
            house.terok("config", "set", f"network.{key}", value)
        house.terok("vault", "proxy", "set", "--user", LOGIN.partition(":")[0], stdin=LOGIN.partition(":")[2])
        scope.furnish(house, upstream=f"https://{API}", ssh_key=False)
        yield World(proxy, far, api, near)
        for key, value in {"upstream_proxy": "null", "no_proxy": "[]", "upstream_ca": "null"}.items():
            house.terok("config", "set", f"network.{key}", value)


def start(house: House, name: str) -> None:
    os.makedirs(house.layout.profiles, exist_ok=True)
    allowed = (FAR, "allowed.test", "unknown.test", "metadata.google.internal")
    (Path(house.layout.profiles) / f"{name}.txt").write_text("".join(f"{line}\n" for line in allowed))
    house.terok(
        "run", name, "--network", "airlock", "--profiles", name, "--scope", scope.SCOPE,
        "--", "--detach", house.image, "sleep", "1000",
    )  # fmt: skip


def curl(house: House, name: str, *words: str) -> tuple[int, str]:
    done = house.podman("exec", name, "curl", "-sSk", "--max-time", "20", *words, check=False)
    return done.returncode, done.stdout + done.stderr


def log(house: House, name: str, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in Path(house.bundle(name).audit).read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_every_connection_goes_through_it(house: House, name: str, world: World, resolver: Resolver) -> None:
    start(house, name)
    code, said = curl(house, name, f"https://{FAR}/one")
    assert code == 0, said
    vault = 'curl -sS -m 20 -H "x-api-key: $ANTHROPIC_API_KEY" $TEROK_URL_ANTHROPIC/v1/models'
    answer = house.podman("exec", name, "sh", "-c", vault, check=False).stdout
    assert json.loads(answer)["path"] == "/v1/models"
    assert world.api.seen[-1].header("x-api-key") == scope.SECRET
    # no direct connection was made, and no question for the names left this host
    assert set(world.far.peers) == set(world.api.peers) == {SOURCE}
    assert {f"{FAR}:443", f"{API}:443"} <= set(world.proxy.asked)
    assert not resolver.asked(FAR)
    assert not resolver.asked(API)

    assert curl(house, name, "https://allowed.test/")[0] == 0
    assert SOURCE not in world.near.peers
    assert "allowed.test:443" not in world.proxy.asked

    code, said = curl(house, name, "https://unknown.test/")
    assert code == 35 or code == 56, said
    lines = {str(line["name"]): line for line in log(house, name, "connection")}
    assert (lines[FAR]["verdict"], lines[FAR]["via"], lines[FAR]["address"]) == ("allowed", f"{HERE}:3128", "")
    assert "via" not in lines["allowed.test"]
    assert lines["unknown.test"]["verdict"] == "failed"
    assert "status 502" in str(lines["unknown.test"]["reason"])
    ended = [line for line in log(house, name, "closed") if line["name"] == FAR]
    assert ended[0]["sent"] and ended[0]["received"]

    explained = house.terok("explain", name, f"https://{FAR}/").stdout
    assert f"{HERE}:3128" in explained
    shown = house.terok("logs", name).stdout
    assert f"{FAR} 443/tcp" in shown


def test_its_credential_is_nowhere(house: House, name: str, world: World) -> None:
    start(house, name)
    assert curl(house, name, f"https://{FAR}/")[0] == 0
    secret = LOGIN.partition(":")[2]
    encoded = base64.b64encode(LOGIN.encode()).decode()
    bundle = house.bundle(name)
    files = [path for path in Path(bundle.root).rglob("*") if path.is_file()]
    files.append(Path(house.layout.config_file))
    for path in files:
        content = path.read_text(errors="replace")
        assert secret not in content and encoded not in content, path
    row = record.read(bundle.record)
    assert row is not None
    for _, process in row.processes():
        words = Path(f"/proc/{process.pid}/cmdline")
        if words.exists():
            assert secret.encode() not in words.read_bytes()


def test_deny_cuts_and_a_dead_relay_comes_back(house: House, name: str, world: World) -> None:
    start(house, name)
    assert curl(house, name, f"https://{FAR}/")[0] == 0
    row = record.read(house.bundle(name).record)
    assert row is not None
    relay = next(process for label, process in row.processes() if label == "airlock")
    helpers = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text().split()
    assert len(helpers) == 1, helpers
    os.kill(int(helpers[0]), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{relay.pid}").exists(), 5)
    assert curl(house, name, f"https://{FAR}/again")[0] == 0
    house.terok("shield", "deny", name, FAR)
    assert curl(house, name, f"https://{FAR}/")[0] != 0
    assert set(world.far.peers) == {SOURCE}


def test_metadata_and_a_wrong_credential(house: House, name: str, world: World) -> None:
    start(house, name)
    before = list(world.proxy.asked)
    assert curl(house, name, "--max-time", "5", "http://metadata.google.internal/computeMetadata/")[0] != 0
    assert world.proxy.asked == before
    house.terok("vault", "proxy", "set", "--user", "jane", stdin="wrong")
    script = f"for n in 1 2 3 4 5 6 7 8; do curl -sk -m 20 https://{FAR}/ & done; wait"
    house.podman("exec", name, "sh", "-c", script, check=False)
    assert len(world.proxy.asked) == len(before) + 1
    reasons = {str(line.get("reason")) for line in log(house, name, "connection") if line["verdict"] == "failed"}
    assert any("terok vault proxy set" in reason for reason in reasons), reasons
    house.terok("vault", "proxy", "set", "--user", "jane", stdin=LOGIN.partition(":")[2])
    assert curl(house, name, f"https://{FAR}/")[0] == 0, "the new one counts at once"
