"""Which addresses an upstream may have: decided after its name was resolved, so that a name cannot point inside.

Without `allow_private`, only addresses that are routed on the public internet. Cloud metadata services are refused
even with it: they hand out the machine's own credentials to whoever asks.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

PRIVATE = (
    "0.0.0.0/8",  # this network (RFC 1122)
    "10.0.0.0/8",  # private (RFC 1918)
    "100.64.0.0/10",  # carrier-grade NAT (RFC 6598)
    "127.0.0.0/8",  # loopback (RFC 1122)
    "169.254.0.0/16",  # link-local (RFC 3927)
    "172.16.0.0/12",  # private (RFC 1918)
    "192.0.0.0/24",  # protocol assignments (RFC 6890)
    "192.0.2.0/24",  # documentation (RFC 5737)
    "192.168.0.0/16",  # private (RFC 1918)
    "198.18.0.0/15",  # benchmarks (RFC 2544)
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/3",  # multicast, reserved, broadcast
    "::/96",  # unspecified, loopback, IPv4-compatible (RFC 4291)
    "::ffff:0:0/96",  # IPv4-mapped: an IPv4 address in disguise
    "64:ff9b::/96",  # NAT64 (RFC 6052)
    "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
    "100::/64",  # discard (RFC 6666)
    "2001:db8::/32",  # documentation (RFC 3849)
    "2002::/16",  # 6to4 (RFC 3056)
    "fc00::/7",  # unique local (RFC 4193)
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local (RFC 3879)
    "ff00::/8",  # multicast
)
METADATA = (
    "169.254.169.254/32",
    "169.254.170.2/32",
    "169.254.169.123/32",
    "100.100.100.200/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
)


def _number(text: str) -> tuple[int, int, int]:
    family = AF_INET6 if ":" in text else AF_INET
    packed = inet_pton(family, text)
    return family, int.from_bytes(packed, "big"), 8 * len(packed)


def _network(text: str) -> tuple[int, int, int]:
    address, _, length = text.partition("/")
    family, number, bits = _number(address)
    return family, number >> (bits - int(length)), bits - int(length)


_PRIVATE = tuple(_network(each) for each in PRIVATE)
_METADATA = tuple(_network(each) for each in METADATA)


def _within(networks: tuple[tuple[int, int, int], ...], family: int, number: int) -> bool:
    return any(family == each and number >> shift == prefix for each, prefix, shift in networks)


def refusal(address: str, *, allow_private: bool) -> str:
    """Why an upstream at `address` (IPv4 or IPv6 text, no zone) is not connected to; empty: it may be.

    Args:
        address: as getaddrinfo(3) gave it.
        allow_private: the route's own permission.
    """
    text = address.partition("%")[0]
    try:
        family, number, _ = _number(text)
    except OSError:
        return "not an address"
    if family == AF_INET6 and number >> 32 == 0xFFFF:
        family, number = AF_INET, number & 0xFFFFFFFF
        mapped = True
    else:
        mapped = False
    if _within(_METADATA, family, number):
        return "a cloud metadata service"
    if not allow_private and (mapped or _within(_PRIVATE, family, number)):
        return "a private, loopback or special address"
    return ""
