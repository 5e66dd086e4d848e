"""The certificates of single hosts: made here, byte by byte, and signed with the key of a container's intermediate.

Rules of this file:
- what it makes is one kind of certificate (RFC 5280): version 3, P-256, not an authority, for TLS servers, for the
  exact names it is given;
- it imports neither `cryptography.x509` nor a reader of key files: see `der.py`. Tests compare what it makes with what
  `cryptography.x509` reads.
"""

from __future__ import annotations

import os
import time
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ....supervisor.ground.errors import Exit, TerokError
from ...store.ecdsa import Ecdsa
from . import der

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...store.records import Authority

LEAF_DAYS = 7
"""Leaves are made in memory and need no revocation; a vault that runs longer makes new ones a day before."""
BACKDATED = 3600.0
"""Seconds. A container in a virtual machine may have a clock of its own."""
COMMON_NAME_MAX = 64
"""RFC 5280, appendix A: ub-common-name."""

_DAY = 86400.0
_CURVE = der.oid("1.2.840.10045.3.1.7")
_PUBLIC_KEY = der.sequence(der.oid("1.2.840.10045.2.1"), _CURVE)
_ECDSA_SHA256 = der.sequence(der.oid("1.2.840.10045.4.3.2"))
_COMMON_NAME = der.oid("2.5.4.3")
_KEY_USAGE = der.oid("2.5.29.15"), der.element(der.BIT_STRING, b"\x07\x80")
"""digitalSignature alone: the first of eight bits, seven unused."""
_SERVER_AUTH = der.oid("2.5.29.37"), der.sequence(der.oid("1.3.6.1.5.5.7.3.1"))
_NO_AUTHORITY = der.oid("2.5.29.19"), der.sequence()
_NAMES, _ISSUER_KEY = der.oid("2.5.29.17"), der.oid("2.5.29.35")
_SUBJECT_AT = 0, 5
"""Where a certificate of version 3 has its subject: in its first part, after version, serial number, algorithm, issuer
and validity."""


class Leaf(NamedTuple):
    """A host's certificate; its repr shows no key.

    Attributes:
        host: the only name in it.
        pem: its private key, it, and the intermediate that signed it, in the form that `load_cert_chain` reads.
        expires: Unix seconds.
    """

    host: str
    pem: bytes
    expires: float

    def __repr__(self) -> str:
        return f"Leaf({self.host!r})"


def issue_leaf(authority: Authority, host: str) -> Leaf:
    """A certificate for one of the authority's hosts, with a key of its own.

    Raises:
        TerokError: the host is not one of them (REFUSED), or the authority is damaged.
    """
    if host not in authority.hosts:
        raise TerokError(f"The authority of {authority.container} is not for {host[:100]}.", code=Exit.REFUSED)
    try:
        issuer = der.inside(_unwrap(authority.intermediate), 0, *_SUBJECT_AT)[2]
        # PKCS #8 (RFC 5958): version, algorithm, and the key (RFC 5915) in an octet string: version, number, ...
        wrapped = der.inside(_unwrap(authority.key), 0, 2)[1]
        number = int.from_bytes(der.inside(wrapped, 0, 1)[1], "big")
        issuer_key = ec.derive_private_key(number, ec.SECP256R1())
    except ValueError:
        raise TerokError(f"The authority of {authority.container} is damaged.", fix="prepare the container") from None
    pem, expires = make_leaf(issuer, issuer_key, [host], LEAF_DAYS)
    return Leaf(host, pem + authority.intermediate, expires)


def warm() -> bytes:
    """A certificate that nothing trusts, and its key; what is loaded on the first use is loaded then."""
    key = ec.generate_private_key(ec.SECP256R1())
    return make_leaf(_name("warm.invalid"), key, ["warm.invalid"], 1)[0]


def make_leaf(
    issuer: bytes, issuer_key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], days: int
) -> tuple[bytes, float]:
    """A new key and a certificate for it, as PEM, and when it expires (Unix seconds).

    Args:
        issuer: the issuer's name, DER.
        issuer_key: its key.
        hosts: exact names (`authority.check_host`), at least one.
        days: how long it is valid from now on.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    now = float(int(time.time()))
    expires = now + days * _DAY
    # a name that is too long for the subject stands in the extension alone, which is critical then
    short = len(hosts[0]) <= COMMON_NAME_MAX
    names = der.sequence(*(der.element(0x82, host.encode("ascii")) for host in hosts))
    extensions = (
        _extension(*_NO_AUTHORITY, critical=True),
        _extension(*_KEY_USAGE, critical=True),
        _extension(*_SERVER_AUTH),
        _extension(_NAMES, names, critical=not short),
        _extension(_ISSUER_KEY, der.sequence(der.element(0x80, _key_identifier(issuer_key)))),
    )
    content = der.sequence(
        der.element(0xA0, der.integer(2)),
        der.integer(int.from_bytes(os.urandom(20), "big") >> 1),
        _ECDSA_SHA256,
        issuer,
        der.sequence(der.moment(now - BACKDATED), der.moment(expires)),
        _name(hosts[0]) if short else der.sequence(),
        der.sequence(_PUBLIC_KEY, der.bits(_point(key))),
        der.element(0xA3, der.sequence(*extensions)),
    )
    signature = issuer_key.sign(content, Ecdsa(hashes.SHA256()))
    certificate = der.sequence(content, _ECDSA_SHA256, der.bits(signature))
    return _wrap(b"EC PRIVATE KEY", _private(key)) + _wrap(b"CERTIFICATE", certificate), expires


def _extension(kind: bytes, value: bytes, *, critical: bool = False) -> bytes:
    return der.sequence(kind, der.TRUE if critical else b"", der.element(der.OCTET_STRING, value))


def _name(common: str) -> bytes:
    return der.sequence(der.element(der.SET, der.sequence(_COMMON_NAME, der.element(der.UTF8, common.encode("ascii")))))


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key, not compressed (SEC 1, section 2.3.3)."""
    numbers = key.public_key().public_numbers()
    return b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key as RFC 5915 has it."""
    number = key.private_numbers().private_value.to_bytes(32, "big")
    public = der.element(0xA1, der.bits(_point(key)))
    return der.sequence(der.integer(1), der.element(der.OCTET_STRING, number), der.element(0xA0, _CURVE), public)


def _key_identifier(key: ec.EllipticCurvePrivateKey) -> bytes:
    """What the intermediate calls its key: SHA-1, as a label (RFC 5280, section 4.2.1.2)."""
    digest = hashes.Hash(hashes.SHA1())
    digest.update(_point(key))
    return digest.finalize()


def _wrap(label: bytes, content: bytes) -> bytes:
    """PEM (RFC 7468)."""
    text = b2a_base64(content, newline=False)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label, lines, label)


def _unwrap(pem: bytes) -> bytes:
    """The content of the first block.

    Raises:
        DerError: there is none.
    """
    lines = pem.split(b"\n")
    ends = [number for number, line in enumerate(lines) if line.startswith(b"-----")]
    if len(ends) < 2:
        raise der.DerError("no PEM")
    try:
        return a2b_base64(b"".join(lines[ends[0] + 1 : ends[1]]))
    except Base64Error as error:
        raise der.DerError(str(error)) from None
