"""A certificate authority for stand-in servers."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """A certificate authority, whose certificate is written to `file`, and the context of a server that it vouches for.

    Args:
        file: where clients find the certificate that they must trust.
        names: what the server is called.

    Attributes:
        ca: the authority itself.
        file: as given.
        context: the server's.
    """

    def __init__(self, file: Path | str, *names: str) -> None:
        self.ca = trustme.CA()
        self.file = str(file)
        self.ca.cert_pem.write_to_path(self.file)
        self.context = self.server(*names)

    def server(self, *names: str) -> ssl.SSLContext:
        """A server context with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context
