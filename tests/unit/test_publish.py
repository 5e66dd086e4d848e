"""Which UDP ports podman's words and annotations publish."""

from __future__ import annotations

import pytest

from terok_host.runtime.host.flags import parse, without
from terok_host.runtime.host.publish import (
    PORTS_MAX,
    PUBLISHED_MAX,
    annotated_udp_ports,
    parse_ports,
    refuse_published,
    tcp_ports,
    udp_ports,
)
from terok_host.sidecars.airlock.published.settings import Published, listeners, settings_for
from terok_host.supervisor.ground.errors import TerokError


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (["-p", "5353:53/udp", "image"], (53,)),
        (["-p5353:53/udp", "image"], (53,)),
        (["-dp", "5353:53/UDP", "image"], (53,)),
        (["--publish=127.0.0.1:5353:53/udp", "--publish", "53/udp", "image"], (53,)),
        (["--publish", "[::1]:9000-9002:8000-8002/udp", "image"], (8000, 8001, 8002)),
        (["-p", "8080:80", "-p", "443:443/tcp", "image"], ()),
        (["image", "-p", "5353:53/udp"], ()),
        (["--env", "A=53/udp", "image"], ()),
        ([], ()),
    ],
)
def test_words(words: list[str], ports: tuple[int, ...]) -> None:
    assert udp_ports(parse(words)) == ports


@pytest.mark.parametrize("port", ["x", "0", "65536", "9-8", "", "-1", "1-", "５３"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(TerokError, match="contains no valid UDP port"):
        udp_ports(parse(["-p", f"1:{port}/udp", "image"]))


def test_too_many_are_refused() -> None:
    with pytest.raises(TerokError, match="exceed"):
        udp_ports(parse(["-p", f"1-{PORTS_MAX + 1}:1-{PORTS_MAX + 1}/udp", "image"]))


def test_annotation() -> None:
    assert annotated_udp_ports("53:8000-8002:53") == (53, 8000, 8001, 8002)
    assert annotated_udp_ports("") == ()
    with pytest.raises(TerokError):
        annotated_udp_ports("53,54")


@pytest.mark.parametrize("words", [["-p", "8080:80", "image"], ["-P", "image"], ["--publish-all=true", "image"]])
def test_podman_publishes_nothing_without_a_network(words: list[str]) -> None:
    with pytest.raises(TerokError, match="publishes nothing"):
        refuse_published(parse(words))


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        ("80", [Published("", 0, 80)]),
        ("8080:80", [Published("", 8080, 80)]),
        ("8080:80/tcp", [Published("", 8080, 80)]),
        ("8080:80/TCP", [Published("", 8080, 80)]),
        (":80", [Published("", 0, 80)]),
        ("0:80", [Published("", 0, 80)]),
        ("127.0.0.1:8080:80", [Published("127.0.0.1", 8080, 80)]),
        ("127.0.0.1::80", [Published("127.0.0.1", 0, 80)]),
        ("[::1]:8080:80", [Published("::1", 8080, 80)]),
        ("[0::1]:8080:80", [Published("::1", 8080, 80)]),
        ("8000-8001:80-81", [Published("", 8000, 80), Published("", 8001, 81)]),
        ("80-81", [Published("", 0, 80), Published("", 0, 81)]),
    ],
)
def test_the_airlock_reads_ports_as_podman_does(value: str, ports: list[Published]) -> None:
    assert parse_ports([value]) == tuple(ports)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "0",
        "65536",
        "8000-8002:80",
        "8080:",
        ":8080:80",
        "1.2.3.4:5:6:7",
        "[::1]:80",
        "[::1]8080:80",
        "::1:8080:80",
    ]
    + ["[127.0.0.1]:8080:80", "[fe80::1%lo]:8080:80", "localhost:8080:80", "８０", "9-8", "80-", "[::1", "127.0.0.1:80"]
    + ["8080:80/sctp", "8080:80/tcp/udp", "8080:80/tcp,udp", "80\n"],
)
def test_what_podman_would_not_take_is_refused(value: str) -> None:
    with pytest.raises(TerokError, match="not a port to publish|TCP ports only"):
        parse_ports([value])


@pytest.mark.parametrize("port", [53, 9418, 9419, 9440])
def test_ports_of_the_services_are_not_published(port: int) -> None:
    with pytest.raises(TerokError, match="terok's own"):
        parse_ports([f"8080:{port}"])


def test_a_port_of_the_host_is_published_once() -> None:
    with pytest.raises(TerokError, match="twice"):
        parse_ports(["127.0.0.1:8080:80", "8080:81"])
    assert len(parse_ports(["127.0.0.1:8080:80", "127.0.0.2:8080:81", "82", "82"])) == 4
    with pytest.raises(TerokError, match="exceed"):
        parse_ports([f"1000-{1000 + PUBLISHED_MAX}:1000-{1000 + PUBLISHED_MAX}"])


def test_all_exposed_ports_are_not_known_here() -> None:
    with pytest.raises(TerokError, match="names none"):
        tcp_ports(parse(["-P", "image"]))
    assert tcp_ports(parse(["--publish-all=false", "--detach", "image", "-p", "80"])) == ()


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["-p", "8080:80", "image", "-p", "1"], ["image", "-p", "1"]),
        (["-dp", "8080:80", "-it", "image"], ["--detach=true", "-it", "image"]),
        (["--publish=80", "--rm", "--", "image"], ["--rm", "--", "image"]),
        (["-v", "/a:/b", "-p80", "-e", "A=-p", "image"], ["-v", "/a:/b", "-e", "A=-p", "image"]),
        (["image"], ["image"]),
    ],
)
def test_ports_are_taken_out_of_podmans_words(words: list[str], rest: list[str]) -> None:
    assert without(words, "publish", "publish-all") == rest


def test_listeners_and_where_they_lead() -> None:
    ports = (Published("", 8080, 80), Published("::1", 8081, 81))
    assert [row["host"] for row in listeners(ports, ipv6=True)] == ["0.0.0.0", "::", "::1"]
    assert settings_for(ports, ipv6=True) == {"inside": [80, 80, 81]}
    assert [row["host"] for row in listeners(ports, ipv6=False)] == ["0.0.0.0", "::1"]
