"""The few expressions of nftables that the shield uses, each in two spellings: text for `nft -f`, JSON as nft lists it.

A statement is made once; the ruleset and the structure that reading back must show cannot drift apart.
See nft(8) and libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Statement:
    """One statement of a rule: its text and its JSON form."""

    text: str
    json: Json


@dataclass(frozen=True)
class Rule:
    """The statements of one rule, in order."""

    statements: tuple[Statement, ...]

    @property
    def text(self) -> str:
        """The rule as nft reads it."""
        return " ".join(statement.text for statement in self.statements)

    @property
    def json(self) -> list[Json]:
        """The rule as `nft -j` lists it."""
        return [statement.json for statement in self.statements]


def rule(*statements: Statement) -> Rule:
    """A rule of these statements."""
    return Rule(statements)


def _match(left: Json, right: object, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def protocol_of(family: int) -> str:
    """nft's name of the IP protocol of address family 4 or 6."""
    return "ip" if family == 4 else "ip6"


def out_loopback() -> Statement:
    """The packet leaves through the loopback interface."""
    return Statement('oifname "lo"', _match({"meta": {"key": "oifname"}}, "lo"))


def in_loopback() -> Statement:
    """The packet came through the loopback interface."""
    return Statement('iifname "lo"', _match({"meta": {"key": "iifname"}}, "lo"))


def address(family: int, where: str, value: str, *, unequal: bool = False) -> Statement:
    """Source (`saddr`) or destination (`daddr`) is an address, or in the set `@name`."""
    protocol = protocol_of(family)
    op = "!=" if unequal else "=="
    text = f"{protocol} {where} {'!= ' if unequal else ''}{value}"
    return Statement(text, _match(_payload(protocol, where), value, op))


def address_outside(family: int, network: str) -> Statement:
    """The destination does not lie in the network."""
    protocol = protocol_of(family)
    return Statement(f"{protocol} daddr != {network}", _match(_payload(protocol, "daddr"), _prefix(network), "!="))


def _prefix(network: str) -> object:
    base, _, length = network.partition("/")
    if not length or int(length) == (128 if ":" in network else 32):
        return base
    return {"prefix": {"addr": base, "len": int(length)}}


def port(protocol: str, where: str, values: Iterable[tuple[int, int]], *, unequal: bool = False) -> Statement:
    """Source (`sport`) or destination (`dport`) port lies in one of the ranges (low, high)."""
    ranges = list(values)
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
    forms: list[object] = [low if low == high else {"range": [low, high]} for low, high in ranges]
    text = texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"
    form = forms[0] if len(forms) == 1 else {"set": forms}
    op = "!=" if unequal else "=="
    return Statement(
        f"{protocol} {where} {'!= ' if unequal else ''}{text}", _match(_payload(protocol, where), form, op)
    )


def ipv6() -> Statement:
    """The packet is IPv6, by its first byte: nft leaves `meta nfproto` out when it lists a rule with `tcp reset`."""
    return Statement("ip6 version 6", _match(_payload("ip6", "version"), 6))


def protocol_in(name: str) -> Statement:
    """The address family is an element of the set `name`."""
    return Statement(f"meta nfproto @{name}", _match({"meta": {"key": "nfproto"}}, f"@{name}"))


def layer4(*protocols: str) -> Statement:
    """The transport protocol is one of these."""
    text = protocols[0] if len(protocols) == 1 else f"{{ {', '.join(protocols)} }}"
    right: object = protocols[0] if len(protocols) == 1 else {"set": list(protocols)}
    return Statement(f"meta l4proto {text}", _match({"meta": {"key": "l4proto"}}, right))


def icmpv6_type(*types: str) -> Statement:
    """The packet is ICMPv6 of one of these types."""
    return Statement(f"icmpv6 type {{ {', '.join(types)} }}", _match(_payload("icmpv6", "type"), {"set": list(types)}))


def state(value: str) -> Statement:
    """Connection tracking calls the packet `value`: new, established, related."""
    return Statement(f"ct state {value}", _match({"ct": {"key": "state"}}, value, "in"))


def reply() -> Statement:
    """The packet goes against the direction in which its connection was opened."""
    return Statement("ct direction reply", _match({"ct": {"key": "direction"}}, "reply"))


def not_a_first_segment() -> Statement:
    """TCP, but not the segment that opens a connection."""
    left = {"&": [_payload("tcp", "flags"), ["fin", "syn", "rst", "ack"]]}
    return Statement("tcp flags & (fin | syn | rst | ack) != syn", _match(left, "syn", "!="))


def datagram_longer(length: int) -> Statement:
    """The UDP datagram, its header of 8 bytes included, is longer than `length`."""
    return Statement(f"udp length > {length}", _match(_payload("udp", "length"), length, ">"))


def sent_more(count: int) -> Statement:
    """Who opened the connection has sent more than `count` bytes over it, headers included.

    The kernel counts in every network namespace that has such a rule.
    """
    left = {"ct": {"key": "bytes", "dir": "original"}}
    return Statement(f"ct original bytes > {count}", _match(left, count, ">"))


def flow_mark(value: int, *, unequal: bool = False) -> Statement:
    """The connection carries this mark."""
    text = f"ct mark {'!= ' if unequal else ''}{value:#x}"
    return Statement(text, _match({"ct": {"key": "mark"}}, value, "!=" if unequal else "=="))


def packet_mark(value: int) -> Statement:
    """The packet carries this mark: its socket was given it (SO_MARK)."""
    return Statement(f"meta mark {value:#x}", _match({"meta": {"key": "mark"}}, value))


def set_flow_mark(value: int) -> Statement:
    """Mark the connection."""
    return Statement(f"ct mark set {value:#x}", {"mangle": {"key": {"ct": {"key": "mark"}}, "value": value}})


def limit(rate: int, burst: int) -> Statement:
    """At most `rate` a second pass this point, after `burst` at once."""
    return Statement(
        f"limit rate {rate}/second burst {burst} packets", {"limit": {"rate": rate, "burst": burst, "per": "second"}}
    )


def log(prefix: str, group: int) -> Statement:
    """Copy the packet's head to the listener of an NFLOG group at once (queue-threshold 1: the default waits 1 s)."""
    return Statement(
        f'log prefix "{prefix}" group {group} snaplen 128 queue-threshold 1',
        {"log": {"prefix": prefix, "group": group, "snaplen": 128, "queue-threshold": 1}},
    )


def verdict(name: str) -> Statement:
    """`accept` or `drop`."""
    return Statement(name, {name: None})


ACCEPT, DROP = verdict("accept"), verdict("drop")
RESET = Statement("reject with tcp reset", {"reject": {"type": "tcp reset"}})
PROHIBIT = Statement("reject with icmpx admin-prohibited", {"reject": {"type": "icmpx", "expr": "admin-prohibited"}})


def redirect(port_: int) -> Statement:
    """Hand the connection to this machine's own port `port_`; its first destination stays known (SO_ORIGINAL_DST)."""
    return Statement(f"redirect to :{port_}", {"redirect": {"port": port_}})


def jump(chain: str) -> Statement:
    """Go through `chain` and come back."""
    return Statement(f"jump {chain}", {"jump": {"target": chain}})


def goto(chain: str) -> Statement:
    """Go on in `chain`, for good."""
    return Statement(f"goto {chain}", {"goto": {"target": chain}})
