"""What a container may reach through the airlock, and where a connection to one of its addresses leads. Pure.

`airlock/policy.json` is written by the launch and by the verbs of `terok shield`; see `sidecars/shield/airlock.py`.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from enum import Enum

from ...supervisor.ground import paste
from ..kit import addresses
from ..shield import hints
from ..shield.model import ASK, BYPASS, DOWN_ALL, LEARN, OPEN_MODES, QUARANTINE
from ..shield.special import SYNTHETIC, UNKNOWN
from ..shield.targets import BELOW, NAME, WEB, WEB_PORTS, Address, Network, Ports, Target, TargetError, parse
from .questions import target_of

TLS_PORT, HTTP_PORT = 443, 80
NEVER = "never reachable from a container"
_SYNTHETIC = ipaddress.ip_network(SYNTHETIC)


class Proof(Enum):
    """What a connection must show before anything of it goes out.

    NONE: nothing; the destination is one address.
    TLS, HTTP: a ClientHello, or every request's Host header.
    EITHER: one of the two; only it tells which of several names is meant.
    TLS_IF_ANY: nothing, unless it begins with a ClientHello.
    """

    NONE = "none"
    TLS = "tls"
    HTTP = "http"
    EITHER = "either"
    TLS_IF_ANY = "tls if any"


@dataclass(frozen=True)
class Verdict:
    """A decision. `why` names what allows it, or the reason of a refusal; `allow` what would allow it; with `ask` a
    refusal is not final: the operator is asked.
    """

    allowed: bool
    why: str
    allow: str = ""
    word: str = "allowed"
    ask: bool = False


@dataclass(frozen=True)
class Route:
    """Where a connection leads.

    name: the only name that it may show; "" when the connection has to tell.
    pattern: `*.example.com` when the address stands for names below one; "" for any name at all.
    address: a destination that is an address itself; else "".
    port: TCP port.
    proof: what it has to show.
    brokered: the name is a brokered host.
    unread: a brokered host may be meant: what the connection shows is looked at and left for the vault.
    """

    port: int
    proof: Proof
    name: str = ""
    pattern: str = ""
    address: str = ""
    brokered: bool = False
    unread: bool = False


@dataclass(frozen=True)
class Policy:
    """The policy in force.

    container: its name, for the commands in refusals. generation: counts up with every change.
    mode: one of the shield's modes. until: when a bypass ends (seconds since the epoch).
    names: what each synthetic address stands for.
    brokered: hosts and ports whose connections go to the vault and never out. They need not be allowed: what passes is
        decided by the provider's rules; a denial and the quarantine end them like all others.
    """

    container: str
    generation: int = 0
    mode: str = QUARANTINE
    until: float | None = None
    names: dict[str, str] = field(default_factory=dict)
    exact: dict[str, list[Target]] = field(default_factory=dict)
    below: dict[str, list[Target]] = field(default_factory=dict)
    networks: tuple[tuple[Network, Target], ...] = ()
    denied: tuple[Target, ...] = ()
    passing: dict[Target, float] = field(default_factory=dict)
    brokered: frozenset[tuple[str, int]] = frozenset()

    def is_open(self, now: float) -> bool:
        """Whether what is not denied may go everywhere; `now` in seconds since the epoch."""
        return self.mode in OPEN_MODES and not (self.mode == BYPASS and self.until is not None and self.until <= now)

    def route(self, address: str, port: int, now: float) -> Route | Verdict:
        """Where a connection to `address` leads, or why nowhere."""
        name = self.names.get(address)
        if name is not None and name.startswith("*.") and self.mode != QUARANTINE:
            return Route(port, _proof(port, Proof.EITHER), pattern=name, unread=self._brokers(name, port))
        if name is not None:  # a pattern, in quarantine, is refused as a name is
            verdict = self.judge_name(name, port, now)
            brokered = (name, port) in self.brokered
            return (
                Route(port, _proof(port, Proof.TLS_IF_ANY), name=name, brokered=brokered)
                if verdict.allowed or verdict.ask
                else verdict
            )
        if address == UNKNOWN and (self.is_open(now) or self.asks(now)):
            return Route(port, _proof(port, Proof.EITHER), unread=self._brokers("", port))
        if ipaddress.ip_address(address) in _SYNTHETIC:
            return Verdict(False, "no name has this address")
        verdict = self.judge_address(address, port, now)
        return Route(port, Proof.NONE, address=address) if verdict.allowed else verdict

    def judge_name(self, name: str, port: int, now: float) -> Verdict:
        """Whether a connection to a name and TCP port is allowed."""
        if self.mode == QUARANTINE:
            return self._quarantine()
        # Denials first, then what is allowed, then what the mode opens: deny beats every allowance. A denial without
        # ports of its own closes the name on every port.
        for denial in self.denied:
            if denial.matches(name) and (denial.ports == WEB or _has(denial, port)):
                return self._denied(denial)
        for target in self._about(name):
            if _has(target, port) and self.passing.get(target, now + 1) > now:
                return Verdict(True, str(target))
        if (name, port) in self.brokered:
            return Verdict(True, "brokered")
        if self.is_open(now):
            return Verdict(True, self.mode, word="learn" if self.mode == LEARN else "bypassed")
        asks = self.asks(now) and target_of(name, port) is not None
        return Verdict(False, "not allowed", self._allow(hints.name_target(name, _ports(port))), ask=asks)

    def asks(self, now: float) -> bool:
        """Whether the operator is asked about names that nothing allows."""
        return self.mode == ASK and (self.until is None or self.until > now)

    def _brokers(self, pattern: str, port: int) -> bool:
        """Whether a brokered host may be meant by an address that stands for a pattern."""
        return any(port == own and covers(pattern, host) for host, own in self.brokered)

    def judge_address(self, address: str, port: int, now: float) -> Verdict:
        """The same for an address that the container connected to."""
        if self.mode == QUARANTINE:
            return self._quarantine()
        host = ipaddress.ip_address(address)
        kind = addresses.kind(address)
        if kind == addresses.NEVER_OPENED:
            return Verdict(False, NEVER)
        denial = self._denial_of(host, port)
        if denial is not None:
            return self._denied(denial)
        target = self.names_address(host, port, now)
        if target is not None:
            return Verdict(True, str(target))
        if self.is_open(now) and (self.mode == DOWN_ALL or not kind):
            return Verdict(True, self.mode, word="learn" if self.mode == LEARN else "bypassed")
        return Verdict(False, "not allowed", self._allow(hints.packet_target(None, address, port, "tcp")))

    def names_address(self, host: Address, port: int, now: float) -> Target | None:
        """The allowed address or range that holds `host` with this port."""
        for network, target in self.networks:
            holds = host.version == network.version and host in network
            if holds and _has(target, port) and self.passing.get(target, now + 1) > now:
                return target
        return None

    def allows_without_name(self, name: str, port: int, now: float) -> bool:
        """Whether a line of the policy names exactly this name *and* this port: then its clients need send no SNI."""
        return any(
            target.ports != WEB and _has(target, port) and self.passing.get(target, now + 1) > now
            for target in self.exact.get(name, ())
        )

    def hint_exactly(self, name: str, port: int) -> str:
        """The command that allows a name with its port named, which lets clients connect that send no server name."""
        return self._allow(hints.name_target(name, Ports("tcp", port, port)))

    def _allow(self, target: Target | None) -> str:
        return hints.allow(self.container, target).get("allow", "")

    def dialable(self, address: str, port: int, now: float, own: frozenset[str]) -> str:
        """Why the relay does not connect to an address that an allowed name has; empty: it may.

        Args:
            own: the host's own addresses.
        """
        host = ipaddress.ip_address(address)
        kind = addresses.kind(address, own)
        if kind == addresses.NEVER_OPENED:
            return NEVER
        denial = self._denial_of(host, port)
        if denial is not None:
            return f"{denial} is denied"
        if not kind or self.names_address(host, port, now) is not None:
            return ""
        if address in own:
            return "an address of this host"
        return "" if self.mode == DOWN_ALL else "a private or special address"

    def _denial_of(self, host: Address, port: int) -> Target | None:
        for denial in self.denied:
            if not denial.is_name and host in denial.network and (denial.ports == WEB or _has(denial, port)):
                return denial
        return None

    def _quarantine(self) -> Verdict:
        return Verdict(False, "the container is in quarantine", paste.command("terok", "shield", "up", self.container))

    def _denied(self, denial: Target) -> Verdict:
        command = paste.command("terok", "shield", "forget", self.container, str(denial))
        return Verdict(False, f"{denial} is denied", command)

    def _about(self, name: str) -> list[Target]:
        labels = name.split(".")
        targets = list(self.exact.get(name, ()))
        for at in range(1, len(labels)):
            targets += self.below.get(".".join(labels[at:]), ())
        return targets

    def next_end(self, now: float) -> float | None:
        """When the next allowance ends by itself; None: none does."""
        ends = list(self.passing.values())
        if self.mode in (ASK, BYPASS) and self.until is not None:
            ends.append(self.until)
        return min((end for end in ends if end > now), default=None)


def covers(pattern: str, name: str) -> bool:
    """Whether `*.example.com` stands for the name; an empty pattern stands for all."""
    return not pattern or (name.endswith(pattern[1:]) and len(name) >= len(pattern))


def decode(text: bytes, brokered: frozenset[tuple[str, int]] = frozenset()) -> Policy:
    """Read `policy.json`.

    Args:
        text: the file.
        brokered: as in `Policy`; these come with the wiring.

    Raises:
        ValueError: it is not what the launch writes; nothing is allowed then.
    """
    try:
        data = json.loads(text)
        allowed = [parse(text) for text in data["allowed"]]
        exact: dict[str, list[Target]] = {}
        below: dict[str, list[Target]] = {}
        for target in allowed:
            if target.kind == NAME:
                exact.setdefault(target.value, []).append(target)
            elif target.kind == BELOW:
                below.setdefault(target.value, []).append(target)
        return Policy(
            container=data["container"],
            generation=data["generation"],
            mode=data["mode"],
            until=data["until"],
            names=dict(data["names"]),
            exact=exact,
            below=below,
            networks=tuple((target.network, target) for target in allowed if not target.is_name),
            denied=tuple(parse(text) for text in data["denied"]),
            passing={parse(text): float(until) for text, until in data["passing"].items()},
            brokered=brokered,
        )
    except (KeyError, TypeError, AttributeError, TargetError) as error:
        raise ValueError(f"the policy is damaged: {error!r}") from error


def _proof(port: int, otherwise: Proof) -> Proof:
    return {TLS_PORT: Proof.TLS, HTTP_PORT: Proof.HTTP}.get(port, otherwise)


def _ports(port: int) -> Ports:
    return WEB if port in WEB_PORTS else Ports("tcp", port, port)


def _has(target: Target, port: int) -> bool:
    ports = target.ports
    if ports == WEB:
        return port in WEB_PORTS
    return ports.protocol == "tcp" and ports.low <= port <= ports.high
