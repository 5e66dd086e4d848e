"""Addresses and routes of the current network namespace, over rtnetlink(7), without a program and in a few calls."""

from __future__ import annotations

import os
import struct
from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, inet_ntop, inet_pton, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL, PROHIBIT = 2, 8
"""Kinds of routes (rtnetlink(7), rtm_type): to this machine itself, and refused with EACCES."""
TABLE_LOCAL = 255
"""The routing table that every look-up asks first, before any rule of an administrator (ip-rule(8))."""

_AF_NETLINK, _NETLINK_ROUTE = 16, 0
_NEWLINK, _NEWADDR, _GETADDR, _NEWROUTE, _DELROUTE, _GETROUTE = 16, 20, 22, 24, 25, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _CREATE, _REPLACE, _DUMP = 0x1, 0x4, 0x400, 0x100, 0x300
_GROUPS = 0x1 | 0x10  # links, IPv4 addresses
_ROUTE_GROUPS = 0x40 | 0x100 | 0x400  # IPv4 routes, IPv6 addresses and routes
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_DST, _OIF, _TABLE, _LOCAL_ADDRESS = 1, 4, 15, 2
_UP, _SCOPE_HOST = 1, 254


class Route:
    """One route of the table `local`.

    Attributes:
        kind: `LOCAL` or `PROHIBIT`.
        network: `ADDRESS/LENGTH`, in the form that `shape` gives.
    """

    def __init__(self, kind: int, network: str) -> None:
        self.kind, self.network = kind, network

    def __repr__(self) -> str:
        return f"Route({'local' if self.kind == LOCAL else 'prohibit'} {self.network})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Route) and (self.kind, self.network) == (other.kind, other.network)

    def __hash__(self) -> int:
        return hash((self.kind, self.network))


def shape(network: str) -> str:
    """The one spelling of `ADDRESS/LENGTH` that the kernel's answers are compared by."""
    base, _, length = network.partition("/")
    family = AF_INET6 if ":" in base else AF_INET
    packed = inet_pton(family, base)
    return f"{inet_ntop(family, packed)}/{length or 8 * len(packed)}"


def has_ipv6() -> bool:
    """Whether the loopback interface of this namespace speaks IPv6."""
    try:
        with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "rb") as file:
            return file.read().strip() == b"0"
    except FileNotFoundError:
        return False


def listen(*, routes: bool = True) -> int:
    """A non-blocking descriptor that is told of changes of links and IPv4 addresses.

    Args:
        routes: also of routes and of IPv6, which a network with router advertisements renews all the time.
    """
    link = socket(_AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, _NETLINK_ROUTE)
    link.bind((0, _GROUPS | (_ROUTE_GROUPS if routes else 0)))
    return link.detach()


def link_up(index: int) -> None:
    """Switch an interface on; raises OSError."""
    _ask(_NEWLINK, _ACK, _LINK.pack(0, 0, index, _UP, _UP))


def add_address(index: int, address: str) -> None:
    """Give an interface the IPv4 address `ADDRESS/LENGTH`; harmless when it has it. Raises OSError."""
    base, _, length = address.partition("/")
    packed = inet_pton(AF_INET, base)
    body = _ADDRESS.pack(AF_INET, int(length), 0, _SCOPE_HOST, index)
    _ask(_NEWADDR, _ACK | _CREATE | _REPLACE, body + _attribute(_LOCAL_ADDRESS, packed) + _attribute(1, packed))


def addresses(index: int) -> list[str]:
    """The IPv4 addresses of an interface, as `ADDRESS/LENGTH`; raises OSError."""
    held = []
    for body in _ask(_GETADDR, _DUMP, _ADDRESS.pack(AF_INET, 0, 0, 0, 0)):
        _, length, _, _, owner = _ADDRESS.unpack_from(body)
        packed = _attributes(body[_ADDRESS.size :]).get(_LOCAL_ADDRESS, b"")
        if owner == index and len(packed) == 4:
            held.append(f"{inet_ntop(AF_INET, packed)}/{length}")
    return held


def add_route(index: int, route: Route, mark: int) -> None:
    """Add a route to the table `local`, marked with terok's protocol number; raises OSError (EEXIST: it is there)."""
    _ask(_NEWROUTE, _ACK | _CREATE, _route(index, route, mark))


def delete_route(index: int, route: Route, mark: int) -> None:
    """Take a route of `add_route` away; raises OSError (ESRCH: it is not there)."""
    _ask(_DELROUTE, _ACK, _route(index, route, mark))


def routes(family: int, mark: int) -> list[Route]:
    """The routes of one address family in the table `local` that carry terok's protocol number; raises OSError."""
    held = []
    for body in _ask(_GETROUTE, _DUMP, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
        kind_of, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
        attributes = _attributes(body[_ROUTE.size :])
        if kind_of == family and protocol == mark and _table(table, attributes) == TABLE_LOCAL:
            packed = attributes.get(_DST, bytes(16 if family == AF_INET6 else 4))
            held.append(Route(kind, f"{inet_ntop(family, packed)}/{length}"))
    return held


def _route(index: int, route: Route, mark: int) -> bytes:
    base, _, length = route.network.partition("/")
    family = AF_INET6 if ":" in base else AF_INET
    scope = _SCOPE_HOST if route.kind == LOCAL else 0
    body = _ROUTE.pack(family, int(length), 0, 0, TABLE_LOCAL, mark, scope, route.kind, 0)
    if int(length):
        body += _attribute(_DST, inet_pton(family, base))
    return body + (_attribute(_OIF, struct.pack("=i", index)) if route.kind == LOCAL else b"")


def _table(short: int, attributes: dict[int, bytes]) -> int:
    long = attributes.get(_TABLE)
    return struct.unpack("=I", long)[0] if long else short


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    held, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        held[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return held


def _ask(kind: int, flags: int, body: bytes) -> list[bytes]:
    """Send one request; the bodies of the kernel's answers. Raises the OSError that the kernel reports."""
    link = socket(_AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        link.bind((0, 0))
        link.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
        answers: list[bytes] = []
        while True:
            data = link.recv(1 << 18)
            for answered, content in _messages(data):
                if answered == _ERROR:
                    number = -struct.unpack_from("=i", content)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return answers
                if answered == _DONE:
                    return answers
                answers.append(content)
    finally:
        link.close()


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3
