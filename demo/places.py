"""Where the demonstration's stand-ins are: on addresses of the lab, or on the loopback interface without it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.lab.house import DNS_ADDRESS, House, in_lab
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

ALLOWED, DENIED, PROVIDER = "docs.example.test", "evil.example.test", "api.provider.test"
LOOPBACK, LOOPBACK_SEEN = "127.0.0.1", "10.0.2.2"
"""The host's loopback interface, and how a container behind slirp4netns sees it."""


@dataclass(frozen=True)
class Place:
    """A server: where it listens on the host, and the address by which the container would reach it."""

    address: str
    port: int
    seen: str

    @property
    def listens(self) -> str:
        """Where it listens."""
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Places:
    """The stand-ins.

    provider, allowed, denied, dns: the TLS server that plays the provider, two web servers, the DNS server.
    provider_name: the host name in the provider's certificate.
    authority: PEM file of the authority that signed that certificate.
    """

    provider: Place
    allowed: Place
    denied: Place
    dns: Place
    provider_name: str
    authority: Path
    certificate: trustme.LeafCert

    @classmethod
    def choose(cls, house: House) -> Places:
        """The places for this machine; without the lab, `house` is told how a container reaches the host."""
        authority = trustme.CA()
        path = house.base / "authority.pem"
        authority.cert_pem.write_to_path(str(path))
        name = PROVIDER if in_lab() else "localhost"
        certificate = authority.issue_cert(name)
        if in_lab():
            servers = [
                Place(address, port, address)
                for address, port in (
                    ("198.51.100.20", 443),
                    ("192.88.99.10", 80),
                    ("192.88.99.66", 80),
                    (DNS_ADDRESS, 53),
                )
            ]
        else:
            servers = [Place(LOOPBACK, port, LOOPBACK_SEEN) for port in free_ports(4)]
            house.share_loopback()
            house.terok("config", "set", "network.mode", "slirp4netns")
            house.terok("config", "set", "shield.forwarder", f"{LOOPBACK_SEEN}#{servers[3].port}")
        provider, allowed, denied, dns = servers
        return cls(provider, allowed, denied, dns, name, path, certificate)

    @property
    def description(self) -> str:
        """What stands where."""
        return (
            f"provider   {self.provider_name:<20} TLS on {self.provider.listens}\n"
            f"web        {ALLOWED:<20} {self.allowed.listens} (on the allowlist)\n"
            f"web        {DENIED:<20} {self.denied.listens} (not on it)\n"
            f"DNS        {'knows them':<20} {self.dns.listens}"
        )

    @property
    def provider_url(self) -> str:
        """What the vault is told instead of the provider's real address."""
        return f"https://{self.provider_name}:{self.provider.port}"

    @property
    def profile(self) -> list[str]:
        """The shield profile. A name may lead to a private address only when that is allowed as such."""
        if in_lab():
            return [ALLOWED]
        return [f"{ALLOWED}:{self.allowed.port}", f"{self.allowed.seen}:{self.allowed.port}"]

    @property
    def allowed_url(self) -> str:
        """What the container may fetch."""
        return f"http://{ALLOWED}:{self.allowed.port}/"

    @property
    def denied_url(self) -> str:
        """What it may not reach, by address."""
        return f"http://{self.denied.seen}:{self.denied.port}/"

    @contextlib.contextmanager
    def serve(self) -> Iterator[tuple[Upstream, Upstream, Upstream]]:
        """Start them all; gives the provider, the allowed and the denied web server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
        records = {ALLOWED: [self.allowed.seen], DENIED: [self.denied.seen], PROVIDER: [self.provider.seen]}
        with (
            Upstream(context, self.provider.address, self.provider.port) as provider,
            Upstream(None, self.allowed.address, self.allowed.port) as allowed,
            Upstream(None, self.denied.address, self.denied.port) as denied,
            Resolver(records, address=self.dns.address, port=self.dns.port),
        ):
            yield provider, allowed, denied


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that no process uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]
