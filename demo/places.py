"""Where the demonstration's stand-ins are: on addresses of the lab, or on the loopback interface without it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.lab.house import House
from tests.standins.dns import Resolver
from tests.standins.upstream import Upstream

ALLOWED, DENIED, PROVIDER = "docs.example.test", "evil.example.test", "api.provider.test"


@dataclass(frozen=True)
class Places:
    """Addresses and names of the stand-ins.

    provider_url, provider_at: what the vault is told, and where the TLS server listens.
    authority: PEM file of the authority that signed its certificate.
    allowed_at, denied_at: the two web servers.
    allowed_lines: lines of the shield profile.
    """

    provider_url: str
    provider_at: tuple[str, int]
    authority: Path
    certificate: trustme.LeafCert
    allowed_at: tuple[str, int]
    denied_at: tuple[str, int]
    allowed_lines: tuple[str, ...]

    @classmethod
    def choose(cls, house: House) -> Places:
        """The places for this machine."""
        authority = trustme.CA()
        path = house.base / "authority.pem"
        authority.cert_pem.write_to_path(str(path))
        return cls(
            provider_url=f"https://{PROVIDER}",
            provider_at=("198.51.100.20", 443),
            authority=path,
            certificate=authority.issue_cert(PROVIDER),
            allowed_at=("192.88.99.10", 80),
            denied_at=("192.88.99.66", 80),
            allowed_lines=(ALLOWED,),
        )

    @property
    def description(self) -> str:
        """What stands where."""
        return (
            f"provider   {PROVIDER}   TLS on {self.provider_at[0]}:{self.provider_at[1]}\n"
            f"web        {ALLOWED}   {self.allowed_at[0]}:{self.allowed_at[1]}   (on the allowlist)\n"
            f"web        {DENIED}   {self.denied_at[0]}:{self.denied_at[1]}   (not on it)\n"
            f"DNS        knows the three of them"
        )

    @property
    def allowed_url(self) -> str:
        """What the container may fetch."""
        return f"http://{ALLOWED}/"

    @property
    def denied_name(self) -> str:
        """A name that it may not resolve."""
        return DENIED

    @property
    def denied_url(self) -> str:
        """What it may not reach, by address."""
        return f"http://{self.denied_at[0]}:{self.denied_at[1]}/"

    def provider(self) -> Upstream:
        """The TLS server that plays the provider."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate.configure_cert(context)
        return Upstream(context, *self.provider_at)

    def resolver(self) -> Resolver:
        """The DNS server."""
        return Resolver({ALLOWED: [self.allowed_at[0]], DENIED: [self.denied_at[0]], PROVIDER: [self.provider_at[0]]})

    def web_servers(self) -> tuple[Upstream, Upstream]:
        """The allowed and the denied one."""
        return Upstream(None, *self.allowed_at), Upstream(None, *self.denied_at)
