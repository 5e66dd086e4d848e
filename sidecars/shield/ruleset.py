"""The rules: a `Model` becomes chains and sets, these become `ruleset.nft` and the structure to expect.

The order in the chain `output` decides. Every packet that leaves meets, in this order: loopback; what is denied; what
was granted before in this epoch; dnsmasq's own questions; answers to who connected from outside; neighbour discovery;
addresses that are never reachable; allowed addresses; special ranges; what allowed names answered; the refusal.
"""

from __future__ import annotations

import json
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton  # not socket: 8 ms of each prepare
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...supervisor.ground.layout import AIRLOCK_PORT
from ..kit.addresses import NEVER, SPECIAL, of_family
from . import expressions as nft
from .expressions import ACCEPT, DROP, PROHIBIT, RESET, Rule, Statement, goto, jump, rule
from .model import ASK, BYPASS, DOWN, DOWN_ALL, LEARN, QUARANTINE, UP, Model, hosts, ranges, taught_set
from .targets import WEB, WEB_PORTS, Ports

FAMILIES = (4, 6)
LEARNED_MAX = 65536
"""Elements of a set that dnsmasq fills: what a hostile name server can make the kernel hold."""
DNS_PORT = 53
QUESTION_MAX, QUESTIONS_MAX = 320, 2048
"""Bytes of a DNS question over UDP (the longest name with EDNS and a cookie takes 318); of all over one TCP connection.

dnsmasq hands on what stands beside an allowed question, to a server that may be in league with the container.
"""
SERVICE_PORTS = ((9418, 9419),)
"""Ports of the git gate and the vault on the container's loopback: closed in quarantine. dnsmasq refuses by itself."""

_ND = (
    "nd-router-solicit",
    "nd-neighbor-solicit",
    "nd-neighbor-advert",
    "mld-listener-report",
    "mld-listener-done",
    "mld2-listener-report",
)
_LOG_RATE, _LOG_BURST = 20, 50


@dataclass(frozen=True)
class Chain:
    """A chain: `hook` is (hook, policy) for one that the kernel calls by itself, in order of `priority`."""

    name: str
    rules: tuple[Rule, ...]
    hook: tuple[str, str] | None = None
    kind: str = "filter"
    priority: int = 0


@dataclass(frozen=True)
class Set:
    """A set of addresses of family 4 or 6, or of such families (0).

    elements: None when it is filled while the container runs.
    """

    name: str
    family: int
    elements: tuple[str, ...] | None = ()
    interval: bool = False

    @property
    def type(self) -> str:
        """nft's type of its elements."""
        return f"ipv{self.family}_addr" if self.family else "nf_proto"


@dataclass(frozen=True)
class Table:
    """All of it."""

    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]


def build(model: Model) -> Table:
    """The table of a policy."""
    chains = [
        Chain("output", tuple(_OUTPUT[model.mode](model)), ("output", "drop")),
        Chain("input", tuple(_input(model)), ("input", "accept")),
        Chain("forward", (), ("forward", "drop")),
        Chain("local", tuple(_local(model))),
        Chain("denied", tuple(_denied(model))),
        Chain("named", tuple(_named(model))),
        Chain("learned", tuple(_learned(model))),
        Chain("grant", tuple(_grant(model))),
        Chain("refuse", tuple(_refuse(model))),
    ]
    if model.brokered:
        tcp = nft.port("tcp", "dport", [(1, 0xFFFF)])
        led = rule(nft.address(4, "daddr", "@led4"), tcp, nft.redirect(AIRLOCK_PORT))
        chains.append(Chain("relay", (led,), ("output", "accept"), kind="nat", priority=-100))
    return Table(tuple(_sets(model)), tuple(chains))


# --- sets ------------------------------------------------------------------------------------------------


def _sets(model: Model) -> Iterator[Set]:
    yield Set("bypass", 0, None)
    if model.brokered:
        yield Set("led4", 4, tuple(address for _, address in model.brokered))
    for family in FAMILIES:
        yield Set(f"never{family}", family, tuple(of_family(NEVER, family)), interval=True)
        yield Set(f"special{family}", family, tuple(of_family((*SPECIAL, *model.own), family)), interval=True)
        for ports in model.name_groups:
            for generation in "ab":
                yield Set(learned_set(ports, family, generation), family, None)
        yield Set(f"cut{family}", family, None)
        for domain in (*model.taught, None):
            yield Set(taught_set(domain, family), family, None)

    for _, set_ in (*_fixed("denied", model), *_fixed("allow", model), *_fixed("static", model)):
        yield set_


def _fixed(what: str, model: Model) -> Iterator[tuple[Ports, Set]]:
    """The sets of addresses (`_host`) and ranges (`_net`) that were denied or allowed as such, or that allowed names
    had when they were resolved; none that is empty.
    """
    targets, groups = {
        "denied": (model.denied, model.denied_groups),
        "allow": (model.allowed, model.groups),
        "static": (model.resolved, model.groups),
    }[what]
    for ports in groups:
        for family in FAMILIES:
            name = f"{what}{family}_{ports.name}"
            single, joined = tuple(hosts(targets, ports, family)), tuple(ranges(targets, ports, family))
            if single:
                yield ports, Set(f"{name}_host", family, single)
            if joined:
                yield ports, Set(f"{name}_net", family, joined, interval=True)


def learned_set(ports: Ports, family: int, generation: str) -> str:
    """The set of one generation of addresses that names with these ports taught."""
    return f"learned{family}_{ports.name}_{generation}"


# --- chains ----------------------------------------------------------------------------------------------


def _guarded(model: Model) -> Iterator[Rule]:
    """What comes first in every mode but quarantine: loopback, denials, DNS."""
    yield rule(nft.out_loopback(), jump("local"))
    yield rule(jump("denied"))


def _established(model: Model) -> Iterator[Rule]:
    for family in FAMILIES:
        yield rule(
            nft.state("established"),
            nft.flow_mark(model.flow_mark),
            nft.address(family, "daddr", f"@cut{family}", unequal=True),
            ACCEPT,
        )


def _infrastructure(model: Model) -> Iterator[Rule]:
    if model.forwarder:
        for protocol in ("udp", "tcp"):
            yield rule(
                nft.packet_mark(model.dns_mark),
                nft.address(model.forwarder.family, "daddr", model.forwarder.address),
                nft.port(protocol, "dport", [(model.forwarder.port, model.forwarder.port)]),
                nft.set_flow_mark(model.dns_mark),
                ACCEPT,
            )
    yield rule(nft.reply(), nft.state("established"), nft.flow_mark(model.inbound_mark), ACCEPT)
    yield rule(nft.state("related"), nft.layer4("icmp", "ipv6-icmp"), ACCEPT)
    yield rule(nft.icmpv6_type(*_ND), ACCEPT)
    for address, number in model.services:
        family = 6 if ":" in address else 4
        yield rule(nft.address(family, "daddr", address), nft.port("tcp", "dport", [(number, number)]), goto("grant"))


def _refused(name: str) -> Iterator[Rule]:
    for family in FAMILIES:
        yield rule(nft.address(family, "daddr", f"@{name}{family}"), goto("refuse"))


def _up(model: Model) -> Iterator[Rule]:
    yield from _guarded(model)
    yield from _established(model)
    yield from _infrastructure(model)
    yield from _refused("never")
    yield rule(jump("named"))
    yield from _refused("special")
    yield rule(jump("learned"))
    yield rule(goto("refuse"))


def _down(model: Model) -> Iterator[Rule]:
    yield from _guarded(model)
    yield from _infrastructure(model)
    yield from _refused("never")
    yield rule(jump("named"))
    yield from _refused("special")
    yield from _recorded(model, "bypassed")
    yield rule(ACCEPT)


def _recorded(model: Model, prefix: str, *when: Statement, rate: int = _LOG_RATE) -> Iterator[Rule]:
    """New connections that are let out although nothing allows them."""
    if model.audit_group is not None:
        yield rule(*when, nft.state("new"), nft.limit(rate, rate * 5), nft.log(prefix, model.audit_group))


def _bypass(model: Model) -> Iterator[Rule]:
    """As `down`, for as long as the set `bypass` has elements: the kernel ends it, whichever process has died by then.

    What names taught meanwhile does not count afterwards, so learned addresses wait for `up`.
    """
    yield from _guarded(model)
    yield from _established(model)
    yield from _infrastructure(model)
    yield from _refused("never")
    yield rule(jump("named"))
    yield from _refused("special")
    yield from _recorded(model, "bypassed", nft.protocol_in("bypass"))
    yield rule(nft.protocol_in("bypass"), ACCEPT)
    yield rule(goto("refuse"))


def _down_all(model: Model) -> Iterator[Rule]:
    yield from _guarded(model)
    yield from _infrastructure(model)
    yield from _refused("never")
    yield from _recorded(model, "bypassed")
    yield rule(ACCEPT)


def _learn(model: Model) -> Iterator[Rule]:
    """Nothing is granted, so nothing that was open stays open afterwards; each new connection is recorded."""
    yield from _guarded(model)
    yield from _infrastructure(model)
    yield from _refused("never")
    yield from _recorded(model, "learn", rate=_LOG_RATE * 10)
    yield rule(ACCEPT)


def _quarantine(model: Model) -> Iterator[Rule]:
    for protocol in ("tcp", "udp"):
        yield rule(nft.out_loopback(), nft.port(protocol, "dport", SERVICE_PORTS), goto("refuse"))
        yield rule(nft.out_loopback(), nft.port(protocol, "sport", SERVICE_PORTS), goto("refuse"))
    if model.brokered:  # the relay ends its connections, and what it says then may pass; what a dead one left ends here
        yield rule(nft.out_loopback(), nft.port("tcp", "dport", [(AIRLOCK_PORT, AIRLOCK_PORT)]), goto("refuse"))
    yield rule(nft.out_loopback(), ACCEPT)
    yield rule(goto("refuse"))


_OUTPUT = {UP: _up, ASK: _up, DOWN: _down, BYPASS: _bypass, DOWN_ALL: _down_all, LEARN: _learn, QUARANTINE: _quarantine}


def _local(model: Model) -> Iterator[Rule]:
    """Loopback. dnsmasq copies the mark of a question's connection onto its own question: that is its pass.

    A TCP connection to dnsmasq is served by a child with the policy of its birth: it ends with its epoch.
    """
    ours = nft.address(4, "daddr", "127.0.0.1")
    port = [(DNS_PORT, DNS_PORT)]
    mark = nft.set_flow_mark(model.dns_mark)
    yield rule(ours, nft.port("udp", "dport", port), nft.datagram_longer(QUESTION_MAX), PROHIBIT)
    yield rule(ours, nft.port("tcp", "dport", port), nft.sent_more(QUESTIONS_MAX), RESET)
    yield rule(ours, nft.port("udp", "dport", port), mark, ACCEPT)
    yield rule(ours, nft.port("tcp", "dport", port), nft.state("new"), mark, ACCEPT)
    yield rule(ours, nft.port("tcp", "dport", port), nft.flow_mark(model.dns_mark, unequal=True), RESET)
    yield rule(ACCEPT)


def _denied(model: Model) -> Iterator[Rule]:
    for ports, set_ in _fixed("denied", model):
        destination = nft.address(set_.family, "daddr", f"@{set_.name}")
        yield rule(destination, *([] if ports == WEB else [_port(ports)]), goto("refuse"))


def _port(ports: Ports) -> Statement:
    if ports == WEB:
        return nft.port("tcp", "dport", [(number, number) for number in WEB_PORTS])
    return nft.port(ports.protocol, "dport", [(ports.low, ports.high)])


def _named(model: Model) -> Iterator[Rule]:
    for ports, set_ in _fixed("allow", model):
        yield rule(nft.address(set_.family, "daddr", f"@{set_.name}"), _port(ports), goto("grant"))


def _learned(model: Model) -> Iterator[Rule]:
    for ports, set_ in _fixed("static", model):
        yield rule(nft.address(set_.family, "daddr", f"@{set_.name}"), _port(ports), goto("grant"))
    for ports in model.name_groups:
        for family in FAMILIES:
            for generation in "ab":
                destination = nft.address(family, "daddr", f"@{learned_set(ports, family, generation)}")
                yield rule(destination, _port(ports), goto("grant"))


def _grant(model: Model) -> Iterator[Rule]:
    if model.audit_group is not None:
        yield rule(nft.state("new"), nft.limit(_LOG_RATE, _LOG_BURST), nft.log("allowed", model.audit_group))
    yield rule(nft.set_flow_mark(model.flow_mark), ACCEPT)


def _refuse(model: Model) -> Iterator[Rule]:
    """A TCP connection that was open gets a reset and ends at once; all else gets an ICMP error.

    Opening one over IPv6 gets a reset too: the kernel takes an ICMPv6 error there as a hint, and tries for a second.
    """
    if model.audit_group is not None:
        yield rule(nft.limit(_LOG_RATE, _LOG_BURST), nft.log("refused", model.audit_group))
    yield rule(nft.layer4("tcp"), nft.state("established"), RESET)
    yield rule(nft.ipv6(), nft.layer4("tcp"), RESET)
    yield rule(PROHIBIT)


def _input(model: Model) -> Iterator[Rule]:
    """Only what could turn into a way out: late answers to dnsmasq, and connections that seem to come from outside.

    Connection tracking adopts a connection from any packet of its middle, with the sender as its opener; a remote
    accomplice could then make the container's forbidden packets look like replies.
    """
    yield rule(nft.in_loopback(), ACCEPT)
    if model.forwarder:
        for protocol in ("udp", "tcp"):
            yield rule(
                nft.address(model.forwarder.family, "saddr", model.forwarder.address),
                nft.port(protocol, "sport", [(model.forwarder.port, model.forwarder.port)]),
                nft.flow_mark(model.dns_mark, unequal=True),
                DROP,
            )
    yield rule(nft.state("new"), nft.not_a_first_segment(), DROP)
    mark = nft.set_flow_mark(model.inbound_mark)
    yield rule(nft.state("new"), nft.layer4("tcp"), mark)
    if model.published_udp:
        yield rule(
            nft.state("new"), nft.port("udp", "dport", [(port, port) for port in model.published_udp]), mark, ACCEPT
        )
    yield rule(nft.state("new"), nft.layer4("udp"), DROP)


# --- text, structure, change ----------------------------------------------------------------------------------


def declaration(set_: Set) -> str:
    """The declaration of a set with its elements."""
    lines = [f"type {set_.type}"]
    if set_.interval:
        lines.append("flags interval")
    if set_.elements is None and not set_.family:
        lines.append("flags timeout")
    elif set_.elements is None:
        # `dynamic` picks the hash table that grows: for a plain set with a size the kernel takes all buckets at once
        lines += ["flags dynamic", f"size {LEARNED_MAX}"]
    elif set_.elements:
        lines.append(f"elements = {{ {', '.join(set_.elements)} }}")
    return f"set {set_.name} {{ {'; '.join(lines)}; }}"


def text(table: Table) -> str:
    """The whole table as one transaction that replaces whatever was there."""
    out = ["add table inet terok", "delete table inet terok", "table inet terok {"]
    out += [f"  {declaration(set_)}" for set_ in table.sets]
    for chain in sorted(table.chains, key=lambda item: item.hook is not None):  # what is jumped to comes first
        out.append(f"  chain {chain.name} {{")
        if chain.hook:
            out.append(f"    type {chain.kind} hook {chain.hook[0]} priority {chain.priority}; policy {chain.hook[1]};")
        out += [f"    {line.text}" for line in chain.rules]
        out.append("  }")
    return "\n".join([*out, "}", ""])


def change(old: Table, new: Table, more: Iterable[str] = ()) -> str:
    """One transaction that turns `old` into `new` and leaves what dnsmasq has learned in its sets.

    Args:
        old, new: the tables; sets and chains with one name have one type.
        more: further commands of the same transaction, after the sets are there.
    """
    # Order within the transaction: nft resolves names as it reads, so new sets come before the rules that use them,
    # and old sets go after the rules that used them. A chain is flushed and filled again in the same transaction: no
    # packet sees it empty. Sets that dnsmasq fills (`elements` is None) are not touched.
    before = {set_.name: set_ for set_ in old.sets}
    out = []
    for set_ in new.sets:
        was = before.pop(set_.name, None)
        if was is None:
            out.append(f"add {declaration(set_).replace('set ', 'set inet terok ', 1)}")
        elif was.elements != set_.elements and set_.elements is not None:
            out.append(f"flush set inet terok {set_.name}")
            if set_.elements:
                out.append(f"add element inet terok {set_.name} {{ {', '.join(set_.elements)} }}")
    out += more
    chains = {chain.name: chain for chain in old.chains}
    changed = [chain for chain in new.chains if chain.rules != chains[chain.name].rules]
    out += [f"flush chain inet terok {chain.name}" for chain in changed]
    out += [f"add rule inet terok {chain.name} {line.text}" for chain in changed for line in chain.rules]
    out += [f"delete set inet terok {name}" for name in before]
    return "\n".join([*out, ""])


def halfway(old: Model, new: Model, *, dns_epoch: int) -> Table:
    """The new rules with the sets of both policies, for the time in which dnsmasq goes from one to the other."""
    after = build(replace(new, dns_epoch=dns_epoch))
    names = {set_.name for set_ in after.sets}
    return Table(after.sets + tuple(set_ for set_ in build(old).sets if set_.name not in names), after.chains)


def structure(table: Table) -> dict[str, Any]:
    """What reading the table back must show (see `supervisor/wall/firewall.py`)."""
    return {
        "chains": {
            chain.name: {
                "hook": [chain.kind, chain.hook[0], chain.priority, chain.hook[1]] if chain.hook else None,
                "rules": [line.json for line in chain.rules],
            }
            for chain in table.chains
        },
        "sets": {
            set_.name: {
                "type": set_.type,
                "flags": ["interval"] if set_.interval else [] if set_.family else ["timeout"],
                "timeout": None,
                "elem": None if set_.elements is None else [_element(element) for element in set_.elements],
            }
            for set_ in table.sets
        },
    }


def _element(text: str) -> object:
    base, _, length = text.partition("/")
    family = AF_INET6 if ":" in text else AF_INET
    base = inet_ntop(family, inet_pton(family, base))  # nft prints ::ffff:0.0.0.0, Python ::ffff:0:0
    if not length or int(length) == (128 if ":" in text else 32):
        return base
    return {"prefix": {"addr": base, "len": int(length)}}


def structure_text(table: Table) -> str:
    """The structure as the file `ruleset.json`."""
    return json.dumps(structure(table), separators=(",", ":")) + "\n"
