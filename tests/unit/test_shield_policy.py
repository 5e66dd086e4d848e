"""The policy as data: what dnsmasq is told, what the rules become, what a change does; and comparing as structure."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.shield import bundle as files
from terok_host.sidecars.shield import dnsmasq, policy, ruleset
from terok_host.sidecars.shield.model import ASK, DOWN, LEARN, MODES, QUARANTINE, UP, Forwarder, Model, ranges
from terok_host.sidecars.shield.state import State
from terok_host.sidecars.shield.targets import WEB, Ports, Target, parse
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.wall import firewall

FORWARDER = Forwarder.parse("10.0.2.3")
GOOD = dnsmasq.Features((2, 90), True, True)


def model(*allowed: str, denied: tuple[str, ...] = (), **fields: Any) -> Model:
    return Model(allowed=tuple(map(parse, allowed)), denied=tuple(map(parse, denied)), forwarder=FORWARDER, **fields)


def state(*allowed: str, denied: tuple[str, ...] = ()) -> State:
    targets = tuple(map(parse, allowed))
    return files.with_lines(State(("test",), targets, model(*allowed, denied=denied), {}, GOOD))


def verdicts(text: str) -> dict[str, bool]:
    """Pattern -> resolves, of a servers file."""
    lines = [line.removeprefix("server=/").partition("/") for line in text.splitlines()]
    return {pattern: bool(to) for pattern, _, to in lines}


def test_servers_of_names_and_wildcards() -> None:
    found = verdicts(dnsmasq.servers(model("one.test", "*.two.test", "*.three.test", "three.test:22")))
    assert found == {
        "#": False,
        "one.test": True,
        "*.one.test": False,
        "two.test": False,
        "*.two.test": True,
        "three.test": True,
        "*.three.test": True,
    }


def test_denials_win() -> None:
    found = verdicts(dnsmasq.servers(model("*.two.test", "a.two.test", denied=("a.two.test", "*.b.two.test"))))
    assert found["a.two.test"] is False and found["*.a.two.test"] is True
    assert found["*.b.two.test"] is False and found["b.two.test"] is True
    assert verdicts(dnsmasq.servers(model("one.test", denied=("one.test:22",))))["one.test"] is True
    assert verdicts(dnsmasq.servers(model("a.one.test", denied=("*.one.test",)))).get("a.one.test", False) is False


@pytest.mark.parametrize("mode", [QUARANTINE, UP])
def test_nothing_resolves_without_a_forwarder_or_in_quarantine(mode: str) -> None:
    quiet = model("one.test", mode=QUARANTINE) if mode == QUARANTINE else Model(allowed=(parse("one.test"),))
    assert dnsmasq.servers(quiet) == "server=/#/\n"


def test_lines_carry_the_ports_of_what_covers_them() -> None:
    found = dnsmasq.lines(model("a.x.test", "*.x.test:8443", "x.test:22"))
    assert found["a.x.test"] == (WEB, Ports("tcp", 8443, 8443))
    assert set(found["x.test"]) == {Ports("tcp", 8443, 8443), Ports("tcp", 22, 22)}
    assert dnsmasq.line_of("b.a.x.test", found) == "a.x.test"
    assert dnsmasq.line_of("xx.test", found) is None


def test_live_names_need_a_restart_only_for_other_ports() -> None:
    known = dnsmasq.lines(model("x.test:22"))
    assert dnsmasq.suffices(known, model("x.test:22", "y.test"))
    assert not dnsmasq.suffices(known, model("x.test:22", "y.test:22"))
    assert not dnsmasq.suffices(known, model("x.test:22", "a.x.test")), "its line fills the sets of port 22 alone"


def test_denial_of_a_name_forgets_its_line_alone() -> None:
    step = policy.deny(state("one.test", "*.two.test"), [parse("one.test")])
    assert step.forget == {"one.test"} and step.restrictive and not step.restart
    assert policy.deny(state("one.test", "*.two.test"), [parse("a.two.test")]).forget == {"two.test"}
    assert policy.deny(state("one.test"), [parse("198.51.100.1")]).forget == frozenset()


def test_addresses_that_go_and_those_that_stay() -> None:
    before = state("one.test", "two.test")
    step = policy.deny(before, [parse("one.test")])
    sets: dict[str, dict[str, list[str]]] = {each.name: {"elem": []} for each in ruleset.build(before.model).sets}
    sets["name4_one.test"]["elem"] = ["192.0.2.1", "192.0.2.2"]
    sets["name4_two.test"]["elem"] = ["192.0.2.2"]
    sets["learned4_web_a"]["elem"] = ["192.0.2.1", "192.0.2.2"]
    single, last = policy.cleaning(step, before, {"sets": sets})
    assert single == [
        "add element inet terok cut4 { 192.0.2.1 }",
        "delete element inet terok learned4_web_a { 192.0.2.1 }",
    ]
    assert last == ["flush set inet terok name4_one.test", "flush set inet terok name6_one.test"]


def test_a_full_cut_set_becomes_a_new_epoch() -> None:
    step = policy.deny(state("one.test"), [parse("one.test")])
    single = ["add element inet terok cut4 { 192.0.2.1, 192.0.2.2 }"]
    single += ["delete element inet terok learned4_web_a { 192.0.2.1 }"]
    full: dict[str, Any] = {"sets": {"cut4": {"elem": ["x"] * (ruleset.LEARNED_MAX - 1)}, "cut6": {"elem": []}}}
    assert policy.crowded(full, single)
    full["sets"]["cut4"]["elem"].pop()
    assert not policy.crowded(full, single)
    anew, kept, last = policy.judged_anew(step, single, [])
    assert anew.state.model.epoch == step.state.model.epoch + 1
    assert kept == single[1:] and "flush set inet terok cut4" in last


def test_allow_takes_a_denial_back_and_says_when_a_wider_one_stays() -> None:
    before = state("one.test", denied=("one.test", "*.two.test"))
    assert policy.allow(before, [parse("one.test")]).state.model.denied == (parse("*.two.test"),)
    assert policy.allow(before, [parse("a.two.test")]).notes


def test_state_survives_its_file() -> None:
    before = policy.allow(state("one.test", "*.two.test:22", "10.0.0.0/8"), [parse("three.test:53/udp")]).state
    assert files.decode(files.encode(before)) == before
    for damaged in ("", "{}", "[]", '{"version": 1}', files.encode(before).replace("up", "u p")[:-30]):
        with pytest.raises(TerokError):
            files.decode(damaged)
    with pytest.raises(TerokError, match="newer"):
        files.decode('{"version": 99}')


def test_a_start_is_closed_and_keeps_quarantine_and_asking() -> None:
    for mode in MODES:
        begun = files.at_start(policy.set_mode(state("one.test"), mode).state).model.mode
        assert begun == (mode if mode in (QUARANTINE, ASK) else UP)
    assert files.at_start(policy.set_mode(state("one.test"), ASK, until=1e12).state).model.mode == UP


@pytest.mark.parametrize("mode", MODES)
def test_loopback_first_and_metadata_never(mode: str) -> None:
    table = ruleset.build(model("one.test", "198.51.100.0/24:22", denied=("203.0.113.1",), mode=mode, audit_group=1))
    output = next(each for each in table.chains if each.name == "output")
    texts = [each.text for each in output.rules]
    assert output.hook == ("output", "drop")
    if mode != QUARANTINE:
        never = texts.index("ip daddr @never4 goto refuse")
        assert texts[:2] == ['oifname "lo" jump local', "jump denied"]
        assert all("@allow" not in each and "named" not in each and "learned" not in each for each in texts[:never])
        assert texts[-1] in ("goto refuse", "accept")
        assert (texts[-1] == "accept") == (mode in (DOWN, "down-all", LEARN))


def test_mutual_change_leaves_learned_sets_alone() -> None:
    one, two = (ruleset.build(each) for each in (model("one.test"), model("one.test", "198.51.100.7:22")))
    text = ruleset.change(one, two)
    assert "flush set inet terok learned" not in text and "delete table" not in text
    assert "add set inet terok allow4_tcp22_host" in text
    assert ruleset.change(one, one).strip() == ""


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(8, 32)), max_size=20))
def test_ranges_never_overlap(parts: list[tuple[int, int]]) -> None:
    targets = [Target("range", str(parse(f"198.{a}.0.0/{length}").network)) for a, length in parts if length < 32]
    merged = [parse(each).network for each in ranges(targets, WEB, 4)]
    assert not any(a.overlaps(b) for i, a in enumerate(merged) for b in merged[i + 1 :])
    for target in targets:
        assert any(target.network.subnet_of(each) for each in merged)  # type: ignore[arg-type]  # IPv4 all of them


def test_features() -> None:
    text = "Dnsmasq version 2.90  Copyright\nCompile time options: IPv6 conntrack ipset nftset auth\n"
    assert dnsmasq.features(text).usable
    assert not dnsmasq.features(text.replace(" nftset", "")).usable
    assert "nftset" in dnsmasq.features(text.replace(" nftset", " no-nftset")).missing
    assert not dnsmasq.features(text.replace("2.90", "2.86")).usable
    assert not dnsmasq.features("").usable


def test_every_difference_is_noticed() -> None:
    expected = ruleset.structure(ruleset.build(model("one.test", "198.51.100.0/24")))
    same = cast("firewall.Structure", copy.deepcopy(expected))
    same["other"] = []
    for listed in same["sets"].values():
        listed["elem"] = listed["elem"] or []
    for chain in same["chains"].values():
        chain["rules"] = [[firewall._plain(each) for each in rule] for rule in chain["rules"]]
    for each in same["sets"].values():
        each["elem"].sort(key=str)
    learned = copy.deepcopy(same)
    learned["sets"]["learned4_web_a"]["elem"] = ["192.0.2.1"]
    assert firewall.difference(expected, learned) is None

    def changed(change: Any) -> str | None:
        other = copy.deepcopy(same)
        change(other)
        return firewall.difference(expected, other)

    assert changed(lambda each: each["chains"].pop("refuse"))
    assert changed(lambda each: each["chains"].update(more={"hook": None, "rules": []}))
    assert changed(lambda each: each["chains"]["output"]["rules"].pop())
    assert changed(lambda each: each["chains"]["output"]["rules"].reverse())
    assert changed(lambda each: each["chains"]["output"].update(hook=["filter", "output", 0, "accept"]))
    assert changed(lambda each: each["sets"].pop("never4"))
    assert changed(lambda each: each["sets"]["never4"]["elem"].pop())
    assert changed(lambda each: each["sets"]["allow4_web_net"].update(flags=[]))
    assert changed(lambda each: each.update(other=["map"]))
