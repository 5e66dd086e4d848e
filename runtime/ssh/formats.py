"""Key files and known_hosts: everything that takes a format library, which the signer's process never loads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ...sidecars.ssh import keys
from ...supervisor.ground.errors import Exit, TerokError

if TYPE_CHECKING:
    from collections.abc import Callable

FILE_MAX = 64 << 10
RSA_BITS = 3072
GENERATED = ("ed25519", "ecdsa-256", "ecdsa-384", "ecdsa-521", "rsa")
"""What `terok ssh generate --type` makes."""

SECURITY_KEY = (
    "It is a security key (FIDO): its private half is in the hardware, which has to be plugged in and touched. "
    "The signer holds private keys itself and serves containers while the operator is away"
)


def generate(kind: str, bits: int = RSA_BITS) -> keys.PrivateKey:
    """A new private key of a type in `GENERATED`; `bits` is for RSA only."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        if not keys.RSA_BITS_MIN <= bits <= keys.RSA_BITS_MAX:
            raise TerokError(
                f"An RSA key of {bits} bits is not allowed: {keys.RSA_BITS_MIN} to {keys.RSA_BITS_MAX} are accepted.",
                fix="use --type ed25519, or --bits 3072",
                code=Exit.USAGE,
            )
        return rsa.generate_private_key(65537, bits)
    curve: dict[str, ec.EllipticCurve] = {
        "ecdsa-256": ec.SECP256R1(),
        "ecdsa-384": ec.SECP384R1(),
        "ecdsa-521": ec.SECP521R1(),
    }
    return ec.generate_private_key(curve[kind])


def read_file(path: str) -> bytes:
    """The bytes of a key file; TerokError when it cannot be read or is no key file by its size."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise TerokError(f"The key file {path} could not be read: {error.strerror}.", code=Exit.USAGE) from None
    if len(data) > FILE_MAX:
        raise TerokError(f"{path} is larger than {FILE_MAX >> 10} KiB, so it is not a key file.", code=Exit.USAGE)
    return data


def load_private(data: bytes, ask: Callable[[], str]) -> keys.PrivateKey:
    """The private key in a file, OpenSSH's format or PEM (PKCS#1, SEC 1, PKCS#8), encrypted or not.

    Args:
        data: the file's bytes.
        ask: called when the file is encrypted; returns the passphrase.

    Raises:
        TerokError: it is no private key, the passphrase is wrong, or the type is not served.
    """
    if data.lstrip().startswith((b"ssh-", b"ecdsa-", b"sk-")):
        raise TerokError("This file is a public key.", fix="use the file without .pub", code=Exit.USAGE)
    if b"sk-ssh-ed25519" in data or b"sk-ecdsa" in data or _names_security_key(data):
        raise TerokError(f"The key was not imported. {SECURITY_KEY}.", code=Exit.REFUSED)
    passphrase: bytes | None = None
    for _ in range(2):
        try:
            return _checked(_parse(data, passphrase))
        except TypeError as error:
            # cryptography's way to say: encrypted and no passphrase given, or the other way round
            if passphrase is not None:
                raise TerokError(f"The key could not be read: {error}.", code=Exit.USAGE) from None
            passphrase = ask().encode()
        except (ValueError, UnsupportedAlgorithm) as error:
            if passphrase is not None:
                raise TerokError("The key could not be read: the passphrase is wrong.", code=Exit.USAGE) from None
            raise TerokError(f"This is not a private key that terok can read: {error}.", code=Exit.USAGE) from None
    raise AssertionError("unreachable")


def _parse(data: bytes, passphrase: bytes | None) -> object:
    if b"BEGIN OPENSSH PRIVATE KEY" in data:
        return serialization.load_ssh_private_key(data, passphrase)
    return serialization.load_pem_private_key(data, passphrase)


def _checked(key: object) -> keys.PrivateKey:
    if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise TerokError(
            f"Keys of the type {type(key).__name__} are not supported; supported are {', '.join(keys.TYPES)}.",
            code=Exit.USAGE,
        )
    return key


def _names_security_key(data: bytes) -> bool:
    """Whether an OpenSSH key file's public half, which is never encrypted, is of a security-key type."""
    import base64
    import binascii

    body = b"".join(line for line in data.splitlines() if not line.startswith(b"-----"))
    try:
        return b"sk-" in base64.b64decode(body)[:512]
    except binascii.Error:
        return False


def dump_private(key: keys.PrivateKey, passphrase: str | None) -> bytes:
    """The key as an OpenSSH private key file, encrypted when a passphrase is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption)


def write_private(path: str, data: bytes) -> None:
    """Write a private key file, 0600, never over another file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TerokError(f"{path} could not be created: {error.strerror}.", code=Exit.USAGE) from None
    with open(fd, "wb") as file:
        file.write(data)


def comment_of(path: str) -> str:
    """The comment in `PATH.pub`, where ssh-keygen keeps it for every format; empty when there is none."""
    try:
        with open(f"{path}.pub", encoding="utf-8", errors="replace") as file:
            words = file.readline(FILE_MAX).split(None, 2)
    except OSError:
        return ""
    comment = words[2].strip() if len(words) == 3 else ""
    return comment if comment.isprintable() else ""
