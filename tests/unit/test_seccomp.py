"""Podman's seccomp profile without AF_VSOCK and io_uring, decided as libseccomp would decide."""

from __future__ import annotations

import json
from typing import Any

import pytest

from terok_host.runtime.host import seccomp

PODMANS: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [
        {"names": ["read", "socketcall", "io_uring_setup"], "action": "SCMP_ACT_ALLOW", "args": []},
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 2, "value": 9, "op": "SCMP_CMP_NE"}],
            "excludes": {"caps": ["CAP_AUDIT_WRITE"]},
        },
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_NE"}]},
        {
            "names": ["socket", "bind"],
            "action": "SCMP_ACT_ALLOW",
            "args": None,
            "includes": {"caps": ["CAP_AUDIT_WRITE"]},
        },
        {"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ],
}


def allowed(profile: dict[str, Any], name: str, args: dict[int, int]) -> bool:
    rules = [rule for rule in profile["syscalls"] if name in rule["names"]]
    hits = [
        rule["action"]
        for rule in rules
        if all(seccomp._holds(condition, args[condition["index"]]) for condition in rule.get("args") or [])
    ]
    return bool((hits[0] if hits else profile["defaultAction"]) == "SCMP_ACT_ALLOW")


@pytest.mark.parametrize("profile", [PODMANS, seccomp.find() or PODMANS], ids=["small", "this machine's"])
def test_vsock_and_io_uring_are_gone_and_nothing_else_is(profile: dict[str, Any]) -> None:
    narrow = seccomp.narrowed(profile)
    for family in range(seccomp.FAMILIES):
        for protocol in (0, 6, 9):
            before, after = (allowed(each, "socket", {0: family, 2: protocol}) for each in (profile, narrow))
            assert after == (before and family != seccomp.AF_VSOCK), (family, protocol)
    names = {name for rule in profile["syscalls"] for name in rule["names"]} - {"socket"}
    for name in names:
        kept = {key: rule for key, rule in enumerate(narrow["syscalls"]) if name in rule["names"]}
        assert bool(kept) == (name not in seccomp.HIDDEN), name


def test_a_condition_on_the_family_stands_alone_in_its_rule() -> None:
    for rule in seccomp.narrowed(PODMANS)["syscalls"]:
        indices = [condition["index"] for condition in rule.get("args") or []]
        assert len(indices) == len(set(indices)), "libseccomp takes one condition an argument"


def test_a_profile_that_allows_by_default_refuses_them() -> None:
    narrow = seccomp.narrowed({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []})
    assert not allowed(narrow, "socket", {0: seccomp.AF_VSOCK, 2: 0})
    assert allowed(narrow, "socket", {0: 2, 2: 0})
    assert not allowed(narrow, "io_uring_setup", {})


@pytest.mark.parametrize("profile", [PODMANS, seccomp.find() or PODMANS], ids=["small", "this machine's"])
def test_no_rule_about_sockets_stands_twice(profile: dict[str, Any]) -> None:
    rules = [
        json.dumps(rule, sort_keys=True)
        for rule in seccomp.narrowed(profile)["syscalls"]
        if rule["names"] == ["socket"]
    ]
    assert len(rules) == len(set(rules)), "libseccomp refuses the second one: File exists"
