"""What the shield tells people: where a target leads, the table of rules, times, and the keys of `watch`."""

from __future__ import annotations

import time

import pytest

from terok_host.runtime.kit.audit_lines import local_time, since_text
from terok_host.runtime.shield import show
from terok_host.runtime.shield.watch import NUMBERED, Choice
from terok_host.sidecars.shield import dnsmasq, ruleset, static
from terok_host.sidecars.shield.bundle import ordinary
from terok_host.sidecars.shield.dnsmasq import Features
from terok_host.sidecars.shield.model import Forwarder, Model
from terok_host.sidecars.shield.state import State
from terok_host.sidecars.shield.targets import parse
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.wall import firewall


@pytest.mark.parametrize(
    ("text", "answers", "said"),
    [
        ("example.com", ["203.0.113.7"], "example.com -> 203.0.113.7"),
        ("example.com:22", ["203.0.113.7"], "example.com:22 -> 203.0.113.7"),
        ("example.com", ["203.0.113.7", "10.0.0.1", "2001:db8::1"], "example.com -> 203.0.113.7, 2001:db8::1"),
        ("example.com", [f"203.0.113.{n}" for n in range(5)], "example.com -> 203.0.113.0, 203.0.113.1 and 3 more"),
        ("example.com", ["10.0.0.1"], "example.com -> 10.0.0.1 (private: a name does not open it)"),
        ("example.com", ["127.0.0.1"], "example.com -> 127.0.0.1 (never reachable: a name does not open it)"),
        ("example.com", [], "example.com (does not resolve now)"),
        ("*.example.com", [], "*.example.com"),
        ("203.0.113.0/24", [], "203.0.113.0/24"),
    ],
)
def test_where_a_target_leads(text: str, answers: list[str], said: str) -> None:
    assert show.where(parse(text), {"example.com": answers}, Model()) == said


@pytest.mark.parametrize(
    ("text", "ports"),
    [("a.example", "TCP 80, 443"), ("a.example:22", "TCP 22"), ("203.0.113.0/24:5000-5010/udp", "UDP 5000-5010")],
)
def test_ports_for_people(text: str, ports: str) -> None:
    assert show.ports_text(parse(text).ports) == ports


def test_the_table_says_what_why_where_and_how_often() -> None:
    web, ssh, host = parse("a.example"), parse("b.example:22"), parse("203.0.113.9")
    model = Model(allowed=(web, ssh, host), denied=(parse("bad.example"),), forwarder=Forwarder("10.0.2.3"))
    features = Features((2, 90), nftset=True, conntrack=True)
    state = State(("p",), (web,), model, {"a.example": (), "b.example": ()}, features, passing=((host, 130.0),))
    elements = ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
    sets: dict[str, firewall.Set] = {
        "name4_a.example": {"type": "ipv4_addr", "flags": ["timeout"], "timeout": None, "elem": elements}
    }
    log = [{"event": "packet", "name": "a.example", "address": "203.0.113.1", "count": 4}, {"event": "dns", "count": 9}]
    text = show.rules_text(show.rows(state, sets, show.counted(log), 100.0))
    cells = [[cell for cell in line.split("  ") if cell] for line in text.splitlines()]
    assert [[cell.strip() for cell in line] for line in cells] == [
        ["DESTINATION", "PORTS", "WHY", "ADDRESSES", "PACKETS"],
        ["bad.example", "every port", "deny", "-", "0"],
        ["a.example", "TCP 80, 443", "profile", "203.0.113.1, 203.0.113.2 and 1 more", "4"],
        ["b.example", "TCP 22", "allow", "-", "0"],
        ["203.0.113.9", "TCP 80, 443", "allow, 30 s more", "203.0.113.9", "0"],
    ]


def test_times_are_local_and_short() -> None:
    stamp = "2026-01-31T12:00:05.250Z"
    local = time.localtime(1769860805)
    assert local_time(stamp, local[:3]) == time.strftime("%H:%M:%S", local)
    assert local_time(stamp, (2020, 1, 1)) == time.strftime("%Y-%m-%d %H:%M:%S", local)
    assert local_time("what") == "what"


def test_since_is_an_age_or_a_time() -> None:
    assert since_text("5m", 1769860805) == "2026-01-31T11:55:05"
    assert since_text("2026-01-31T12:00:05Z", 0) == "2026-01-31T12:00:05"
    for wrong in ("5", "m", "yesterday", "5y", ""):
        with pytest.raises(TerokError, match="not a time"):
            since_text(wrong, 0)


def test_a_key_shows_what_it_would_do_before_it_does_it() -> None:
    choice = Choice()
    assert choice.press("a") == ("", None), "nothing was refused yet"
    assert choice.add(parse("a.example"), refused=True) == 1
    assert choice.add(None, refused=True) == 0
    assert choice.add(parse("b.example:22"), refused=True) == 2
    said, action = choice.press("a")
    assert said == "allow b.example:22 (TCP 22)? Press a again." and action is None
    assert choice.press("o")[0].startswith("allow b.example:22 (TCP 22) for 60 seconds?"), "another key asks anew"
    said, action = choice.press("o")
    assert action is not None and str(action.target) == "b.example:22" and action.seconds == 60
    assert choice.press("1") == ("1: a.example", None)
    assert choice.press("d")[0] == "deny a.example? Press d again."
    assert choice.press("\n")[1] == ("deny", parse("a.example"), None)


def test_a_new_line_does_not_change_what_was_shown() -> None:
    choice = Choice()
    choice.add(parse("a.example"), refused=True)
    choice.press("a")
    choice.add(parse("evil.example"), refused=True)
    action = choice.press("a")[1]
    assert action is not None and str(action.target) == "a.example"


def test_numbers_begin_again() -> None:
    choice = Choice()
    numbers = [choice.add(parse(f"n{n}.example"), refused=False) for n in range(NUMBERED + 2)]
    assert numbers[-2:] == [1, 2]
    assert choice.press("7")[0] == "7: n6.example"
    assert choice.press("z") == ("", None)


def test_what_a_name_answers_does_not_open_the_hosts_own_address() -> None:
    own = ordinary(["203.0.113.5", "127.0.0.1", "10.0.0.9", "2001:db8::5"])
    assert own == ("2001:db8::5/128", "203.0.113.5/32") or own == ("203.0.113.5/32", "2001:db8::5/128")
    model = Model(allowed=(parse("a.example"),), forwarder=Forwarder("10.0.2.3"), own=own)
    sets = {each.name: each.elements for each in ruleset._sets(model)}
    assert "203.0.113.5/32" in (sets["special4"] or ()) and "2001:db8::5/128" in (sets["special6"] or ())
    assert "bogus-nxdomain=203.0.113.5/32" in dnsmasq.config(model, "/s", "/h", Features((2, 90), True, True))
    opened = Model(allowed=(parse("a.example"), parse("203.0.113.5")), own=own)
    assert static.usable(opened, "203.0.113.5") and not static.usable(model, "203.0.113.5")
