"""What one container's firewall is made of, before it becomes rules: a frozen value that two renderings read."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from .targets import BELOW, HOST, WEB, Ports, Target

UP, DOWN, DOWN_ALL, BYPASS, LEARN, QUARANTINE = "up", "down", "down-all", "bypass", "learn", "quarantine"
ASK = "ask"
"""As up, and connections to names that nothing allows wait for the operator's decision; only in the airlock."""
MODES = (UP, DOWN, DOWN_ALL, BYPASS, LEARN, QUARANTINE, ASK)
OPEN_MODES = (DOWN, DOWN_ALL, BYPASS, LEARN)
"""Modes in which names that are not allowed resolve too."""

_FLOW, _DNS, _INBOUND = 0x10000, 0x20000, 0x30000
_EPOCHS = 0x10000


@dataclass(frozen=True)
class Forwarder:
    """The resolver that the network offers: where dnsmasq, and nothing else, may ask."""

    address: str
    port: int = 53

    @classmethod
    def parse(cls, text: str) -> Forwarder:
        """From `address` or `address#port`, as dnsmasq writes it."""
        address, _, port = text.partition("#")
        return cls(str(ipaddress.ip_address(address)), int(port or 53))

    def __str__(self) -> str:
        return self.address if self.port == 53 else f"{self.address}#{self.port}"

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4


@dataclass(frozen=True)
class Model:
    """The policy of one container.

    Attributes:
        allowed: targets of the profiles and of `live.allowed`, in order, without doubles.
        denied: targets of `deny.list`; they win.
        forwarder: None without a network: no name resolves then.
        mode: one of `MODES`.
        taught: domains that have a set of their own for the addresses that they taught, those with a line in the
            running dnsmasq's configuration; all other names share the set `live`.
        resolved: addresses of allowed names, where no dnsmasq can teach them.
        services: (address, port) of TCP services of terok at the network's gateway.
        published: TCP ports of the container that terok publishes (airlock).
        published_udp: UDP ports that the container publishes.
        own: the host's own addresses, as ranges of one: like a special range, what a name answers does not open them.
        brokered: outside of the airlock, the names of brokered hosts, each with its synthetic address.
        audit_group: NFLOG group that gets a copy of noteworthy packets; None: no log.
        epoch: part of the mark of granted connections. A new one makes every connection be judged again.
        dns_epoch: part of the mark of dnsmasq's questions. A new one makes answers under way worthless.
        period: seconds between two rotations of learned addresses; no answer has a longer TTL.
    """

    allowed: tuple[Target, ...] = ()
    denied: tuple[Target, ...] = ()
    forwarder: Forwarder | None = None
    mode: str = UP
    taught: tuple[str, ...] = ()
    resolved: tuple[Target, ...] = ()
    services: tuple[tuple[str, int], ...] = ()
    published: tuple[int, ...] = ()
    published_udp: tuple[int, ...] = ()
    own: tuple[str, ...] = ()
    brokered: tuple[tuple[str, str], ...] = ()
    audit_group: int | None = None
    epoch: int = 0
    dns_epoch: int = 0
    period: int = 3600

    @property
    def flow_mark(self) -> int:
        """Connection mark of what the rules of this epoch granted."""
        return _FLOW + self.epoch % _EPOCHS

    @property
    def dns_mark(self) -> int:
        """Mark of questions to dnsmasq, and so of dnsmasq's own questions in this epoch."""
        return _DNS + self.dns_epoch % _EPOCHS

    @property
    def inbound_mark(self) -> int:
        """Mark of connections that were opened from outside."""
        return _INBOUND

    @property
    def groups(self) -> tuple[Ports, ...]:
        """The distinct ports of what is allowed, the web first: each has sets and rules of its own."""
        open_ = {target.ports for target in self.allowed if not target.is_name} | {
            target.ports for target in self.names()
        }
        return tuple(sorted({WEB} | open_, key=_web_first))

    @property
    def name_groups(self) -> tuple[Ports, ...]:
        """The distinct ports of allowed names, and the web: each has sets that dnsmasq fills."""
        return tuple(sorted({WEB, *(target.ports for target in self.names())}, key=_web_first))

    @property
    def denied_groups(self) -> tuple[Ports, ...]:
        """The distinct ports of denied addresses; WEB stands for every port there."""
        return tuple(sorted({WEB, *(target.ports for target in self.denied if not target.is_name)}, key=_web_first))

    def names(self) -> tuple[Target, ...]:
        """The allowed names that no denial takes back."""
        return self._names

    @cached_property
    def _names(self) -> tuple[Target, ...]:
        return tuple(target for target in self.allowed if target.is_name and not self.denies(target))

    def denies(self, target: Target) -> bool:
        """True when a denial covers all that the allowed name `target` stands for."""
        return any(_covers(denial, target) for denial in self.denied if denial.is_name)

    def verdict(self, name: str) -> bool:
        """True when the DNS name may resolve: something allows it, nothing denies it."""
        if any(denial.matches(name) and denial.ports == WEB for denial in self.denied):
            return False
        return any(target.matches(name) for target in self.names())

    def led(self) -> dict[str, str]:
        """The brokered names that answer with their synthetic addresses now: all that are not denied."""
        if self.mode == QUARANTINE:
            return {}
        denials = [denial for denial in self.denied if denial.ports == WEB]
        return {name: address for name, address in self.brokered if not any(denial.matches(name) for denial in denials)}

    def with_mode(self, mode: str) -> Model:
        """The same policy in another mode."""
        return replace(self, mode=mode)


def _web_first(ports: Ports) -> tuple[bool, Ports]:
    return ports != WEB, ports


def _covers(denial: Target, target: Target) -> bool:
    if denial.ports not in (WEB, target.ports):  # a denial without a port means every port
        return False
    if denial.kind == target.kind and denial.value == target.value:
        return True
    return (
        denial.kind == BELOW
        and (target.value + ".").endswith("." + denial.value + ".")
        and (target.kind == BELOW or target.value != denial.value)
    )


def unique(targets: Iterable[Target]) -> tuple[Target, ...]:
    """The targets without doubles, in their order."""
    return tuple(dict.fromkeys(targets))


def hosts(targets: Iterable[Target], ports: Ports, family: int) -> list[str]:
    """The single addresses of one family among the targets with these ports, sorted."""
    addresses = {
        target.value
        for target in targets
        if target.kind == HOST and target.ports == ports and _family(target) == family
    }
    return [str(address) for address in sorted(map(ipaddress.ip_address, addresses), key=int)]


def ranges(targets: Iterable[Target], ports: Ports, family: int) -> list[str]:
    """The ranges of one family among the targets with these ports, merged so that none overlaps another.

    An interval set without auto-merge refuses overlaps, and with it answers differently from what was written.
    """
    listed = [
        target.network
        for target in targets
        if not target.is_name and target.kind != HOST and target.ports == ports and _family(target) == family
    ]
    return [str(network) for network in ipaddress.collapse_addresses(listed)]  # type: ignore[type-var]  # one family


def _family(target: Target) -> int:
    return 6 if ":" in target.value else 4


def taught_set(domain: str | None, family: int) -> str:
    """The set of the addresses that a domain and the names below it taught; None: names without a line of their own."""
    return f"live{family}" if domain is None else f"name{family}_{domain}"
