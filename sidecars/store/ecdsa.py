"""ECDSA for confined processes: the signature scheme's object without what its own constructor loads.

`ec.ECDSA()` asks OpenSSL's backend about deterministic signatures, which nothing here makes. That import is 0.7 MB and
4 ms, and a process under Landlock can no longer read it.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


class Ecdsa(ec.ECDSA):
    """ECDSA with this hash and a random nonce (FIPS 186-5, section 6.4)."""

    def __init__(self, algorithm: hashes.HashAlgorithm) -> None:
        self._hash = algorithm

    @property
    def algorithm(self) -> hashes.HashAlgorithm:
        """The hash of what is signed."""
        return self._hash

    @property
    def deterministic_signing(self) -> bool:
        """Never."""
        return False
