"""Reads the packets that the firewall logged. Pure: a netlink datagram in, events out; the container wrote the payload.

Every length is checked against what is there. What cannot be understood is still an event, without its details.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

_SUBSYS_ULOG, _MSG_PACKET = 4, 0
_HEADER = struct.Struct("=IHHII")
_NFGENMSG = 4
_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_MASK = 0x3FFF
_PAYLOAD, _PREFIX = 9, 10

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_WITH_PORTS = frozenset((6, 17, 132))
_EXTENSIONS = frozenset((0, 43, 60))
_FRAGMENT = 44
_EXTENSIONS_MAX = 8


class Packet(NamedTuple):
    """One logged packet.

    prefix: what the rule calls it (`refused`, `granted`, ...).
    address: its destination; "" when the packet could not be read.
    port: destination port; 0 without one.
    protocol: `tcp`, `udp`, ... or the number.
    """

    prefix: str
    address: str
    port: int
    protocol: str


def packets(data: bytes) -> Iterator[Packet]:
    """Every packet in a datagram of the kernel's (nfnetlink_log.h); other messages are passed over."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        if kind == _SUBSYS_ULOG << 8 | _MSG_PACKET:
            yield _packet(data[at + _HEADER.size + _NFGENMSG : at + length])
        at += (length + 3) & ~3


def _packet(attributes: bytes) -> Packet:
    prefix, payload = "", b""
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size or at + length > len(attributes):
            break
        value = attributes[at + _ATTRIBUTE.size : at + length]
        if kind & _ATTRIBUTE_MASK == _PREFIX:
            prefix = value.rstrip(b"\0 :").decode("ascii", "replace")
        elif kind & _ATTRIBUTE_MASK == _PAYLOAD:
            payload = value
        at += (length + 3) & ~3
    return Packet(prefix, *destination(payload))


def destination(payload: bytes) -> tuple[str, int, str]:
    """(address, port, protocol) of an IP packet's beginning; empty where it is too short or not IP."""
    version = payload[0] >> 4 if payload else 0
    if version == 4 and len(payload) >= 20:
        return _ipv4(payload)
    if version == 6 and len(payload) >= 40:
        return _ipv6(payload)
    return "", 0, ""


def _ipv4(payload: bytes) -> tuple[str, int, str]:
    protocol = payload[9]
    fragment_offset = struct.unpack_from("!H", payload, 6)[0] & 0x1FFF
    at = (payload[0] & 0x0F) * 4
    port = _port(payload, at, protocol) if fragment_offset == 0 else 0
    return str(IPv4Address(payload[16:20])), port, _PROTOCOLS.get(protocol, str(protocol))


def _ipv6(payload: bytes) -> tuple[str, int, str]:
    protocol, at = payload[6], 40
    for _ in range(_EXTENSIONS_MAX):
        if protocol in _EXTENSIONS and at + 2 <= len(payload):
            protocol, at = payload[at], at + (payload[at + 1] + 1) * 8
        elif protocol == _FRAGMENT and at + 8 <= len(payload):
            first = struct.unpack_from("!H", payload, at + 2)[0] >> 3 == 0
            protocol, at = payload[at], at + 8 if first else len(payload)
        else:
            break
    return str(IPv6Address(payload[24:40])), _port(payload, at, protocol), _PROTOCOLS.get(protocol, str(protocol))


def _port(payload: bytes, at: int, protocol: int) -> int:
    if protocol not in _WITH_PORTS or at < 20 or at + 4 > len(payload):
        return 0
    port: int = struct.unpack_from("!H", payload, at + 2)[0]
    return port
