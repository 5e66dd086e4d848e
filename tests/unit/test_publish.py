"""Which UDP ports podman's words and annotations publish."""

from __future__ import annotations

import pytest

from terok_host.runtime.host.flags import parse
from terok_host.runtime.host.publish import PORTS_MAX, annotated_udp_ports, refuse_in_airlock, udp_ports
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
def test_the_airlock_publishes_nothing(words: list[str]) -> None:
    with pytest.raises(TerokError, match="publishes no ports"):
        refuse_in_airlock(parse(words))


def test_the_airlock_takes_words_without_ports() -> None:
    refuse_in_airlock(parse(["--publish-all=false", "--detach", "image", "-p", "80"]))
