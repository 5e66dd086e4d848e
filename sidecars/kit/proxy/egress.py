"""How this host reaches the internet: directly, or through an HTTP proxy; and which authorities count besides. Pure.

With a proxy, the proxy resolves names. So the addresses of a name cannot be checked here, and only what a name shows by
itself is refused (`name_refusal`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from .. import addresses

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LOOPBACK = ("127.0.0.0/8", "::1/128", "::ffff:127.0.0.0/104")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_METADATA_NAMES = ("metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
"""Names that clouds give their metadata services: the proxy's would hand out the credentials of its machine."""


class Egress(NamedTuple):
    """How upstreams are reached.

    tls: whether the proxy is spoken to over TLS.
    host, port: the proxy; an empty host: there is none.
    direct: `network.no_proxy`: names, `*.example.com` for all names below one, addresses and ranges.
    ca: file of authorities that are trusted besides the usual ones, for upstreams and for the proxy; empty: none.
    """

    tls: bool = False
    host: str = ""
    port: int = 0
    direct: tuple[str, ...] = ()
    ca: str = ""

    @property
    def authority(self) -> str:
        """Host and port of the proxy, as its credential is filed and messages name it; empty without one."""
        return authority(self.host, self.port) if self.host else ""

    @property
    def url(self) -> str:
        """The proxy's URL; empty without one."""
        return f"{'https' if self.tls else 'http'}://{self.authority}" if self.host else ""

    @property
    def ports(self) -> tuple[int, ...]:
        """TCP ports that a confined process must reach for it."""
        return (self.port,) if self.host else ()

    @property
    def files(self) -> tuple[str, ...]:
        """Files that a confined process must read for it."""
        return (self.ca,) if self.ca else ()

    def carries(self, host: str) -> bool:
        """Whether connections to a host (name or address) go through the proxy.

        Loopback never does: there it would be the proxy's own machine.
        """
        host = host.lower().rstrip(".")
        if not self.host or host == "localhost" or host.endswith(".localhost"):
            return False
        if is_address(host):
            return not addresses.within(host, (*_LOOPBACK, *(rule for rule in self.direct if _is_range(rule))))
        return not any(host == rule or (rule[:2] == "*." and host.endswith(rule[1:])) for rule in self.direct)

    def to_dict(self) -> dict[str, object]:
        """As `from_dict` reads it; no field of it is secret."""
        return {**self._asdict(), "direct": list(self.direct)}


NO_PROXY = Egress()


def from_dict(document: object) -> Egress:
    """The egress in a sidecar's settings; what an older version did not write is the direct way.

    Raises:
        ValueError: it is not what `to_dict` wrote.
    """
    if document is None:
        return NO_PROXY
    fields = dict(document) if isinstance(document, Mapping) else {}
    tls, host, port, direct, ca = (fields.get(name) for name in Egress._fields)
    if (
        fields.keys() == set(Egress._fields)
        and isinstance(tls, bool)
        and isinstance(host, str)
        and isinstance(port, int)
        and isinstance(direct, list | tuple)
        and all(isinstance(rule, str) for rule in direct)
        and isinstance(ca, str)
    ):
        return Egress(tls, host, port, tuple(direct), ca)
    raise ValueError("the way to upstreams is not understood")


def authority(host: str, port: int) -> str:
    """Host and port in one text, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_url(url: str) -> tuple[bool, str, int]:
    """TLS, host and port of a proxy's URL.

    Raises:
        ValueError: with what was expected; a URL with a user or password is never repeated.
    """
    from urllib.parse import urlsplit

    expected = "http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise ValueError(expected) from None
    if "@" in parts.netloc:
        raise ValueError(f"{expected} without a user or password (run `terok vault proxy set`, which stores them)")
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not plain or port == 0 or not (is_address(host) or _is_name(host)):
        raise ValueError(expected)
    return parts.scheme == "https", host, port or (443 if parts.scheme == "https" else 3128)


def parse_rule(text: str) -> str:
    """An entry of `network.no_proxy` in its one form.

    Raises:
        ValueError: with what was expected.
    """
    rule = text.lower()
    if rule.startswith("."):
        rule = f"*{rule}"
    if not (_is_range(rule) or _is_name(rule.removeprefix("*."))):
        raise ValueError("names, *.SUFFIX, addresses and ranges (10.0.0.0/8)")
    return rule


def name_refusal(host: str) -> str:
    """Why a name (not an address) may not be given to the proxy, whatever it would resolve it to; empty: it may.

    Addresses in unusual spellings (`127.1`, `0x7f000001`, `2130706433`) are names here, and addresses to a resolver.
    """
    host = host.lower().rstrip(".")
    if not _NAME.fullmatch(host) or len(host) > 253:
        return "not a host name"
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return "an address in an unusual spelling"
    if host in _METADATA_NAMES:
        return "a cloud metadata service"
    return ""


def is_address(host: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address in its usual spelling."""
    return "/" not in host and _is_range(host)


def _is_range(text: str) -> bool:
    try:
        addresses.check_range(text)
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and len(text) <= 253 and not _NUMBER.fullmatch(text.rpartition(".")[2])
