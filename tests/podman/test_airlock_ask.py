"""Ask mode on a real container: held until decided; nothing of the question goes out before."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from terok_host.runtime.shield.asked import HEADER
from terok_host.supervisor import record
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

PATIENT = "trap exit TERM; sleep 1000 & wait"


@pytest.fixture(scope="module")
def web(resolver: Resolver) -> Iterator[None]:
    """Servers at the addresses of names that no profile allows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("denied.test").configure_cert(context)
    with Upstream(context, "192.88.99.66", 443), Upstream(None, "192.88.99.66", 80):
        yield


@pytest.fixture
def box(house: House, name: str, web: None) -> str:
    """A running container in the airlock that asks."""
    house.terok("run", name, "--network", "airlock", "--", "--detach", house.image, "sh", "-c", PATIENT)
    house.terok("shield", "ask", name)
    return name


def curl(house: House, box: str, url: str) -> subprocess.Popen[str]:
    """curl in the container, which waits as long as it is let; prints the status."""
    words = ("curl", "-sSk", "--max-time", "50", "-o", "/dev/null", "-w", "%{http_code}", url)
    argv = ["podman", "exec", box, *words]
    out, null = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(argv, env=house.env, cwd=house.home, stdin=null, stdout=out, stderr=null, text=True)


def question(house: House, box: str) -> dict[str, object]:
    """The one question that waits."""

    def waiting() -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(house.terok("shield", "pending", box, "--json").stdout)
        return found

    (only,) = until(waiting, 10)
    return only


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_once_lets_the_connection_that_waits_go_on(house: House, box: str, resolver: Resolver, scheme: str) -> None:
    before = resolver.log().count(" denied.test from ")
    client = curl(house, box, f"{scheme}://denied.test/x")
    asked = question(house, box)
    assert (asked["name"], asked["port"]) == ("denied.test", 443 if scheme == "https" else 80)
    assert resolver.log().count(" denied.test from ") == before, "nothing of the question goes out before it is decided"
    assert HEADER[0] in house.terok("shield", "pending").stdout
    done = house.terok("shield", "decide", str(asked["id"]), "allow")
    assert done.stdout == f"Allowed denied.test for {box}, once\n"
    assert client.communicate(timeout=30)[0] == "200"
    second = curl(house, box, f"{scheme}://denied.test/x")
    again = question(house, box)
    assert again["id"] != asked["id"], "once is once"
    house.terok("shield", "decide", str(again["id"]), "deny")
    assert second.communicate(timeout=30)[0] != "200"
    assert house.terok("shield", "decide", str(again["id"]), "allow", check=False).returncode != 0


def test_the_queue_decides_it_too(house: House, box: str, resolver: Resolver) -> None:
    client = curl(house, box, "https://denied.test/x")
    asked = question(house, box)
    (row,) = json.loads(house.terok("pending", box, "--json").stdout)
    assert (row["id"], row["kind"]) == (asked["id"], "connection")
    assert row["allow"] in house.terok("pending").stdout
    house.terok("decide", str(row["id"]), "allow", "--for", "10m")
    assert client.communicate(timeout=30)[0] == "200"
    assert curl(house, box, "https://denied.test/x").communicate(timeout=30)[0] == "200", "allowed for ten minutes"
    assert json.loads(house.terok("pending", box, "--json").stdout) == []


def test_an_entry_answers_too(house: House, box: str) -> None:
    for answer, code in (("--for=5m", "200"), ("--always", "200")):
        client = curl(house, box, "https://denied.test/")
        house.terok("shield", "decide", str(question(house, box)["id"]), "allow", answer)
        assert client.communicate(timeout=30)[0] == code
        house.terok("shield", "forget", box, "denied.test")
    client = curl(house, box, "https://denied.test/")
    house.terok("shield", "allow", box, "denied.test")
    assert client.communicate(timeout=30)[0] == "200"
    house.terok("shield", "forget", box, "denied.test")
    client = curl(house, box, "https://denied.test/")
    house.terok("shield", "decide", str(question(house, box)["id"]), "deny", "--always")
    assert client.communicate(timeout=30)[0] == "000"
    assert curl(house, box, "https://denied.test/").communicate(timeout=10)[0] == "000", "a denial is not asked about"
    assert json.loads(house.terok("shield", "pending", box, "--json").stdout) == []


def test_what_ends_the_asking_refuses_what_waits(house: House, box: str) -> None:
    client = curl(house, box, "https://denied.test/")
    question(house, box)
    house.terok("shield", "up", box)
    assert client.communicate(timeout=10)[0] == "000"
    assert curl(house, box, "https://denied.test/").communicate(timeout=10)[0] == "000"


def test_a_relay_that_is_killed_refuses_what_waits(house: House, box: str) -> None:
    client = curl(house, box, "https://denied.test/")
    asked = question(house, box)
    known = record.read(house.bundle(box).record)
    assert known is not None
    relay = known.service("airlock").process
    assert relay is not None
    os.kill(relay.pid, signal.SIGKILL)
    assert client.communicate(timeout=10)[0] == "000"
    assert house.terok("shield", "decide", str(asked["id"]), "allow", check=False).returncode != 0
    client = curl(house, box, "https://denied.test/")
    house.terok("shield", "decide", str(question(house, box)["id"]), "allow")
    assert client.communicate(timeout=30)[0] == "200"


def test_a_client_that_gives_up_takes_its_question_along(house: House, box: str) -> None:
    house.podman("exec", box, "curl", "-sSk", "--max-time", "1", "https://denied.test/", check=False)
    until(lambda: json.loads(house.terok("shield", "pending", box, "--json").stdout) == [], 10)


def test_metadata_and_addresses_are_not_asked_about(house: House, box: str) -> None:
    for url in ("http://169.254.169.254/", "http://192.88.99.66/", "https://metadata/", "http://[fd00:ec2::254]/"):
        assert curl(house, box, url).communicate(timeout=20)[0] == "000", url
    assert json.loads(house.terok("shield", "pending", box, "--json").stdout) == []


def test_asking_survives_a_restart_and_is_refused_elsewhere(house: House, box: str, name: str) -> None:
    house.podman("restart", "--time", "1", box)
    client = curl(house, box, "https://denied.test/")
    house.terok("shield", "decide", str(question(house, box)["id"]), "deny")
    client.communicate(timeout=30)
    house.podman("rm", "--force", "--time", "0", box)
    house.terok("prepare", name, "--network", "none")
    refused = house.terok("shield", "ask", name, check=False)
    assert refused.returncode != 0 and "airlock" in refused.stderr


def test_the_host_is_not_asked_about(house: House, box: str) -> None:
    words = ("--connect-to", "host.containers.internal:80:198.18.0.3:80", "-H", "Host: host.containers.internal")
    for more in (words, ("-H", "Host: metadata.google.internal")):
        house.podman("exec", box, "curl", "-sS", "--max-time", "5", *more, "http://denied.test/", check=False)
    house.podman("exec", box, "curl", "-sS", "--max-time", "5", "http://198.18.0.3/", check=False)
    asked = [line for line in Path(house.bundle(box).audit).read_text().splitlines() if '"asked"' in line]
    assert json.loads(house.terok("shield", "pending", box, "--json").stdout) == [] and asked == []


def test_the_configured_command_is_told(house: House, name: str, web: None) -> None:
    told, script = Path(house.home) / "told", Path(house.home) / "tell"
    script.write_text(f'#!/bin/sh\necho "$# $TEROK_CONTAINER $TEROK_NAME $TEROK_PORT" >> {told}\n')
    script.chmod(0o755)
    house.terok("config", "set", "notify.command", f"[{script}]")
    try:
        house.terok("run", name, "--network", "airlock", "--", "--detach", house.image, "sh", "-c", PATIENT)
    finally:
        house.terok("config", "set", "notify.command", "null")
    house.terok("shield", "ask", name)
    client = curl(house, name, "https://denied.test/")
    waiting = question(house, name)
    assert until(lambda: told.exists() and told.read_text(), 10) == f"0 {name} denied.test 443\n"
    house.terok("shield", "decide", str(waiting["id"]), "allow")
    assert client.communicate(timeout=30)[0] == "200"
