"""What the live verbs must know about a container's shield."""

from __future__ import annotations

from dataclasses import dataclass, field

from .dnsmasq import Features
from .model import Model
from .targets import Ports, Target


@dataclass(frozen=True)
class State:
    """What the live verbs must know about a container's shield; `shield.json`.

    Attributes:
        profiles: names of the profiles it was launched with.
        base: their targets, as they were then.
        model: the policy now.
        lines: the domains with a line of their own in dnsmasq's configuration, and their ports.
        features: of the dnsmasq that was found; `usable` False: names are resolved statically.
        fresh: those among `lines` that were added since; the running dnsmasq may not know them.
        generation: number of the last change of dnsmasq's files.
        hosts: addresses by name, where names are resolved statically.
        until: when (seconds since the epoch) a mode ends by itself; None: never.
        passing: those of the allowed targets that are so for a time, and until when (seconds since the epoch).
        addresses: in the airlock, the synthetic address of each name and wildcard; None in the other network modes.
    """

    profiles: tuple[str, ...]
    base: tuple[Target, ...]
    model: Model
    lines: dict[str, tuple[Ports, ...]]
    features: Features
    fresh: tuple[str, ...] = ()
    generation: int = 0
    hosts: dict[str, list[str]] = field(default_factory=dict)
    until: float | None = None
    passing: tuple[tuple[Target, float], ...] = ()
    addresses: dict[str, str] | None = None

    @property
    def has_dnsmasq(self) -> bool:
        """Whether dnsmasq answers for the container; else its /etc/hosts does, or nothing."""
        if self.addresses is not None:
            return self.features.usable_in_airlock
        return self.model.forwarder is not None and self.features.usable

    def lasting(self) -> tuple[Target, ...]:
        """What was allowed live, for good."""
        short = {target for target, _ in self.passing}
        return tuple(target for target in self.model.allowed if target not in self.base and target not in short)
