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
from terok_host.sidecars.airlock.asking import QUESTIONS_MAX
from terok_host.supervisor import record
from tests.lab.house import House
from tests.lab.terminal import Terminal
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


def waiting(house: House, box: str) -> list[dict[str, object]]:
    """The questions that wait."""
    found: list[dict[str, object]] = json.loads(house.terok("shield", "pending", box, "--json").stdout)
    return found


def question(house: House, box: str) -> dict[str, object]:
    """The one question that waits."""
    (only,) = until(lambda: waiting(house, box), 10)
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


FLOOD = """
for number in $(seq 1 300); do curl -sSk -m 8 -o /dev/null https://n$number.example/ & done 2>/dev/null
for word in '\\033[2Jx.example' '$(touch /x).example' 'x;y.example' 'denied.test:81' '169.254.169.254' '*.com' ''; do
  printf 'GET / HTTP/1.1\\r\\nHost: '"$word"'\\r\\n\\r\\n' | timeout 3 nc -w 2 any.example 80
done
wait
"""


def test_floods_and_hostile_names_from_inside(house: House, box: str) -> None:
    """Bounded, shown without control characters, and the container's allowed names go on meanwhile."""
    house.terok("shield", "allow", box, "denied.test")
    null = subprocess.DEVNULL
    argv = ["podman", "exec", box, "sh", "-c", FLOOD]
    with subprocess.Popen(argv, env=house.env, cwd=house.home, stdin=null, stdout=null, stderr=null) as flood:
        until(lambda: len(waiting(house, box)) >= 20, 20)
        shown = waiting(house, box)
        assert len(shown) <= QUESTIONS_MAX
        assert all(str(row["name"]).endswith(".example") and str(row["name"]).isascii() for row in shown)
        assert curl(house, box, "https://denied.test/").communicate(timeout=20)[0] == "200"
        assert "\x1b" not in house.terok("shield", "pending", box).stdout
        flood.wait(60)
    until(lambda: waiting(house, box) == [], 10)
    assert curl(house, box, "https://denied.test/").communicate(timeout=20)[0] == "200"


def test_a_second_request_may_not_have_another_host(house: House, box: str) -> None:
    """What was allowed once is one name; a kept connection stays with it."""
    script = (
        "{ printf 'GET /a HTTP/1.1\\r\\nHost: denied.test\\r\\n\\r\\n'; sleep 6;"
        " printf 'GET /b HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n'; sleep 1; } | nc -w 12 denied.test 80"
    )
    argv = ["podman", "exec", box, "sh", "-c", script]
    null = subprocess.DEVNULL
    with subprocess.Popen(argv, env=house.env, stdin=null, stdout=subprocess.PIPE, stderr=null, text=True) as client:
        house.terok("shield", "decide", str(question(house, box)["id"]), "allow")
        said = client.communicate(timeout=40)[0]
    assert said.count("HTTP/1.1 200") == 1 and "403 Forbidden" in said


def test_the_live_view_decides_it(house: House, box: str) -> None:
    """`terok top` in a real terminal: a key offers the answer with its command, the same key again gives it."""
    client = curl(house, box, "https://denied.test/x")
    asked = question(house, box)
    shown = Terminal(house, [str(house.program), "top"], house.home)
    try:
        shown.until("connect to denied.test")
        shown.type("a")
        shown.until(f"$ terok shield decide {asked['id']} allow")
        shown.type("a")
        shown.until("Done: allow connect to denied.test")
        assert client.communicate(timeout=30)[0] == "200"
        shown.type("q")
        shown.until("\x1b[?1049l")  # the screen is given back; read, or the program would wait for its reader
        assert shown.process.wait(30) == 0
    finally:
        shown.end()
