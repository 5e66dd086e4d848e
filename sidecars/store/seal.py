"""Sealing: AES-256-GCM under a 32-byte key, with the identity of what is sealed as associated data.

A sealed value is `version byte, 12-byte nonce, ciphertext, 16-byte tag` (NIST SP 800-38D). Nonces are random: one key
may seal 2^32 values before a collision is likely enough to matter, which no vault reaches.
The identity is encoded with each field's length before it, so no two identities give the same bytes.
`cryptography` is imported when the first key is used: a process that only describes or checks tokens never pays for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY_SIZE = 32
_FORMAT = b"\x01"
_NONCE_SIZE = 12
_TAG_SIZE = 16


class SealBroken(Exception):
    """The key is wrong, or the value was changed or moved to another identity."""


class Sealer:
    """Seals and opens values under one key, which stays in this object.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise SealBroken(f"a key has {KEY_SIZE} bytes, not {len(key)}")
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aead = AESGCM(key)

    def __repr__(self) -> str:
        return "Sealer(...)"

    def seal(self, identity: Iterable[str | int], value: bytes) -> bytes:
        """Seal `value` so that it opens only for the same identity."""
        nonce = os.urandom(_NONCE_SIZE)
        return _FORMAT + nonce + bytes(self._aead.encrypt(nonce, value, encode(identity)))

    def open(self, identity: Iterable[str | int], sealed: bytes) -> bytes:
        """Open what `seal` gave.

        Raises:
            SealBroken: wrong key, wrong identity, or changed bytes; the three cannot be told apart.
        """
        from cryptography.exceptions import InvalidTag

        if sealed[:1] != _FORMAT or len(sealed) < 1 + _NONCE_SIZE + _TAG_SIZE:
            raise SealBroken("not a sealed value of a format that this version knows")
        try:
            return bytes(self._aead.decrypt(sealed[1 : 1 + _NONCE_SIZE], sealed[1 + _NONCE_SIZE :], encode(identity)))
        except InvalidTag:
            raise SealBroken("the key is wrong or the sealed value was changed or moved") from None


def encode(identity: Iterable[str | int]) -> bytes:
    """Unambiguous bytes of an identity: each field as a type byte, its length in 4 bytes, its bytes."""
    parts = []
    for field in identity:
        data = field.encode() if isinstance(field, str) else field.to_bytes(8, "big")
        parts.append((b"s" if isinstance(field, str) else b"i") + len(data).to_bytes(4, "big") + data)
    return b"".join(parts)
