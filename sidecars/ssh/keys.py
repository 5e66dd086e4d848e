"""Keys and signatures on `cryptography`'s primitives: public blobs (RFC 4253, 5656, 8709), private records.

A private key is stored as the fields of SSH_AGENTC_ADD_IDENTITY (RFC 9987, section 3.2): a few numbers that this
process turns into a key without any file-format code.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ..store.ecdsa import Ecdsa
from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 16384
"""OpenSSH's own limit; a larger modulus makes one verification take seconds."""

ED25519, RSA = "ssh-ed25519", "ssh-rsa"
_CURVES: dict[str, tuple[str, ec.EllipticCurve, ec.ECDSA]] = {
    "ecdsa-sha2-nistp256": ("nistp256", ec.SECP256R1(), Ecdsa(hashes.SHA256())),
    "ecdsa-sha2-nistp384": ("nistp384", ec.SECP384R1(), Ecdsa(hashes.SHA384())),
    "ecdsa-sha2-nistp521": ("nistp521", ec.SECP521R1(), Ecdsa(hashes.SHA512())),
}
_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}
TYPES = (ED25519, *_CURVES, RSA)
"""Key types that can be stored and used."""


class KeyFormatError(ValueError):
    """A key or signature is malformed, of a type that is not served, or too weak. The text says which."""


def algorithm_for(kind: str, flags: int) -> str:
    """The signature algorithm that a sign request asks for.

    Args:
        kind: the key's type.
        flags: the request's flags; they choose the hash of an RSA signature and mean nothing else.

    Raises:
        KeyFormatError: it asks for SHA-1.
    """
    if kind != RSA:
        return kind
    if flags & wire.RSA_SHA2_512:
        return "rsa-sha2-512"
    if flags & wire.RSA_SHA2_256:
        return "rsa-sha2-256"
    raise KeyFormatError("an RSA signature with SHA-1 was asked for")


def kind_of(blob: bytes) -> str:
    """The type that a public blob names; empty when it is malformed."""
    try:
        return wire.Reader(blob).text()
    except wire.WireError:
        return ""


def fingerprint(blob: bytes) -> str:
    """The fingerprint of a public blob as OpenSSH prints it: SHA256 and base64 without padding."""
    from binascii import b2a_base64

    digest = hashes.Hash(hashes.SHA256())
    digest.update(blob)
    return "SHA256:" + b2a_base64(digest.finalize(), newline=False).decode().rstrip("=")


def load_public(blob: bytes) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """The public key behind a blob.

    Raises:
        KeyFormatError: malformed, too weak, or not a type of `TYPES`.
    """
    try:
        reader = wire.Reader(blob)
        kind = reader.text()
        if kind == ED25519:
            point = reader.string()
            reader.end()
            return ed25519.Ed25519PublicKey.from_public_bytes(point)
        if kind in _CURVES:
            name, curve, _ = _CURVES[kind]
            if reader.text() != name:
                raise KeyFormatError(f"an {kind} key names another curve")
            point = reader.string()
            reader.end()
            return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        if kind == RSA:
            e, n = reader.mpint(), reader.mpint()
            reader.end()
            check_rsa_size(n.bit_length())
            return rsa.RSAPublicNumbers(e, n).public_key()
    except (wire.WireError, ValueError, UnsupportedAlgorithm) as error:
        if isinstance(error, KeyFormatError):
            raise
        raise KeyFormatError(f"a public key is malformed: {error}") from None
    raise KeyFormatError(f"keys of the type {kind[:64]!r} are not supported")


def check_rsa_size(bits: int) -> None:
    """Raise KeyFormatError for an RSA modulus that is too short to be safe or too long to be bearable."""
    if not RSA_BITS_MIN <= bits <= RSA_BITS_MAX:
        raise KeyFormatError(f"an RSA key has {bits} bits; from {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted")


def verify(blob: bytes, signature: bytes, data: bytes) -> None:
    """Check a signature blob (RFC 4253, section 6.6) over `data`; SHA-1 is refused.

    Raises:
        KeyFormatError: the key or the signature is malformed, weak or wrong.
    """
    key = load_public(blob)
    kind = kind_of(blob)
    try:
        reader = wire.Reader(signature)
        algorithm, value = reader.text(), reader.string()
        reader.end()
        if isinstance(key, rsa.RSAPublicKey):
            if algorithm not in _RSA_HASHES:
                raise KeyFormatError(f"an RSA signature has the algorithm {algorithm[:40]!r}")
            key.verify(value, data, padding.PKCS1v15(), _RSA_HASHES[algorithm])
            return
        if algorithm != kind:
            raise KeyFormatError(f"the signature's algorithm {algorithm[:40]!r} is not the key's")
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(value, data)
        else:
            numbers = wire.Reader(value)
            r, s = numbers.mpint(), numbers.mpint()
            numbers.end()
            key.verify(encode_dss_signature(r, s), data, _CURVES[kind][2])
    except InvalidSignature:
        raise KeyFormatError("the signature does not verify") from None
    except wire.WireError as error:
        raise KeyFormatError(f"a signature is malformed: {error}") from None


class Signer:
    """A private key that is ready to sign.

    Args:
        key: the private key.
    """

    def __init__(self, key: PrivateKey) -> None:
        self.blob = public_blob(key)
        self.kind = kind_of(self.blob)
        self._sign = self._prepare(key)

    def __repr__(self) -> str:
        return f"Signer({fingerprint(self.blob)})"

    def _prepare(self, key: PrivateKey) -> Callable[[bytes, str], bytes]:
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return lambda data, _: key.sign(data)
        if isinstance(key, rsa.RSAPrivateKey):
            scheme = padding.PKCS1v15()
            return lambda data, algorithm: key.sign(data, scheme, _RSA_HASHES[algorithm])
        ecdsa = _CURVES[self.kind][2]

        def sign(data: bytes, _: str) -> bytes:
            r, s = decode_dss_signature(key.sign(data, ecdsa))
            return wire.mpint(r) + wire.mpint(s)

        return sign

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """A signature blob over `data` with an algorithm of `algorithm_for`."""
        return wire.string(algorithm) + wire.string(self._sign(data, algorithm))


def public_blob(key: PrivateKey) -> bytes:
    """The public blob of a private key.

    Raises:
        KeyFormatError: its type is not served.
    """
    from cryptography.hazmat.primitives._serialization import Encoding, PublicFormat

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return wire.string(ED25519) + wire.string(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        check_rsa_size(numbers.n.bit_length())
        return wire.string(RSA) + wire.mpint(numbers.e) + wire.mpint(numbers.n)
    for kind, (name, curve, _) in _CURVES.items():
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == curve.name:
            point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return wire.string(kind) + wire.string(name) + wire.string(point)
    raise KeyFormatError(f"keys of the type {type(key).__name__} are not supported; supported are {', '.join(TYPES)}")


def dump_private(key: PrivateKey) -> bytes:
    """The record under which a private key is sealed in the store (see `load_private`)."""
    from cryptography.hazmat.primitives._serialization import Encoding, NoEncryption, PrivateFormat

    blob = public_blob(key)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return blob + wire.string(seed + blob[-32:])
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        public = numbers.public_numbers
        fields = (public.n, public.e, numbers.d, numbers.iqmp, numbers.p, numbers.q)
        return wire.string(RSA) + b"".join(wire.mpint(field) for field in fields)
    return blob + wire.mpint(key.private_numbers().private_value)


def load_private(record: bytes) -> PrivateKey:
    """The private key in a record of `dump_private`.

    Raises:
        KeyFormatError: malformed, or not a type of `TYPES`.
    """
    try:
        reader = wire.Reader(record)
        kind = reader.text()
        if kind == ED25519:
            public, private = reader.string(), reader.string()
            reader.end()
            if len(private) != 64 or private[32:] != public:
                raise KeyFormatError("a stored Ed25519 key does not match its public half")
            return ed25519.Ed25519PrivateKey.from_private_bytes(private[:32])
        if kind in _CURVES:
            reader.text()
            reader.string()
            value = reader.mpint()
            reader.end()
            return ec.derive_private_key(value, _CURVES[kind][1])
        if kind == RSA:
            n, e, d, iqmp, p, q = (reader.mpint() for _ in range(6))
            reader.end()
            public_numbers = rsa.RSAPublicNumbers(e, n)
            numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), iqmp, public_numbers)
            # the check takes seconds for a large key, and the record is sealed: it was checked when it was stored
            return numbers.private_key(unsafe_skip_rsa_key_validation=True)
    except (wire.WireError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, KeyFormatError):
            raise
        # the foreign text could quote the key
        raise KeyFormatError("a stored private key is malformed") from None
    raise KeyFormatError(f"keys of the type {kind[:64]!r} are not supported")
