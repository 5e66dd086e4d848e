"""The certificate authority of one container; `leaf.py` makes the certificates of hosts that it signs.

Rules of this file:
- a root signs one intermediate, then its key is gone: what is stored can sign leaves and nothing else. Both are
  constrained, since Java ignores the constraints of a certificate that it trusts by itself (RFC 5280, section 6.1.1);
- a name constraint for DNS also permits all names below it (RFC 5280, section 4.2.1.10), and there is no way to say
  less; so hosts are exact names, and `issue_leaf` signs for these alone;
- a vault that is locked cannot sign. The spare certificate is what it still can serve with, to say so: its key lies
  beside the container's other files (0600), not sealed, and gives no more than the container's own trust;
- no other module of the vault imports X.509, and a running vault does not import this one.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import secrets
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ....supervisor.ground.errors import Exit, TerokError
from ...store.records import Authority
from .leaf import BACKDATED, COMMON_NAME_MAX, make_leaf

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTHORITY_DAYS = 3650
"""A container may be started again for years with the certificate that was mounted into it, and nothing can sign a new
intermediate for it. What limits the harm is the constraint, and that `terok cleanup` deletes the key."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_HOST_MAX = 253
_NOWHERE = "terok.invalid"
"""A name that no host has (RFC 6761, section 6.4): to permit it alone is to permit none of its kind."""


def make_authority(container: str, hosts: Sequence[str]) -> Authority:
    """A new authority for one container.

    Args:
        container: its name; stands in the certificates, for people.
        hosts: the brokered hosts: exact names in lower case, without ports.

    Raises:
        TerokError: there is no host, or one is a pattern, an address or no name.
    """
    names = tuple(sorted({check_host(host) for host in hosts}))
    if not names:
        raise TerokError("An authority needs a host.", code=Exit.USAGE)
    constraints = _constraints(names)
    # two authorities of one container must not be taken for each other: clients find issuers by their names
    tag = secrets.token_hex(4)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = _name(container, "root", tag), _name(container, "intermediate", tag)
    root = _authority(root_name, root_name, root_key, root_key, constraints, path_length=1)
    intermediate = _authority(name, root_name, key, root_key, constraints, path_length=0)
    del root_key
    spare, _ = make_leaf(intermediate.subject.public_bytes(), key, names, AUTHORITY_DAYS)
    return Authority(container, names, _pem(root), _pem(intermediate), _key_pem(key), spare + _pem(intermediate))


def check_host(host: str) -> str:
    """Return `host` when a certificate can be made for it: an exact name in lower case; else raise TerokError."""
    if len(host) > _HOST_MAX or not _HOST.fullmatch(host) or host.rpartition(".")[2].isdigit():
        raise TerokError(
            f"{host[:100]!r} cannot be a brokered host: it is not one exact host name in lower case.", code=Exit.USAGE
        )
    return host


def _constraints(hosts: Sequence[str]) -> x509.NameConstraints:
    """These hosts, and no name of another kind: a kind without any constraint would be free."""
    permitted: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    permitted += [x509.RFC822Name(_NOWHERE), x509.UniformResourceIdentifier(_NOWHERE)]
    everywhere = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    return x509.NameConstraints(permitted, [x509.IPAddress(network) for network in everywhere])


def _name(container: str, what: str, tag: str) -> x509.Name:
    shown = f"terok {what}: {container}"[:COMMON_NAME_MAX]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "terok (this container only)"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, tag),
            x509.NameAttribute(NameOID.COMMON_NAME, shown),
        ]
    )


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    constraints: x509.NameConstraints,
    *,
    path_length: int,
) -> x509.Certificate:
    now = _now()
    builder = _begin(subject, issuer, key, now, now + datetime.timedelta(days=AUTHORITY_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(constraints, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if path_length == 0:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(_key_identifier(issuer_key), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    expires: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(seconds=BACKDATED)).not_valid_after(expires)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_identifier(issuer_key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
