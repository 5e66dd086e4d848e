"""What would allow a destination that the shield refused: a target, and the command that people paste.

The container chose the name and the address. A target is offered only when `terok shield allow` would take it.
"""

from __future__ import annotations

import re

from ...supervisor.ground import paste
from ..kit import addresses
from .dnsmasq import MARKER
from .special import check_allowed
from .targets import HOST, NAME, WEB, WEB_PORTS, Ports, Target, TargetError, parse

_HOSTNAME = re.compile(r"[0-9a-f]{12}")
"""The host name that Podman gives a container: the beginning of its id."""
_PROBE = re.compile(re.escape(MARKER).replace(re.escape("{}"), "[0-9]+"))


def asks_for_itself(name: str, container: str) -> bool:
    """True for a question that is no attempt to get out: reverse lookups, `localhost`, the own name, terok's probe."""
    name = name.lower().removesuffix(".")
    last = name.rpartition(".")[2]
    own = name == container.lower() or _HOSTNAME.fullmatch(name) or _PROBE.fullmatch(name)
    return last in ("localhost", "arpa") or bool(own)


def name_target(name: str, ports: Ports = WEB) -> Target | None:
    """The target of a plain host name; None for anything else, such as `*.com` or an address."""
    try:
        target = parse(name)
    except TargetError:
        return None
    return Target(NAME, target.value, ports) if target.kind == NAME else None


def packet_target(name: str | None, address: str, port: int, protocol: str) -> Target | None:
    """The target of a packet: the name that taught its address, else the address; None when nothing may open it."""
    if protocol not in ("tcp", "udp") or not 0 < port < 65536:
        return None
    ports = WEB if protocol == "tcp" and port in WEB_PORTS else Ports(protocol, port, port)
    try:
        if not addresses.kind(address) and name is not None and (target := name_target(name, ports)) is not None:
            return target
        target = Target(HOST, address, ports)
        check_allowed(target)
    except (OSError, ValueError, TargetError):
        return None
    return target


def allow(container: str, target: Target | None) -> dict[str, str]:
    """The field `allow` of an audit line; nothing without a target."""
    line = paste.command("terok", "shield", "allow", container, str(target)) if target is not None else ""
    return {"allow": line} if line else {}
