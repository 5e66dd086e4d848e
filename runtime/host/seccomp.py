"""Podman's own seccomp profile without what no firewall sees: AF_VSOCK sockets and io_uring.

nftables knows no vsock(7), so such a socket leads to the hypervisor past every rule; and io_uring(7) makes sockets
without the system call that a seccomp rule looks at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

PROFILES = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
"""Where Podman looks for its profile (containers.conf(5), seccomp_profile)."""
AF_VSOCK = 40
FAMILIES = 46
"""AF_MAX of the kernel: families that do not exist are refused by the kernel itself."""
HIDDEN = frozenset({"io_uring_setup", "io_uring_enter", "io_uring_register", "socketcall"})
"""socketcall(2) takes the family through a pointer, where no rule sees it; only 32-bit programs use it."""
_WITH_SOCKETCALL = "SCMP_ARCH_X86"
"""libseccomp allows its socketcall(2) as soon as it allows socket(2): programs for 32-bit x86 are not run."""
_ALLOW, _REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_COMPARE = {
    "SCMP_CMP_EQ": lambda one, other: one == other,
    "SCMP_CMP_NE": lambda one, other: one != other,
    "SCMP_CMP_LT": lambda one, other: one < other,
    "SCMP_CMP_LE": lambda one, other: one <= other,
    "SCMP_CMP_GT": lambda one, other: one > other,
    "SCMP_CMP_GE": lambda one, other: one >= other,
}


def find() -> dict[str, object] | None:
    """The profile that Podman would use, as JSON; None when it is built in."""
    for path in PROFILES:
        try:
            with open(path, encoding="utf-8") as file:
                profile = json.load(file)
        except (OSError, ValueError):
            continue
        if isinstance(profile, dict) and isinstance(profile.get("syscalls"), list):
            return profile
    return None


def narrowed(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The profile without AF_VSOCK, io_uring and socketcall; pure.

    libseccomp takes one condition an argument, so "any family but these two" is written as a rule for each family; and
    it takes no rule twice, nor one that another one includes.
    """
    allowing = [rule for rule in profile["syscalls"] if rule.get("action") == _ALLOW]
    rules = [part for rule in profile["syscalls"] for part in _without_socket(rule)]
    about_socket = [rule for rule in allowing if "socket" in _names(rule)]
    for holders in dict.fromkeys(map(_holders, about_socket)):
        rules += _families([rule for rule in about_socket if _holders(rule) == holders])
    if profile.get("defaultAction") == _ALLOW:
        vsock = {"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_EQ"}
        rules += [_rule(["socket", "socketpair"], [vsock]), _rule(sorted(HIDDEN), [])]
    architectures = [
        {
            **entry,
            "subArchitectures": [name for name in entry.get("subArchitectures") or [] if name != _WITH_SOCKETCALL],
        }
        for entry in profile.get("archMap") or []
    ]
    return {**profile, "archMap": architectures, "syscalls": rules}


def _rule(names: list[str], args: list[dict[str, object]]) -> dict[str, object]:
    return {"names": names, "action": _REFUSE, "errnoRet": 97, "args": args}  # EAFNOSUPPORT


def _names(rule: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in rule.get("names") or [rule.get("name")]]


def _holders(rule: Mapping[str, object]) -> str:
    """For which containers a rule counts: by capability, architecture, kernel."""
    return json.dumps([rule.get("includes") or {}, rule.get("excludes") or {}], sort_keys=True)


def _without_socket(rule: Mapping[str, object]) -> Iterator[dict[str, object]]:
    if rule.get("action") != _ALLOW:
        yield dict(rule)
        return
    names = [name for name in _names(rule) if name not in HIDDEN and name != "socket"]
    if names:
        yield {**{key: value for key, value in rule.items() if key != "name"}, "names": names}


def _families(rules: list[Mapping[str, Any]]) -> Iterator[dict[str, object]]:
    """The rules about socket(2) that count for the same containers, as one rule or more for each family."""
    base = {key: value for key, value in rules[0].items() if key not in ("name", "names", "args")}
    for family in range(FAMILIES):
        if family == AF_VSOCK:
            continue
        rests: list[list[dict[str, object]]] = []
        for rule in rules:
            conditions = rule.get("args") or []
            if all(_holds(condition, family) for condition in conditions if condition.get("index") == 0):
                rests.append([condition for condition in conditions if condition.get("index") != 0])
        kept = [[]] if [] in rests else [rest for at, rest in enumerate(rests) if rest not in rests[:at]]
        for rest in kept:
            yield {**base, "names": ["socket"], "args": [{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}, *rest]}


def _holds(condition: Mapping[str, object], family: int) -> bool:
    compare = _COMPARE.get(str(condition.get("op")))
    return compare is not None and bool(compare(family, condition.get("value")))
