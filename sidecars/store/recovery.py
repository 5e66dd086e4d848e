"""The recovery key: 160 random bits that a person can write down, shown once, kept nowhere.

It is written as nine groups of four characters of base32 (RFC 4648): eight of key, one of checksum.
"""

from __future__ import annotations

import base64
import os

from ...supervisor.ground.errors import Exit, TerokError
from .light import sha256

RECOVERY_TIER = "recovery"
_SIZE = 20
_CHECK = 4  # characters of checksum: a slip of the pen is told from a wrong key


def new_recovery_key() -> str:
    """A fresh one, as it is shown."""
    text = base64.b32encode(os.urandom(_SIZE)).decode()
    text += _checksum(text)
    return "-".join(text[index : index + 4] for index in range(0, len(text), 4))


def recovery_kek(written: str) -> bytes:
    """The wrapping key of what a person typed; case, spaces and dashes do not matter.

    Raises:
        TerokError: it has a wrong length or a typing error.
    """
    text = "".join(written.upper().split()).replace("-", "").replace("0", "O").replace("1", "I").replace("8", "B")
    key, check = text[:-_CHECK], text[-_CHECK:]
    if len(text) != _SIZE * 8 // 5 + _CHECK or check != _checksum(key):
        raise TerokError(
            "That is not a recovery key: it has nine groups of four characters, and the last one checks the others.",
            code=Exit.USAGE,
        )
    return sha256(b"terok recovery key v1\0" + key.encode()).digest()


def _checksum(key: str) -> str:
    return base64.b32encode(sha256(b"terok recovery check\0" + key.encode()).digest())[:_CHECK].decode()
