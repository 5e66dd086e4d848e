"""What the first bytes of a connection show: the name must be the one that its address stands for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from terok_host.sidecars.airlock.policy import Proof, Route
from terok_host.sidecars.airlock.shown import Shown
from terok_host.sidecars.kit.refusal import Refused
from terok_host.sidecars.kit.tls import hello

from .test_airlock_policy import NOW, policy
from .test_kit_hello import message, records, sni

EXACT = Route(443, Proof.TLS, name="a.example")
BELOW = Route(443, Proof.TLS, pattern="*.wild.example")
OTHER_PORT = Route(9000, Proof.EITHER, pattern="*.wild.example")
UNKNOWN = Route(443, Proof.TLS)
WEB = Route(80, Proof.HTTP, name="a.example")


def shown(route: Route, *, mode: str = "up") -> Shown:
    made = policy("a.example", "p.example:443", "*.wild.example", "api.wild.example:9000", mode=mode)
    service: Any = SimpleNamespace(policy=made, clock=lambda: NOW)
    return Shown(service, route)


def flight(name: bytes) -> bytes:
    return records(message(sni(name)))


@pytest.mark.parametrize(
    ("route", "name"),
    [
        (EXACT, b"a.example"),
        (EXACT, b"A.Example"),
        (BELOW, b"x.wild.example"),
        (BELOW, b"deep.x.wild.example"),
        (BELOW, b"under_score.wild.example"),
        (BELOW, b"xn--bcher-kva.wild.example"),
        (OTHER_PORT, b"api.wild.example"),
    ],
)
def test_the_name_of_the_address(route: Route, name: bytes) -> None:
    one = shown(route)
    data = flight(name)
    assert one.judge(data) == data
    assert one.name == name.decode().lower()


@pytest.mark.parametrize(
    ("route", "name", "why"),
    [
        (EXACT, b"b.example", "leads to a.example, and asks for b.example"),
        (EXACT, b"x.wild.example", "asks for x.wild.example"),  # allowed, but not what this address stands for
        (BELOW, b"wild.example", "asks for wild.example"),
        (BELOW, b"xwild.example", "asks for xwild.example"),
        (BELOW, b"a.example", "asks for a.example"),
        (OTHER_PORT, b"x.wild.example", "not allowed"),
        (BELOW, b"203.0.113.7", "asks for 203.0.113.7"),
    ],
)
def test_another_name_is_refused(route: Route, name: bytes, why: str) -> None:
    with pytest.raises(Refused) as caught:
        shown(route).judge(flight(name))
    assert why in caught.value.refusal.why


@pytest.mark.parametrize("name", [b"10.77.0.9", b"127.0.0.1", b"2130706433", b"localhost", b"127.1"])
def test_an_address_is_no_name_in_open_modes_either(name: bytes) -> None:
    with pytest.raises(Refused, match=r"asks for|a name"):
        shown(UNKNOWN, mode="down").judge(flight(name))


@pytest.mark.parametrize("name", [b"a.example\0.evil.test", b"a.example.", b"a" * 300, b"a.example:443"])
def test_what_is_no_name_at_all(name: bytes) -> None:
    with pytest.raises(hello.Malformed):
        shown(EXACT).judge(flight(name))


def test_without_a_name_a_line_must_name_the_port() -> None:
    with pytest.raises(Refused) as caught:
        shown(EXACT).judge(records(message()))
    assert caught.value.refusal.allow == "terok shield allow box a.example:443"
    with_port = Route(443, Proof.TLS, name="p.example")
    assert shown(with_port).judge(records(message())) == records(message())


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        (b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", "other-name"),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", ""),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", ""),
        (b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", ""),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\nHost: a.example:443\r\n\r\n", "host-port"),
    ],
)
def test_heads_that_do_not_pass(head: bytes, rule: str) -> None:
    with pytest.raises(Refused) as caught:
        shown(WEB).judge(head)
    assert rule in ("", caught.value.refusal.rule)


def test_tls_is_what_443_carries() -> None:
    with pytest.raises(Refused, match="carries TLS only"):
        shown(EXACT).judge(b"SSH-2.0-client\r\n")
    with pytest.raises(Refused, match=r"which name of \*\.wild\.example is meant"):
        shown(OTHER_PORT).judge(b"SSH-2.0-client\r\n")
    assert shown(OTHER_PORT).judge(b"GE") is None
