"""The one table of addresses that are not an ordinary place on the internet, for the shield, the vault and the airlock.

Each address is of one kind:

- ordinary: a name may lead there;
- `AS_SUCH`: only a target or route that asks for it may lead there, never what a name answers;
- `NEVER`: no container reaches it. The vault's `allow_private` opens these too (a model on the host's loopback),
  but never `METADATA`: such a service hands out the machine's own credentials to any client.

An address is judged after its name was resolved, so a name cannot point inside. An IPv6 address that carries an IPv4
address is judged by what it carries too: NAT64 leads to the metadata service as well as IPv4 does.
"""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6, AF_UNSPEC, SOCK_CLOEXEC, SOCK_RAW, inet_ntop, inet_pton, socket
from collections.abc import Iterable

METADATA = (
    "169.254.169.0/24",  # nearly every cloud; its resolver and clock too
    "169.254.170.0/24",  # Amazon's containers: ECS and EKS
    "169.254.42.42/32",  # Scaleway
    "169.254.0.23/32",  # Tencent
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure's platform channel
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::/32",  # Amazon
    "fd20:ce::254/128",  # Google
    "fd00:42::42/128",  # Scaleway
    "fe80::a9fe:a9fe/128",  # OpenStack
)
HERE = (
    "0.0.0.0/8",  # this host (RFC 1122)
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local (RFC 3927)
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and the broadcast address
    "::/96",  # unspecified, loopback, IPv4-compatible (RFC 4291)
    "::ffff:0:0/96",  # IPv4-mapped: an IPv4 address in disguise
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local, deprecated (RFC 3879)
    "ff00::/8",  # multicast
)
SPECIAL = (
    "10.0.0.0/8",  # private (RFC 1918)
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",  # carrier-grade NAT (RFC 6598), also used by overlay networks
    "192.0.0.0/24",  # protocol assignments (RFC 6890)
    "198.18.0.0/15",  # benchmarks (RFC 2544)
    "fc00::/7",  # unique local (RFC 4193)
    "64:ff9b::/96",  # NAT64: leads to any IPv4 address (RFC 6052)
    "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
    "100::/64",  # discard (RFC 6666)
    "2001::/32",  # Teredo: leads to any IPv4 address (RFC 4380)
    "2002::/16",  # 6to4: the same (RFC 3056)
    "5f00::/16",  # segment routing inside a network (RFC 9602)
)
"""Opened only by an address or range that is allowed as such, and in the vault by `allow_private`."""

DOCUMENTATION = (
    "192.0.2.0/24",  # RFC 5737
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001:db8::/32",  # RFC 3849
    "3fff::/20",  # RFC 9637
)
"""Routed on no network: the vault dials them only with `allow_private`; to a firewall they are ordinary."""

AS_SUCH, NEVER_OPENED = "as such", "never"

_Range = tuple[int, int, int]
"""Family, prefix as a number, and the bits behind the prefix."""


def _number(text: str) -> tuple[int, int]:
    family = AF_INET6 if ":" in text else AF_INET
    return family, int.from_bytes(inet_pton(family, text), "big")


def _bits(family: int) -> int:
    return 128 if family == AF_INET6 else 32


def _range(text: str) -> _Range:
    address, _, length = text.partition("/")
    family, number = _number(address)
    shift = _bits(family) - int(length or _bits(family))
    return family, number >> shift, shift


def _holds(ranges: tuple[_Range, ...], family: int, number: int, shift: int = 0) -> bool:
    """True when one of `ranges` holds all addresses that differ from `number` in its lowest `shift` bits only."""
    return any(family == own and shift <= bits and number >> bits == prefix for own, prefix, bits in ranges)


def _carriers(ranges: tuple[str, ...]) -> tuple[str, ...]:
    """Where NAT64 and 6to4 carry IPv4 `ranges`: both have the IPv4 address right behind their prefix."""
    carried = []
    for carrier, length in (("64:ff9b::", 96), ("2002::", 16)):
        base = _number(carrier)[1]
        for text in ranges:
            family, prefix, shift = _range(text)
            if family == AF_INET:
                number = base | prefix << shift << 96 - length
                carried.append(f"{inet_ntop(AF_INET6, number.to_bytes(16, 'big'))}/{length + 32 - shift}")
    return tuple(carried)


def _apart(texts: tuple[str, ...]) -> tuple[str, ...]:
    """`texts` without those that another one holds: nftables wants the intervals of a set disjoint."""
    ranges = [_range(text) for text in texts]
    return tuple(
        text
        for text, (family, prefix, shift) in zip(texts, ranges, strict=True)
        if not _holds(tuple(other for other in ranges if other[2] > shift), family, prefix << shift, shift)
    )


NEVER = _apart((*METADATA, *HERE, *_carriers((*METADATA, *HERE))))
"""No allowlist opens these."""

_METADATA = tuple(_range(text) for text in METADATA)
_NEVER = tuple(_range(text) for text in NEVER)
_SPECIAL = tuple(_range(text) for text in SPECIAL)
_NOT_PUBLIC = tuple(_range(text) for text in (*NEVER, *SPECIAL, *DOCUMENTATION))
_TEREDO, _LOCAL_NAT64 = _range("2001::/32"), _range("64:ff9b:1::/48")
_LAST_32 = tuple(_range(text) for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96"))
_6TO4 = _range("2002::/16")


def _carried(number: int) -> list[int]:
    """The IPv4 addresses that an IPv6 address may stand for."""
    low = number & 0xFFFFFFFF
    if _holds(_LAST_32, AF_INET6, number):
        return [low]
    if _holds((_6TO4,), AF_INET6, number):
        return [number >> 80 & 0xFFFFFFFF]
    inner = []
    if _holds((_TEREDO,), AF_INET6, number):
        inner = [low ^ 0xFFFFFFFF, number >> 64 & 0xFFFFFFFF]  # the client, inverted, and its server
    elif _holds((_LOCAL_NAT64,), AF_INET6, number):
        # RFC 6052: any prefix from /48 on may be in use; bits 64 to 71 are left out of the address
        joined = number >> 64 << 56 | number & (1 << 56) - 1
        inner = [low, *(joined >> 88 - length & 0xFFFFFFFF for length in (48, 56, 64))]
    return [address for address in inner if address >> 24]  # zeros: not where the address stands


def _judged(address: str) -> list[tuple[int, int]]:
    """The address and what it carries, as (family, number).

    Raises:
        OSError: not an address.
    """
    family, number = _number(address.partition("%")[0])
    carried = _carried(number) if family == AF_INET6 else []
    return [(family, number), *((AF_INET, inner) for inner in carried)]


def refusal(address: str, *, allow_private: bool) -> str:
    """Why an upstream at `address` (IPv4 or IPv6 text) is not connected to; empty: it may be.

    Args:
        address: as getaddrinfo(3) gave it.
        allow_private: the route's own permission.
    """
    try:
        judged = _judged(address)
    except OSError:
        return "not an address"
    if any(_holds(_METADATA, *one) for one in judged):
        return "a cloud metadata service"
    if not allow_private and any(_holds(_NOT_PUBLIC, *one) for one in judged):
        return "a private, loopback or special address"
    return ""


def kind(address: str, own: frozenset[str] = frozenset()) -> str:
    """What may lead a container to `address`: empty (a name), `AS_SUCH` (a target with the address) or `NEVER_OPENED`.

    Args:
        address: IPv4 or IPv6 text.
        own: the host's own addresses, see `own_addresses`.

    Raises:
        OSError: not an address.
    """
    judged = _judged(address)
    if any(_holds(_NEVER, *one) for one in judged):
        return NEVER_OPENED
    family, number = judged[0]
    is_own = bool(own) and inet_ntop(family, number.to_bytes(_bits(family) // 8, "big")) in own
    return AS_SUCH if is_own or any(_holds(_SPECIAL, *one) for one in judged) else ""


def never_range(text: str) -> str:
    """The range of `NEVER` that holds an address or a range; empty when none does."""
    family, prefix, shift = _range(text)
    number = prefix << shift
    for never in NEVER:
        if _holds((_range(never),), family, number, shift):
            return never
    if not shift and kind(text.partition("/")[0]) == NEVER_OPENED:
        return text
    return ""


def touches_special(text: str) -> bool:
    """True when an address or a range has an address in common with `SPECIAL`."""
    family, prefix, shift = _range(text)
    return any(
        family == own and prefix << shift >> max(shift, bits) == special << bits >> max(shift, bits)
        for own, special, bits in _SPECIAL
    )


def within(address: str, ranges: Iterable[str]) -> bool:
    """Whether an address is in one of `ranges` (addresses or CIDR); raises ValueError as `check_range` does."""
    family, number, _ = check_range(address)
    return _holds(tuple(map(check_range, ranges)), family, number)


def check_range(text: str) -> _Range:
    """An address or a range in CIDR notation as family, prefix and the bits behind it.

    Raises:
        ValueError: it is neither, or has bits set behind its prefix.
    """
    try:
        family, number = _number(text.partition("/")[0])
        found = _range(text)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{text!r} is no address or range") from error
    if not 0 <= found[2] <= _bits(family) or found[1] << found[2] != number:
        raise ValueError(f"{text!r} is no range")
    return found


def of_family(ranges: tuple[str, ...], family: int) -> list[str]:
    """Those of `ranges` that are IPv4 (4) or IPv6 (6)."""
    return [text for text in ranges if (6 if ":" in text else 4) == family]


_RTM_GETADDR, _NLM_F_REQUEST, _NLM_F_DUMP, _NLMSG_ERROR, _NLMSG_DONE = 22, 0x1, 0x300, 2, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_AF_NETLINK, _NETLINK_ROUTE = 16, 0


def own_addresses() -> frozenset[str]:
    """The addresses of all interfaces in the current network namespace, loopback among them (rtnetlink(7)).

    Raises:
        OSError: the kernel did not tell.
    """
    owned: set[str] = set()
    kernel = socket(_AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        kernel.settimeout(5)
        kernel.send(struct.pack("=IHHIIB7x", 24, _RTM_GETADDR, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0, AF_UNSPEC))
        while True:
            batch = kernel.recv(1 << 16)
            while len(batch) >= 16:
                length, message = struct.unpack_from("=IH", batch)
                if message == _NLMSG_DONE:
                    return frozenset(owned)
                if message == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", batch, 16)[0]
                    raise OSError(code, "rtnetlink did not list the addresses")
                owned.add(_own_address(batch[16:length]))
                batch = batch[length + 3 & ~3 :]
    finally:
        kernel.close()


def _own_address(message: bytes) -> str:
    """The address in an ifaddrmsg: IFA_LOCAL where there is one, since IFA_ADDRESS then is the peer's."""
    family, attributes, at = message[0], {}, 8
    while at + 4 <= len(message):
        length, name = struct.unpack_from("=HH", message, at)
        attributes[name] = message[at + 4 : at + length]
        at += length + 3 & ~3
    return inet_ntop(family, attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS])
