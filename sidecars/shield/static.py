"""Names without a dnsmasq that can teach the firewall: resolved on the host, when prepared and on demand.

The container gets the answers as its /etc/hosts and has no resolver at all. Names below a wildcard cannot be known, and
an address that changes is not followed until the next refresh: `terok shield status` says that names are static.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ...supervisor.ground import process
from ..kit import addresses
from .model import Model
from .targets import HOST, NAME, Target

Lookup = Callable[[Sequence[str]], dict[str, list[str]]]
_TIMEOUT = 60.0
_HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


def resolve(model: Model, lookup: Lookup) -> tuple[Model, dict[str, list[str]]]:
    """The policy with the addresses of its names, and the addresses by name.

    Args:
        model: the policy.
        lookup: what asks.
    """
    brokered = dict(model.brokered)
    exact = (target.value for target in model.names() if target.kind == NAME)
    names = [name for name in dict.fromkeys(exact) if name not in brokered]
    addresses = {
        name: [answer for answer in answers if usable(model, answer)]
        for name, answers in (lookup(names) if names else {}).items()
    }
    resolved = dict.fromkeys(
        Target(HOST, address, target.ports)
        for target in model.names()
        if target.kind == NAME
        for address in addresses.get(target.value, [])
    )
    return replace(model, resolved=tuple(resolved)), addresses


def usable(model: Model, address: str) -> bool:
    """False for what no name may lead to; a special address counts only when it was allowed as such."""
    kind = addresses.kind(address, frozenset(own.partition("/")[0] for own in model.own))
    if kind != addresses.AS_SUCH:
        return not kind
    host = ipaddress.ip_address(address)
    return any(host in target.network for target in model.allowed if not target.is_name)


def hosts(addresses: Mapping[str, Sequence[str]]) -> str:
    """The container's /etc/hosts."""
    return _HOSTS + "".join(f"{address} {name}\n" for name, answers in addresses.items() for address in answers)


def lookup(names: Sequence[str]) -> dict[str, list[str]]:
    """Ask `dig`, or `getent` where there is no dig; a name without an answer is missing from the result."""
    if process.find("dig"):
        words = [word for name in names for kind in ("A", "AAAA") for word in (name, kind)]
        options = ["+noall", "+question", "+answer", "+time=2", "+tries=1"]
        result = process.run(["dig", *options, *words], timeout=_TIMEOUT)
        return parse_dig(result.out.decode(errors="replace"))
    answers = {}
    for name in names:
        result = process.run(["getent", "ahosts", name], timeout=_TIMEOUT)
        addresses = parse_getent(result.out.decode(errors="replace"))
        if addresses:
            answers[name] = addresses
    return answers


def parse_dig(text: str) -> dict[str, list[str]]:
    """Addresses by the name that was asked for; the owner of an address may be an alias's target."""
    addresses: dict[str, list[str]] = {}
    asked = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith(";") and len(words) >= 3:
            asked = words[0].lstrip(";").rstrip(".").lower()
        elif len(words) >= 5 and words[3] in ("A", "AAAA") and asked and _is_address(words[4]):
            addresses.setdefault(asked, []).append(words[4])
    return addresses


def parse_getent(text: str) -> list[str]:
    """The addresses of `getent ahosts`, each once."""
    words = (line.split()[0] for line in text.splitlines() if line.strip())
    return list(dict.fromkeys(word for word in words if _is_address(word)))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
