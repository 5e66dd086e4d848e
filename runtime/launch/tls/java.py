"""A Java trust store (JKS) with the host's authorities and the container's own. Pure, but for `of_host`.

Java looks into no other file than its own, so it gets all that it shall trust. JKS is written here and not the newer
PKCS #12: it holds certificates as they are, and nothing of them has to be understood.
"""

from __future__ import annotations

import hashlib
import re
import struct
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator

from ....supervisor.container.trust import host_bundle

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END")
_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_SALT = b"Mighty Aphrodite"
PASSWORD = "changeit"  # noqa: S105 - what Java itself uses: it protects nothing, since certificates are public
_MADE = 1_700_000_000_000
"""Milliseconds: when each entry was made. Nothing reads it; always the same, so that the same content is the same."""


def of_host(own: bytes) -> bytes:
    """The trust store with the host's bundle and `own`, PEM."""
    return build([*certificates(host_bundle()), *certificates(own)])


def certificates(pem: bytes) -> Iterator[bytes]:
    """Every certificate in a PEM file, DER; what is no base64 is passed over."""
    for match in _PEM.finditer(pem):
        try:
            yield b64decode(b"".join(match[1].split()), validate=True)
        except Base64Error:
            continue


def build(entries: Iterable[bytes]) -> bytes:
    """A JKS file that trusts these certificates (DER)."""
    listed = list(dict.fromkeys(entries))
    parts = [struct.pack(">III", _MAGIC, _VERSION, len(listed))]
    for number, der in enumerate(listed):
        parts += [struct.pack(">I", _TRUSTED), _text(f"terok-{number}"), struct.pack(">Q", _MADE), _text("X.509")]
        parts += [struct.pack(">I", len(der)), der]
    content = b"".join(parts)
    # the digest that shows that nothing was changed, for one who knows the password
    return content + hashlib.sha1(PASSWORD.encode("utf-16-be") + _SALT + content, usedforsecurity=False).digest()


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw
