"""The certificates of single hosts, which are written byte by byte: what `cryptography.x509` would have made."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from terok_host.sidecars.vault.tls import der
from terok_host.sidecars.vault.tls.authority import make_authority
from terok_host.sidecars.vault.tls.leaf import issue_leaf, make_leaf
from terok_host.supervisor.ground.errors import TerokError

SUBJECT_KEY = serialization.PublicFormat.SubjectPublicKeyInfo
HOSTS = ("api.github.com", "x" * 63 + ".example")
KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = x509.Name(
    [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ü" * 60), x509.NameAttribute(NameOID.COMMON_NAME, "issuer")]
)


def usage() -> x509.KeyUsage:
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    never = dict.fromkeys((*others, "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, **never)


def by_the_library(like: x509.Certificate, hosts: list[str]) -> bytes:
    """The signed part of the certificate, written by `cryptography.x509`, with the other's number, key and times."""
    short = len(hosts[0]) <= 64
    builder = (
        x509.CertificateBuilder()
        .serial_number(like.serial_number)
        .issuer_name(ISSUER)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])] if short else []))
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .public_key(like.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=not short)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()), critical=False)
    )
    return builder.sign(KEY, hashes.SHA256()).tbs_certificate_bytes


def signed(pem: bytes) -> x509.Certificate:
    """The certificate; its private key, which comes first, is its own."""
    certificate = x509.load_pem_x509_certificate(pem)
    private = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey) and private.public_key() == certificate.public_key()
    KEY.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    return certificate


@pytest.mark.parametrize("days", [7, 3650, 30000])
@pytest.mark.parametrize("hosts", [[HOSTS[0]], [HOSTS[1]], list(HOSTS), [f"h{number}.example" for number in range(99)]])
def test_it_is_what_the_library_makes(hosts: list[str], days: int) -> None:
    pem, expires = make_leaf(ISSUER.public_bytes(), KEY, hosts, days)
    certificate = signed(pem)
    assert certificate.tbs_certificate_bytes == by_the_library(certificate, hosts)
    assert certificate.not_valid_after_utc.timestamp() == expires
    lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lasts == datetime.timedelta(days=days, hours=1)


def test_each_has_a_number_and_a_key_of_its_own() -> None:
    made = [signed(make_leaf(ISSUER.public_bytes(), KEY, ["a.example"], 7)[0]) for _ in range(20)]
    keys = {each.public_key().public_bytes(serialization.Encoding.DER, SUBJECT_KEY) for each in made}
    assert len({each.serial_number for each in made}) == len(keys) == 20
    assert all(each.serial_number.bit_length() <= 159 for each in made)


@pytest.mark.parametrize("field", ["key", "intermediate"])
def test_no_damage_is_more_than_a_refusal(field: str) -> None:
    authority = make_authority("box", ["a.example"])
    pem = authority.key if field == "key" else authority.intermediate
    lines = pem.split(b"\n")
    for broken in (b"", b"x", lines[0], pem[: len(pem) // 2], b"\n".join([lines[0], b"MA==", lines[-2]]), b"\0" * 64):
        with pytest.raises(TerokError, match="damaged"):
            issue_leaf(
                authority._replace(key=broken) if field == "key" else authority._replace(intermediate=broken),
                "a.example",
            )


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 1 << 63, (1 << 159) - 1])
def test_numbers_are_positive(number: int) -> None:
    tag, content, whole = der.split(der.integer(number))[0]
    assert tag == der.INTEGER and int.from_bytes(content, "big", signed=True) == number and whole == der.integer(number)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_have_the_shortest_form(size: int) -> None:
    content = bytes(size)
    whole = der.element(der.OCTET_STRING, content)
    assert der.split(whole + whole) == [(der.OCTET_STRING, content, whole)] * 2
    assert len(whole) - size == (2 if size < 128 else 3 if size < 256 else 4 if size < 65536 else 5)


@pytest.mark.parametrize(
    "data", [b"\x30", b"\x30\x01", b"\x30\x80", b"\x30\x85\0\0\0\0\1\0", b"\x30\x84\xff\xff\xff\xff", b"\x30\x82\1"]
)
def test_lengths_that_do_not_fit(data: bytes) -> None:
    with pytest.raises(der.DerError):
        der.split(data)


def test_a_running_vault_and_signer_do_not_load_the_library() -> None:
    """It is 6 MB and 50 ms; and what is not loaded before Landlock is in force cannot be loaded later."""
    script = (
        "import sys, terok_host.sidecars.vault.main, terok_host.sidecars.ssh.main, terok_host.sidecars.vault.tls.door;"
        "from terok_host.sidecars.vault.tls import leaves; leaves.warm();"
        "heavy = ['cryptography.x509', 'cryptography.hazmat.primitives.serialization', 'bcrypt', 'hashlib', 'datetime',"
        " 'cryptography.hazmat.backends', 'dataclasses', 'inspect', 'email', 'sqlite3', 'threading'];"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
