"""The brokered hosts of a scope: those of providers for which it has a credential. Pure.

A host is written `host:port`, as everywhere between the launch, the relay and the vault.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...supervisor.ground.errors import TerokError
from . import catalog

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from .model import Catalog, Provider

HTTPS_PORT = 443
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
"""An exact host name; an address needs no name resolved, and no authority may be for one."""


def of_scope(
    catalogue: Catalog, held: Mapping[str, Mapping[str, object]], *, without: Container[str] = ()
) -> tuple[str, ...]:
    """The brokered hosts of a scope, in order.

    Args:
        catalogue: the compiled roster.
        held: provider -> meta of the scope's credentials (`agents.credentials`).
        without: hosts, without port, for which the operator has switched TLS off.

    A credential whose route is broken brokers nothing: its requests are refused by the vault with the reason.
    """
    hosts: set[tuple[str, int]] = set()
    for name, meta in held.items():
        provider = catalogue.provider(name)
        if provider is not None:
            try:
                hosts.update(of_provider(catalog.effective(provider, meta), str(meta.get("auth", "api-key"))))
            except TerokError:
                continue
    return tuple(f"{host}:{port}" for host, port in sorted(hosts) if host not in without)


def of_provider(provider: Provider, kind: str) -> set[tuple[str, int]]:
    """Host and port of every https upstream.

    Args:
        provider: what `catalog.effective` returned.
        kind: the credential's kind.
    """
    from urllib.parse import urlsplit  # a launch without credentials has no use for it

    hosts: set[tuple[str, int]] = set()
    for upstream in provider.upstreams:
        parts = urlsplit(upstream.url)
        host = (parts.hostname or "").lower()
        if parts.scheme == "https" and _NAME.fullmatch(host) and (not upstream.auth or kind in upstream.auth):
            hosts.add((host, parts.port or HTTPS_PORT))
    return hosts


def parse(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; raises ValueError when it is something else."""
    host, colon, port = text.rpartition(":")
    if not colon or not _NAME.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{text[:100]!r} is not host:port")
    return host, int(port)
