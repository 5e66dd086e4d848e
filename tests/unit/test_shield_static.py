"""Names resolved on the host: reading dig and getent, and what their answers may open."""

from __future__ import annotations

from collections.abc import Sequence

from terok_host.sidecars.shield import static
from terok_host.sidecars.shield.model import Forwarder, Model
from terok_host.sidecars.shield.targets import parse

DIG = """\
;one.test.\t\t\tIN\tA
one.test.\t60\tIN\tCNAME\tedge.test.
edge.test.\t60\tIN\tA\t198.51.100.1
edge.test.\t60\tIN\tA\t198.51.100.2
;one.test.\t\t\tIN\tAAAA
edge.test.\t60\tIN\tAAAA\t2001:db8::1
;two.test.\t\t\tIN\tA
;two.test.\t\t\tIN\tAAAA
;; communications error to 192.0.2.1#53: timed out
"""


def test_dig() -> None:
    assert static.parse_dig(DIG) == {"one.test": ["198.51.100.1", "198.51.100.2", "2001:db8::1"]}
    assert static.parse_dig("garbage\n;\n; x\na b c A notanaddress\n") == {}


def test_getent() -> None:
    text = "198.51.100.1 STREAM one.test\n198.51.100.1 DGRAM\nfe80::1%eth0 RAW\n2001:db8::1 STREAM\n"
    assert static.parse_getent(text) == ["198.51.100.1", "2001:db8::1"]


def test_answers_open_only_what_names_may_open() -> None:
    asked: list[str] = []

    def lookup(names: Sequence[str]) -> dict[str, list[str]]:
        asked.extend(names)
        return {"one.test": ["198.51.100.1", "10.0.0.1", "127.0.0.1"], "in.test": ["10.5.0.1"]}

    model = Model(
        allowed=tuple(map(parse, ("one.test", "*.wild.test", "in.test:22", "10.5.0.0/16", "no.test"))),
        denied=(parse("no.test"),),
        forwarder=Forwarder.parse("10.0.2.3"),
    )
    resolved, found = static.resolve(model, lookup)
    assert asked == ["one.test", "in.test"]
    assert [str(each) for each in resolved.resolved] == ["198.51.100.1", "10.5.0.1:22"]
    assert static.hosts(found).splitlines()[2:] == ["198.51.100.1 one.test", "10.5.0.1 in.test"]
