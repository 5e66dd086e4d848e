"""What a key may sign: each rule with the request that it is there for."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from terok_host.sidecars.ssh import policy
from terok_host.sidecars.ssh.policy import Bindings, Policy
from terok_host.sidecars.ssh.wire import Bind, SshSig, UserAuth, string


def host(name: str) -> bytes:
    """A blob that stands for a host's key: policies only compare them."""
    return string("ssh-ed25519") + string(name.encode().ljust(32, b"."))


FORGE, BUILD, EVIL = host("forge"), host("build"), host("evil")
ONE, TWO = bytes(32), bytes([1]) * 32
HOSTS: dict[str, Any] = {
    "forge.example": {"keys": ["ssh-ed25519 " + b64encode(FORGE).decode()]},
    "build.example": {"keys": ["ssh-ed25519 " + b64encode(BUILD).decode()], "users": ["deploy", "ci"]},
}
PINNED = policy.parse({"hosts": HOSTS})
FORWARDING = policy.parse({"hosts": HOSTS, "forwarding": True})
UNBOUND = policy.parse({"hosts": HOSTS, "require_bind": False})


def bound(*hops: tuple[bytes, bytes, bool], refused: str = "") -> Bindings:
    """A connection that is bound to (host key, session, forwarded) one after the other."""
    bindings = Bindings()
    bindings.binds = [Bind(key, session, b"", forwarded) for key, session, forwarded in hops]
    bindings.refused = refused
    return bindings


def login(
    user: str = "git", *, session: bytes = ONE, host_key: bytes | None = None, algorithm: str = "ssh-ed25519"
) -> UserAuth:
    return UserAuth(session, user, algorithm, b"key", host_key)


def test_the_default_is_strict() -> None:
    assert policy.parse(None) == policy.parse({}) == policy.STRICT
    assert not policy.STRICT.pins
    assert (policy.STRICT.namespaces, policy.STRICT.require_bind) == (("git",), True)
    assert (policy.STRICT.forwarding, policy.STRICT.confirm) == (False, False)


@pytest.mark.parametrize(
    "document",
    [
        [],
        "strict",
        {"host": {}},
        {"hosts": []},
        {"hosts": {"a": []}},
        {"hosts": {"a": {}}},
        {"hosts": {"a": {"keys": "x"}}},
        {"hosts": {"a": {"keys": ["ssh-ed25519"]}}},
        {"hosts": {"a": {"keys": ["ssh-ed25519 !!!!"]}}},
        {"hosts": {"a": {"keys": ["ssh-rsa " + b64encode(FORGE).decode()]}}},
        {"hosts": {"a": {"keys": [], "port": 22}}},
        {"users": "git"},
        {"users": [""]},
        {"users": [1]},
        {"namespaces": None},
        {"rate": -1},
        {"rate": True},
        {"rate": 1.5},
        {"require_bind": "no"},
        {"confirm": 1},
    ],
)
def test_a_policy_that_is_not_understood_is_no_policy(document: object) -> None:
    with pytest.raises(policy.PolicyError):
        policy.parse(document)


def test_a_bind_to_a_pinned_host() -> None:
    verdict = policy.decide_bind(Bindings(), Bind(FORGE, ONE, b"", False), [PINNED], elsewhere=False)
    assert (verdict.allowed, verdict.host) == (True, "forge.example")


@pytest.mark.parametrize(
    ("bindings", "bind", "rules", "elsewhere", "reason"),
    [
        (Bindings(), Bind(EVIL, ONE, b"", False), PINNED, False, "not pinned"),
        (Bindings(), Bind(FORGE, ONE, b"", False), policy.STRICT, False, "not pinned"),
        (Bindings(), Bind(FORGE, ONE, b"", True), PINNED, False, "forwarded"),
        (Bindings(), Bind(FORGE, ONE, b"", False), PINNED, True, "another connection"),
        (bound((FORGE, ONE, False)), Bind(FORGE, ONE, b"", False), PINNED, False, "already"),
        (bound((FORGE, ONE, False)), Bind(BUILD, TWO, b"", False), FORWARDING, False, "already"),
        (bound((FORGE, ONE, True)), Bind(BUILD, ONE, b"", True), FORWARDING, False, "another way"),
        (bound((FORGE, ONE, True)), Bind(FORGE, ONE, b"", False), FORWARDING, False, "another way"),
        (
            bound(*((FORGE, bytes([number]) * 32, True) for number in range(16))),
            Bind(FORGE, b"x" * 32, b"", False),
            FORWARDING,
            False,
            "16 sessions",
        ),
    ],
)
def test_binds_that_are_refused(bindings: Bindings, bind: Bind, rules: Policy, elsewhere: bool, reason: str) -> None:
    verdict = policy.decide_bind(bindings, bind, [rules], elsewhere=elsewhere)
    assert not verdict.allowed
    assert reason in verdict.reason


def test_a_forwarded_bind_may_be_repeated() -> None:
    again = Bind(FORGE, ONE, b"", True)
    assert policy.decide_bind(bound((FORGE, ONE, True)), again, [FORWARDING], elsewhere=True).allowed


@pytest.mark.parametrize(
    ("rules", "bindings", "request_", "name"),
    [
        (PINNED, bound((FORGE, ONE, False)), login(), "forge.example"),
        (PINNED, bound((FORGE, ONE, False)), login(host_key=FORGE), "forge.example"),
        (PINNED, bound((BUILD, ONE, False)), login("ci"), "build.example"),
        (FORWARDING, bound((BUILD, TWO, True), (FORGE, ONE, False)), login(), "forge.example"),
        (UNBOUND, Bindings(), login(), None),
        (UNBOUND, Bindings(), login("deploy"), None),
        (UNBOUND, Bindings(), login(host_key=FORGE), "forge.example"),
    ],
)
def test_logins_that_are_signed(rules: Policy, bindings: Bindings, request_: UserAuth, name: str | None) -> None:
    verdict = policy.decide_login(rules, request_, bindings)
    assert (verdict.allowed, verdict.reason, verdict.host, verdict.user) == (True, "", name, request_.user)


@pytest.mark.parametrize(
    ("rules", "bindings", "request_", "reason"),
    [
        (policy.STRICT, bound((FORGE, ONE, False)), login(), "not pinned"),
        (PINNED, Bindings(), login(), "did not bind"),
        (PINNED, Bindings(), login(host_key=FORGE), "did not bind"),
        (PINNED, bound((EVIL, ONE, False)), login(), "not pinned"),
        (PINNED, bound((FORGE, ONE, False)), login(session=TWO), "not the one"),
        (PINNED, bound((FORGE, ONE, False)), login("root"), "user name"),
        (PINNED, bound((BUILD, ONE, False)), login("git"), "user name"),
        (PINNED, bound((FORGE, ONE, False)), login(host_key=BUILD), "another host key"),
        (PINNED, bound((BUILD, TWO, True), (FORGE, ONE, False)), login(), "forwarded agent"),
        (FORWARDING, bound((EVIL, TWO, True), (FORGE, ONE, False)), login(), "not pinned"),
        (FORWARDING, bound((FORGE, ONE, True)), login(), "not a login"),
        (PINNED, bound(refused="the host key is not pinned"), login(), "was refused"),
        (UNBOUND, bound(refused="the host key is not pinned"), login(), "was refused"),
        (PINNED, bound((FORGE, ONE, False), refused="again"), login(), "was refused"),
        (UNBOUND, Bindings(), login("root"), "user name"),
        (UNBOUND, Bindings(), login(host_key=EVIL), "not pinned"),
        (UNBOUND, Bindings(), login("root", host_key=FORGE), "user name"),
        (UNBOUND, bound((EVIL, ONE, False)), login(), "not pinned"),
    ],
)
def test_logins_that_are_refused(rules: Policy, bindings: Bindings, request_: UserAuth, reason: str) -> None:
    verdict = policy.decide_login(rules, request_, bindings)
    assert not verdict.allowed
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("rules", "bindings", "namespace", "reason"),
    [
        (policy.STRICT, Bindings(), "git", ""),
        (policy.STRICT, Bindings(), "file", "namespace"),
        (policy.STRICT, Bindings(), "git2", "namespace"),
        (policy.parse({"namespaces": ["git", "file"]}), Bindings(), "file", ""),
        (policy.parse({"namespaces": []}), Bindings(), "git", "namespace"),
        (PINNED, bound((FORGE, ONE, False)), "git", "bound to a login"),
        (PINNED, bound((FORGE, ONE, True)), "git", "forwarded agent"),
        (FORWARDING, bound((FORGE, ONE, True)), "git", ""),
        (FORWARDING, bound((EVIL, ONE, True)), "git", "not pinned"),
        (PINNED, bound(refused="forwarded"), "git", "was refused"),
    ],
)
def test_sshsig(rules: Policy, bindings: Bindings, namespace: str, reason: str) -> None:
    verdict = policy.decide_sshsig(rules, SshSig(namespace, "sha512"), bindings)
    assert verdict.allowed is (reason == "")
    assert reason in verdict.reason
    assert verdict.namespace == namespace


def test_the_rate_is_a_minutes_worth_that_refills() -> None:
    rate = policy.Rate(6, 100.0)
    assert [rate.take(6, 100.0) for _ in range(7)] == [True] * 6 + [False]
    assert [rate.take(6, 110.0) for _ in range(2)] == [True, False]
    assert [rate.take(6, 1000.0) for _ in range(7)] == [True] * 6 + [False]


def test_a_changed_rate_holds_at_once() -> None:
    rate = policy.Rate(100, 0.0)
    assert rate.take(100, 0.0)
    assert [rate.take(2, 0.0) for _ in range(3)] == [True, True, False]
    assert all(rate.take(0, 0.0) for _ in range(500))
    assert [rate.take(2, 0.0) for _ in range(3)] == [True, True, False]


def test_two_hosts_may_share_a_key() -> None:
    key = HOSTS["forge.example"]["keys"]
    rules = policy.parse({"hosts": {"a": {"keys": key, "users": ["one"]}, "b": {"keys": key, "users": ["two"]}}})
    assert policy.decide_login(rules, login("two"), bound((FORGE, ONE, False))).host == "b"
    assert not policy.decide_login(rules, login("three"), bound((FORGE, ONE, False))).allowed
