"""What the airlock makes of a policy: addresses, answers, rules, and the relay's decisions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from terok_host.sidecars.airlock.policy import Policy, Proof, Route, Verdict, covers, decode
from terok_host.sidecars.shield import airlock
from terok_host.sidecars.shield import bundle as shield_bundle
from terok_host.sidecars.shield import policy as verbs
from terok_host.sidecars.shield.dnsmasq import Features
from terok_host.sidecars.shield.model import BYPASS, DOWN, DOWN_ALL, LEARN, QUARANTINE, Model, unique
from terok_host.sidecars.shield.special import UNKNOWN
from terok_host.sidecars.shield.state import State
from terok_host.sidecars.shield.targets import parse
from terok_host.supervisor.ground.layout import Bundle

NOW = 1_000_000.0
LINES = (
    "a.example", "a.example:8443", "*.wild.example", "api.wild.example:9000", "*.deep.wild.example:22",
    "203.0.113.0/24", "[2001:db8:1::7]:5000", "10.1.2.3", "host.containers.internal:8080", "u.example:53/udp",
)  # fmt: skip


def state(*lines: str, denied: tuple[str, ...] = (), mode: str = "up") -> State:
    allowed = tuple(parse(line) for line in lines)
    model = Model(allowed=allowed, denied=tuple(parse(line) for line in denied), mode=mode)
    bare = State(("test",), allowed, model, {}, Features((2, 90)), addresses={})
    return shield_bundle.with_addresses(bare)


def policy(*lines: str, denied: tuple[str, ...] = (), mode: str = "up") -> Policy:
    return decode(airlock.policy(state(*lines, denied=denied, mode=mode), "box").encode())


def address(made: Policy, name: str) -> str:
    return next(address for address, known in made.names.items() if known == name)


def allowed(made: Policy, name: str, port: int) -> bool:
    return made.judge_name(name, port, NOW).allowed


def test_names_and_ports() -> None:
    made = policy(*LINES)
    yes = [("a.example", 80), ("a.example", 443), ("a.example", 8443), ("x.wild.example", 443)]
    yes += [
        ("api.wild.example", 9000),
        ("api.wild.example", 443),
        ("y.deep.wild.example", 22),
        ("x.deep.wild.example", 443),
    ]
    no = [("a.example", 22), ("wild.example", 443), ("x.wild.example", 9000), ("x.a.example", 443), ("u.example", 53)]
    no += [("deep.wild.example", 22), ("b.example", 443), ("xwild.example", 443)]
    assert all(allowed(made, *each) for each in yes)
    assert not any(allowed(made, *each) for each in no)


def test_where_an_address_leads() -> None:
    made = policy(*LINES)

    def route(name: str, port: int) -> Route | Verdict:
        return made.route(address(made, name), port, NOW)

    assert route("a.example", 443) == Route(443, Proof.TLS, name="a.example")
    assert route("a.example", 80) == Route(80, Proof.HTTP, name="a.example")
    assert route("a.example", 8443) == Route(8443, Proof.TLS_IF_ANY, name="a.example")
    assert route("*.wild.example", 9999) == Route(9999, Proof.EITHER, pattern="*.wild.example")
    assert made.route("203.0.113.9", 443, NOW) == Route(443, Proof.NONE, address="203.0.113.9")
    for refused in (route("a.example", 22), made.route("198.18.99.99", 443, NOW), made.route(UNKNOWN, 443, NOW)):
        assert isinstance(refused, Verdict) and not refused.allowed
    assert isinstance(made.route("203.0.113.9", 22, NOW), Verdict)
    assert made.route("2001:db8:1::7", 5000, NOW) == Route(5000, Proof.NONE, address="2001:db8:1::7")


def test_denials_win() -> None:
    made = policy(*LINES, denied=("x.wild.example", "*.deep.wild.example", "a.example:8443", "203.0.113.7"))
    assert not allowed(made, "x.wild.example", 443) and allowed(made, "y.wild.example", 443)
    assert not allowed(made, "y.deep.wild.example", 22)
    assert not allowed(made, "a.example", 8443) and allowed(made, "a.example", 443)
    assert not made.judge_address("203.0.113.7", 443, NOW).allowed
    assert made.dialable("203.0.113.7", 443, NOW, frozenset()) == "203.0.113.7 is denied"
    denied = made.judge_name("x.wild.example", 443, NOW)
    assert denied.allow == "terok shield forget box x.wild.example"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.88.99.10", ""),
        ("10.1.2.3", ""),  # allowed as such
        ("10.9.9.9", "private"),
        ("169.254.169.254", "never"),
        ("127.0.0.1", "never"),
        ("::1", "never"),
        ("::ffff:127.0.0.1", "never"),
        ("64:ff9b::a9fe:a9fe", "never"),
        ("fd00::1", "private"),
        ("192.88.99.20", "this host"),
    ],
)
def test_addresses_of_allowed_names(address: str, reason: str) -> None:
    made = policy(*LINES)
    assert reason in (said := made.dialable(address, 443, NOW, frozenset({"192.88.99.20"}))) and bool(said) == bool(
        reason
    )


def test_open_modes() -> None:
    for mode, word in ((DOWN, "bypassed"), (DOWN_ALL, "bypassed"), (LEARN, "learn")):
        made = policy(*LINES, denied=("no.example",), mode=mode)
        assert made.judge_name("b.example", 25, NOW) == Verdict(True, mode, word=word)
        assert made.judge_name("a.example", 443, NOW).word == "allowed"
        assert not allowed(made, "no.example", 443)
        assert made.route(UNKNOWN, 443, NOW) == Route(443, Proof.TLS)
        assert made.judge_address("8.8.8.8", 443, NOW).allowed
        assert made.judge_address("10.9.9.9", 443, NOW).allowed == (mode == DOWN_ALL)
        assert not made.judge_address("169.254.169.254", 80, NOW).allowed
    assert isinstance(policy(*LINES, mode=DOWN_ALL).route("198.18.99.99", 443, NOW), Verdict)
    shut = policy(*LINES, mode=QUARANTINE)
    for place in ("203.0.113.9", address(shut, "a.example"), address(shut, "*.wild.example"), UNKNOWN):
        assert isinstance(shut.route(place, 443, NOW), Verdict)
    assert not allowed(shut, "a.example", 443) and not shut.judge_address("203.0.113.9", 443, NOW).allowed


def test_what_is_allowed_for_a_time_ends() -> None:
    step = verbs.allow(state("a.example"), [parse("b.example")], until=NOW)
    made = decode(airlock.policy(shield_bundle.with_addresses(step.state), "box").encode())
    assert made.judge_name("b.example", 443, NOW - 1).allowed and not made.judge_name("b.example", 443, NOW).allowed
    assert made.next_end(NOW - 1) == NOW and made.next_end(NOW) is None
    bypass = verbs.set_mode(state("a.example"), BYPASS, NOW).state
    made = decode(airlock.policy(bypass, "box").encode())
    assert made.judge_name("b.example", 443, NOW - 1).allowed and not made.judge_name("b.example", 443, NOW).allowed


def test_clients_without_a_server_name_need_a_line_with_the_port() -> None:
    made = policy("a.example", "b.example:443", "*.c.example:443")
    assert not made.allows_without_name("a.example", 443, NOW)
    assert made.allows_without_name("b.example", 443, NOW)
    assert not made.allows_without_name("x.c.example", 443, NOW)
    assert made.hint_exactly("a.example", 443) == "terok shield allow box a.example:443"


@pytest.mark.parametrize(
    "name", ["$(touch x).evil.example", "`touch x`.example", "-x.example", "--help", "*.com", "a b"]
)
@pytest.mark.parametrize("port", [80, 443, 8443])
def test_a_hostile_name_gives_no_command(name: str, port: int) -> None:
    made = policy("a.example")
    refused = made.judge_name(name, port, NOW)
    assert not refused.allowed and refused.allow == "" and made.hint_exactly(name, port) == ""


def test_what_terok_would_refuse_gives_no_command() -> None:
    for address in ("169.254.169.254", "127.0.0.1", "::1"):
        assert policy("a.example").judge_address(address, 80, NOW).allow == ""


def test_hints_are_quoted() -> None:
    made = policy()
    assert made.judge_name("x;rm -rf.example", 443, NOW).allow == ""
    assert made.judge_name("x.example", 22, NOW).allow == "terok shield allow box x.example:22"
    assert made.judge_address("2600::1", 22, NOW).allow == "terok shield allow box '[2600::1]:22'"
    assert made.judge_address("2600::1", 443, NOW).allow == "terok shield allow box 2600::1"


def test_a_pattern_covers_what_is_below_it() -> None:
    assert covers("*.x.example", "a.x.example") and covers("*.x.example", "a.b.x.example") and covers("", "any.example")
    assert not covers("*.x.example", "x.example") and not covers("*.x.example", ".x.example")
    assert not covers("*.x.example", "ax.example")


WRONG_TARGET = """{"container": "box", "generation": 1, "mode": "up", "until": null, "names": {}, "allowed": ["*.*"],
"denied": [], "passing": {}}"""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"container": 1}', "null", '{"names": 3}', WRONG_TARGET])
def test_a_damaged_policy(text: str) -> None:
    with pytest.raises(ValueError):
        decode(text.encode())
    assert not Policy("box").judge_name("a.example", 443, NOW).allowed


def test_addresses_are_stable() -> None:
    first = state("a.example", "*.b.example", "a.example:22")
    host = {"host.containers.internal": "198.18.0.3"}
    assert first.addresses == {**host, "a.example": "198.18.1.0", "*.b.example": "198.18.1.1"}
    more = verbs.allow(verbs.forget(first, [parse("a.example")]).state, [parse("c.example")]).state
    assert shield_bundle.with_addresses(more).addresses == {**first.addresses, "c.example": "198.18.1.2"}
    assert shield_bundle.decode(shield_bundle.encode(first)) == first


def test_five_thousand_names() -> None:
    made = state(*(f"n{number}.example" for number in range(5000)))
    assert made.addresses is not None and len(set(made.addresses.values())) == 5001
    assert allowed(decode(airlock.policy(made, "box").encode()), "n4999.example", 443)


def test_answers() -> None:
    made = state("a.example", "*.wild.example", "api.wild.example:9000", denied=("bad.wild.example",))
    assert made.addresses is not None
    hosts = airlock.hosts(made, "box").splitlines()
    assert "198.18.1.0 a.example" in hosts and "198.18.1.2 api.wild.example" in hosts and "127.0.0.1 localhost" in hosts
    conf = airlock.config(made, Bundle("/b/box")).splitlines()
    assert [line for line in conf if line.startswith(("address", "local="))] == [
        "address=/*.wild.example/198.18.1.1", "local=/*.wild.example/",
        "address=/*.bad.wild.example/198.18.1.1", "local=/*.bad.wild.example/",
        "address=/bad.wild.example/", "address=/#/",
    ]  # fmt: skip
    assert not [line for line in conf if "server" in line or "resolv-file" in line]
    open_ = State(made.profiles, made.base, made.model.with_mode(DOWN), {}, made.features, addresses=made.addresses)
    assert f"address=/#/{UNKNOWN}" in airlock.config(open_, Bundle("/b/box"))
    shut = State(
        made.profiles, made.base, made.model.with_mode(QUARANTINE), {}, made.features, addresses=made.addresses
    )
    assert "198.18.1" not in airlock.config(shut, Bundle("/b/box")) + airlock.hosts(shut, "box")


def test_routes() -> None:
    made = Model(allowed=unique(parse(line) for line in ("203.0.113.0/24", "203.0.113.7", "2001:db8::1", "a.example")))
    assert json.loads(airlock.loopback(made)) == {"local": ["203.0.113.0/24", "2001:db8::1/128"]}
    assert json.loads(airlock.loopback(made.with_mode(DOWN))) == {"local": ["0.0.0.0/0", "::/0"]}


def test_a_start_begins_closed(tmp_path: Path) -> None:
    """What `down` writes lies beside what a start begins with."""
    bundle = Bundle(str(tmp_path / "box"))
    bundle_dir = Path(bundle.root)
    bundle_dir.mkdir()
    opened = verbs.set_mode(state("a.example"), DOWN).state
    shield_bundle.write(bundle, opened)
    for path in (bundle.airlock_policy, bundle.dnsmasq_conf):
        assert Path(path).read_text() != Path(path + ".start").read_text()
    assert json.loads(Path(bundle.airlock_policy + ".start").read_text())["mode"] == "up"
    assert json.loads(Path(bundle.loopback).read_text()) == {"local": []}
    assert json.loads(Path(bundle.loopback + ".now").read_text()) == {"local": ["0.0.0.0/0", "::/0"]}
    assert shield_bundle.read_state(bundle).model.mode == DOWN
