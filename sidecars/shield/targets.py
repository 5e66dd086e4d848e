"""What may be allowed or denied: a name, the names below one, an address or a range, each with an optional port.

    example.com   *.example.com   203.0.113.7   203.0.113.0/24   2001:db8::7   [2001:db8::7]:8443
    example.com:22   example.com:53/udp   203.0.113.0/24:5000-5010

`example.com` is that name alone, `*.example.com` every name below it and not itself. Without a port a target means
the web: TCP ports 80 and 443. A port without a protocol is a TCP port.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ...supervisor.ground.errors import Exit, TerokError

WEB_PORTS = (80, 443)

NAME, BELOW, HOST, RANGE = "name", "below", "host", "range"

_NAME_MAX = 253  # RFC 1035 section 2.3.4, without the root's length byte
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"(?P<rest>.*?):(?P<low>[0-9]{1,5})(-(?P<high>[0-9]{1,5}))?(/(?P<protocol>[a-z]+))?", re.DOTALL)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TargetError(TerokError):
    """A target that cannot be understood, or that no rule may open. Raised by `parse` and its callers alone."""

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what, fix=fix, code=Exit.USAGE)


@dataclass(frozen=True, order=True)
class Ports:
    """A range of ports of one protocol; `protocol` is `web` for the default, TCP 80 and 443."""

    protocol: str = "web"
    low: int = 0
    high: int = 0

    @property
    def name(self) -> str:
        """How the sets of these ports are called: `web`, `tcp22`, `udp5000-5010`."""
        if self.protocol == "web":
            return "web"
        return f"{self.protocol}{self.low}" + (f"-{self.high}" if self.high != self.low else "")

    @property
    def suffix(self) -> str:
        """What a target carries for them: ``, `:22`, `:53/udp`."""
        if self.protocol == "web":
            return ""
        ports = f":{self.low}" + (f"-{self.high}" if self.high != self.low else "")
        return ports + ("" if self.protocol == "tcp" else f"/{self.protocol}")


WEB = Ports()


@dataclass(frozen=True)
class Target:
    """One destination.

    kind: `name`, `below` (every name below `value`), `host` or `range`.
    value: the name in lower case, or the address or network in its shortest form.
    ports: which ports of it.
    """

    kind: str
    value: str
    ports: Ports = WEB

    def __str__(self) -> str:
        text = f"*.{self.value}" if self.kind == BELOW else self.value
        if self.kind in (HOST, RANGE) and ":" in text and self.ports != WEB:
            text = f"[{text}]"
        return text + self.ports.suffix

    @property
    def is_name(self) -> bool:
        """True for what DNS answers about."""
        return self.kind in (NAME, BELOW)

    @property
    def network(self) -> Network:
        """The addresses of a host or range."""
        return ipaddress.ip_network(self.value)

    def matches(self, name: str) -> bool:
        """True when this target covers the DNS name `name` (lower case, no trailing dot)."""
        if self.kind == NAME:
            return name == self.value
        return self.kind == BELOW and name.endswith("." + self.value)


def parse(text: str) -> Target:
    """Understand one target.

    Raises:
        TargetError: it is neither a name nor an address, or its port is none.
    """
    text = text.strip()
    host, ports = _split(text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise TargetError(f"{text[:80]!r} is not a target: brackets are for IPv6 addresses.")
    if ":" in host or "/" in host or re.fullmatch(r"[0-9.]+", host):
        return _address(text, host, ports)
    return _name(text, host, ports)


def _split(text: str) -> tuple[str, Ports]:
    """Take the port off, if there is one; a bare IPv6 address has colons but no port."""
    if text.count(":") > 1 and not text.startswith("["):
        return text, WEB
    match = _PORT.fullmatch(text)
    if not match:
        return text, WEB
    low = int(match["low"])
    high = int(match["high"] or low)
    protocol = match["protocol"] or "tcp"
    if protocol not in ("tcp", "udp"):
        raise TargetError(f"{text[:80]!r} is not a target: the protocol is tcp or udp.")
    if not 0 < low <= high < 65536:
        raise TargetError(f"{text[:80]!r} is not a target: ports go from 1 to 65535.")
    return match["rest"], Ports(protocol, low, high)


def _address(text: str, host: str, ports: Ports) -> Target:
    try:
        network = ipaddress.ip_network(host, strict=False)
    except ValueError:
        raise TargetError(f"{text[:80]!r} is not a target: {host[:60]!r} is no IP address or range.") from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(ipaddress.IPv6Network("::ffff:0:0/96")):
        raise TargetError(f"{text[:80]!r} is an IPv4-mapped IPv6 address.", fix="write the IPv4 address")
    if network.prefixlen == network.max_prefixlen:
        return Target(HOST, str(network.network_address), ports)
    return Target(RANGE, str(network), ports)


def _name(text: str, host: str, ports: Ports) -> Target:
    kind = NAME
    host = host.lower().removesuffix(".")
    if host.startswith("*."):
        kind, host = BELOW, host[2:]
    if not host.isascii():
        raise TargetError(f"{text[:80]!r} is not plain ASCII.", fix="write international names in their xn-- form")
    labels = host.split(".")
    if len(host) > _NAME_MAX or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise TargetError(f"{text[:80]!r} is neither a domain name, nor an IP address, nor a range.")
    return Target(kind, host, ports)
