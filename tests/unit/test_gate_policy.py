"""Tests of the ref policy: who may change what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from terok_host.sidecars.gate.config import Settings, read_settings
from terok_host.sidecars.gate.pktline import Command
from terok_host.sidecars.gate.policy import Judge, Policy, matches
from terok_host.sidecars.kit.proxy.egress import NO_PROXY, Egress
from terok_host.supervisor.ground.errors import TerokError

A, B, ZERO = "a" * 40, "b" * 40, "0" * 40


@dataclass
class Case:
    kind: str
    ref: str
    allowed: bool


def judge(**lists: Any) -> Judge:
    return Judge(Policy(**lists), "agent", "refs/heads/main")


@pytest.mark.parametrize("kind", ["create", "update", "force", "delete"])
@pytest.mark.parametrize(
    ("ref", "allowed"),
    [
        ("refs/heads/agent/x", True),
        ("refs/heads/agent/x/y", True),
        ("refs/heads/agent", False),
        ("refs/heads/agents/x", False),
        ("refs/heads/other/x", False),
        ("refs/heads/main", False),
        ("refs/tags/v1", False),
        ("refs/notes/x", False),
        ("refs/terok/upstream/heads/main", False),
    ],
)
def test_by_default_a_container_has_its_own_branches(kind: str, ref: str, allowed: bool) -> None:
    assert (judge().refusal(kind, ref) == "") is allowed


@pytest.mark.parametrize(
    "case",
    [
        Case("create", "refs/tags/v1", True),
        Case("update", "refs/tags/v1", False),
        Case("force", "refs/tags/v1", False),
        Case("delete", "refs/tags/v1", False),
        Case("update", "refs/heads/main", False),
        Case("update", "refs/heads/other", True),
        Case("delete", "refs/heads/main", False),
    ],
)
def test_tags_and_the_default_branch_are_protected_from_wildcards(case: Case) -> None:
    everything = ("refs/*",)
    found = judge(create=everything, update=everything, force=everything, delete=everything)
    assert (found.refusal(case.kind, case.ref) == "") is case.allowed


def test_the_default_branch_can_be_named_for_updates_alone() -> None:
    named = ("refs/heads/main",)
    found = judge(update=named, force=named, delete=named)
    assert found.refusal("update", "refs/heads/main") == ""
    assert "protected" in found.refusal("force", "refs/heads/main")
    assert "protected" in found.refusal("delete", "refs/heads/main")


def test_protection_can_be_switched_off() -> None:
    everything = ("refs/*",)
    found = judge(force=everything, delete=everything, protect=False)
    assert found.refusal("force", "refs/heads/main") == ""
    assert found.refusal("delete", "refs/tags/v1") == ""


def test_other_refs_are_never_kept() -> None:
    assert "branches and tags only" in judge(create=("refs/*",), protect=False).refusal("create", "refs/pull/1/head")


@pytest.mark.parametrize(
    ("pattern", "ref", "fits"),
    [
        ("refs/heads/*", "refs/heads/a/b", True),
        ("refs/heads/*", "refs/heads/", True),
        ("refs/heads/a*b", "refs/heads/ab", True),
        ("refs/heads/a*b", "refs/heads/a", False),
        ("refs/heads/ab*ba", "refs/heads/aba", False),
        ("refs/*/x*y", "refs/heads/x/y", True),
        ("refs/heads/{container}-*", "refs/heads/agent-1", True),
        ("refs/heads/{container}-*", "refs/heads/other-1", False),
        ("refs/heads/a.c", "refs/heads/abc", False),
    ],
)
def test_patterns(pattern: str, ref: str, fits: bool) -> None:
    assert matches(pattern, ref, "agent") is fits


def test_before_the_pack_an_update_may_still_be_a_fast_forward() -> None:
    command = Command(A, B, "refs/heads/x")
    assert judge(update=("refs/heads/x",), force=()).before_pack(command) == ""
    assert judge(update=(), force=("refs/heads/x",)).before_pack(command) == ""
    assert judge(update=(), force=()).before_pack(command) != ""
    assert judge().before_pack(Command(ZERO, B, "refs/heads/x")) == "create is allowed for refs/heads/agent/* only"
    assert judge().before_pack(Command(B, ZERO, "refs/heads/agent/x")) == ""


def test_a_policy_survives_its_file() -> None:
    policy = Policy(create=("refs/tags/*",), delete=(), protect=False)
    assert Policy.from_dict(policy.to_dict()) == policy


@pytest.mark.parametrize("data", [{"creat": []}, {"create": "refs/*"}, {"create": [1]}, {"protect": 1}])
def test_a_wrong_policy_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="policy"):
        Policy.from_dict(data)


def test_settings_are_read_strictly() -> None:
    good = {"root": "/g", "store": "/v/vault.db", "key_files": ["/run/key", "/v/key"]}
    assert read_settings(good) == Settings("/g", "/v/vault.db", ("/run/key", "/v/key"), NO_PROXY)
    way = Egress(host="proxy.test", port=3128, direct=("*.corp.test",))
    assert read_settings({**good, "egress": way.to_dict()}).egress == way
    changes: list[dict[str, object]] = [
        {"root": 1},
        {"egress": "http://proxy.test"},
        {"store": None},
        {"key_files": "/k"},
        {"key_files": [1]},
        {"x": ""},
    ]
    for change in changes:
        with pytest.raises(TerokError, match="not understood"):
            read_settings({**good, **change})
    with pytest.raises(TerokError, match="not understood"):
        read_settings({"root": "/g", "store": "/v"})
