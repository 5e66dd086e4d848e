"""Addresses that are not an ordinary place on the internet."""

from __future__ import annotations

import ipaddress

from .targets import RANGE, Network, Target, TargetError

NEVER = (
    "0.0.0.0/8",  # this host (RFC 1122)
    "127.0.0.0/8",  # loopback, outside of the loopback interface
    "169.254.0.0/16",  # link-local; the clouds' metadata service is 169.254.169.254
    "100.100.100.200/32",  # metadata, Alibaba
    "168.63.129.16/32",  # Azure's platform channel
    "192.0.0.192/32",  # metadata, Oracle
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and the broadcast address
    "::/127",  # unspecified and loopback
    "::ffff:0:0/96",  # IPv4-mapped: on the wire it is a trick
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local, deprecated
    "ff00::/8",  # multicast
    "fd00:ec2::/32",  # metadata, Amazon
    "fd20:ce::254/128",  # metadata, Google
)
"""No allowlist opens these."""

SPECIAL = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",  # carrier-grade NAT (RFC 6598), also used by overlay networks
    "192.0.0.0/24",  # IETF protocol assignments
    "198.18.0.0/15",  # benchmarking (RFC 2544)
    "fc00::/7",  # unique local
    "64:ff9b::/96",  # NAT64: leads to any IPv4 address
    "64:ff9b:1::/48",  # local NAT64
    "2001::/32",  # Teredo: the same
    "2002::/16",  # 6to4: the same
)
"""Reachable only when an address or range among them was allowed as such; never by what a name answers."""

LARGE = {4: 16, 6: 32}
"""A range with a shorter prefix than this is worth a notice."""

_NEVER = tuple(ipaddress.ip_network(each) for each in NEVER)
_SPECIAL = tuple(ipaddress.ip_network(each) for each in SPECIAL)


def of_family(ranges: tuple[str, ...], family: int) -> list[str]:
    """Those of `ranges` that are IPv4 (4) or IPv6 (6)."""
    return [each for each in ranges if (6 if ":" in each else 4) == family]


def _inside(network: Network, ranges: tuple[Network, ...]) -> Network | None:
    for each in ranges:
        if network.version == each.version and network.subnet_of(each):  # type: ignore[arg-type]  # versions agree
            return each
    return None


def is_special(address: str) -> bool:
    """True for an address that a name's answer cannot open."""
    network = ipaddress.ip_network(address)
    return bool(_inside(network, _NEVER) or _inside(network, _SPECIAL))


def check_allowed(target: Target) -> list[str]:
    """What is worth noting in the audit log when `target` is allowed.

    Raises:
        TargetError: the target lies in a range that is never reachable.
    """
    if target.is_name:
        return []
    network = target.network
    never = _inside(network, _NEVER)
    if never:
        raise TargetError(f"{target} cannot be allowed: {never} is never reachable from a container.")
    notes = []
    if _inside(network, _SPECIAL) or any(
        network.version == each.version and network.supernet_of(each)  # type: ignore[arg-type]  # versions agree
        for each in _SPECIAL
    ):
        notes.append(f"{target} is or holds a private or special range")
    if target.kind == RANGE and network.prefixlen < LARGE[network.version]:
        notes.append(f"{target} is a large range: {network.num_addresses} addresses")
    return notes
