"""The shield's verbs in the airlock that open for a time or for everything, and what the log says of each."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

from .test_airlock import Echo, curl, held_open, log

HTTPS = "https://denied.test/"


@pytest.fixture(scope="module")
def web(resolver: Resolver) -> Iterator[None]:
    """An allowed and a denied web server, one at a private address, and an echo server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("allowed.test", "denied.test").configure_cert(context)
    with (
        Upstream(context, "192.88.99.10", 443),
        Upstream(context, "192.88.99.66", 443),
        Upstream(None, "10.77.0.9", 80),
        Echo("198.51.100.20", 7000),
    ):
        yield


@pytest.fixture
def box(house: House, name: str, web: None) -> str:
    """A container that may reach allowed.test."""
    return house.start_box(name, "allowed.test", network="airlock")


def status(house: House, box: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(house.terok("shield", "status", box, "--json").stdout)
    return found


def test_allow_opens_the_port_that_it_names(house: House, box: str) -> None:
    house.terok("shield", "allow", box, "upstream.test:7000", "192.88.99.66:443")
    said = house.podman("exec", "-i", box, "sh", "-c", "echo ping | nc -w 3 upstream.test 7000").stdout
    assert said == "hello\nping\n"
    assert house.podman("exec", box, "sh", "-c", "nc -w 2 upstream.test 7001 </dev/null", check=False).stdout == ""
    assert curl(house, box, "https://192.88.99.66/")[0] == 0
    assert curl(house, box, "http://192.88.99.66/")[0] != 0
    assert curl(house, box, HTTPS)[0] == 6
    house.terok("shield", "reset", box)
    assert curl(house, box, "https://192.88.99.66/")[0] == 7
    assert Path(house.bundle(box).live_allowed).read_text() == ""


def test_an_allowance_for_a_time_ends_with_what_is_open(house: House, box: str) -> None:
    house.terok("shield", "allow", box, "upstream.test:7000", "--for", "4s")
    with held_open(house, box) as ended:
        assert not ended()
        assert status(house, box)["allowed_until"]["upstream.test:7000"] > 0
        until(ended, 15)
    until(lambda: "lapse" in [line["event"] for line in log(house, box)])
    closed = [line for line in log(house, box) if line["event"] == "closed"]
    assert closed[-1]["name"] == "upstream.test" and "not allowed" in str(closed[-1]["reason"])
    assert status(house, box)["allowed_until"] == {}


def test_a_bypass_ends_by_itself_and_with_it_what_it_opened(house: House, box: str) -> None:
    house.terok("shield", "allow", box, "upstream.test:7001")  # a name with an address, another port than the server's
    house.terok("shield", "bypass", box, "--for", "4s")
    assert curl(house, box, HTTPS)[0] == 0
    with held_open(house, box) as ended:
        assert not ended()
        until(ended, 15)
    until(lambda: status(house, box)["mode"] == "up", 15)
    assert curl(house, box, HTTPS)[0] == 6
    opened = [line for line in log(house, box) if line.get("name") == "denied.test" and line["event"] == "connection"]
    assert (opened[0]["verdict"], opened[0]["by"]) == ("bypassed", "bypass")


def test_down_keeps_private_addresses_closed_and_all_opens_them(house: House, box: str) -> None:
    inside = ["-o", "/dev/null", "http://10.77.0.9/"]
    assert curl(house, box, *inside)[0] == 7
    house.terok("shield", "down", box)
    assert curl(house, box, HTTPS)[0] == 0
    assert curl(house, box, *inside)[0] != 0
    house.terok("shield", "down", "--all", box)
    assert curl(house, box, *inside)[0] == 0
    assert curl(house, box, "-m", "3", "http://169.254.169.254/")[0] != 0  # never
    house.terok("shield", "deny", box, "denied.test")  # a denial holds in every mode
    assert curl(house, box, HTTPS)[0] != 0
    house.terok("shield", "up", box)
    assert curl(house, box, *inside)[0] == 7


def test_quarantine_ends_what_is_open_and_outlives_a_restart(house: House, box: str) -> None:
    house.terok("shield", "allow", box, "upstream.test:7000")
    with held_open(house, box) as ended:
        house.terok("shield", "quarantine", box)
        until(ended)
    house.podman("restart", "--time", "0", box)
    assert curl(house, box, "https://allowed.test/")[0] != 0
    assert status(house, box)["mode"] == "quarantine"
    house.terok("shield", "up", box)
    assert curl(house, box, "https://allowed.test/")[0] == 0


def test_learn_has_names_and_ports(house: House, box: str) -> None:
    house.terok("shield", "allow", box, "upstream.test:7001")
    house.terok("shield", "learn", box)
    assert curl(house, box, HTTPS)[0] == 0
    curl(house, box, "https://192.88.99.66/")
    house.podman("exec", box, "sh", "-c", "nc -w 2 upstream.test 7000 </dev/null")
    house.terok("shield", "up", box)
    learned = json.loads(house.terok("shield", "learn", box, "--print", "--json").stdout)["profile"]
    assert set(learned) == {"denied.test", "192.88.99.66", "upstream.test:7000"}


def test_logs_and_rules_show_the_airlock(house: House, box: str) -> None:
    assert curl(house, box, "https://allowed.test/")[0] == 0
    assert curl(house, box, "https://allowed.test:8443/")[0] != 0
    until(lambda: "refused" in house.terok("shield", "logs", box).stdout)
    text = house.terok("shield", "logs", box).stdout
    assert "allowed.test 192.88.99.10:443/tcp" in text and f'allow="terok shield allow {box} allowed.test:8443"' in text
    rows = json.loads(house.terok("shield", "rules", box, "--json").stdout)
    assert "allowed.test" in json.dumps(rows)
    resolved = json.loads(house.terok("shield", "resolve", box, "--json").stdout)
    assert resolved["synthetic"]["allowed.test"].startswith("198.18.")
