"""What the store hands out, and the error of a vault that has no key."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...supervisor.ground.errors import Exit, TerokError

UNLOCK_COMMAND = "terok vault unlock"


class LockedError(TerokError):
    """A secret was asked for and the vault has no usable data key; `fix` is the command that gives it one."""

    def __init__(self, what: str, *, fix: str = UNLOCK_COMMAND) -> None:
        super().__init__(what, fix=fix, code=Exit.LOCKED)


class Entry(NamedTuple):
    """One row of the store without its secret."""

    kind: str
    scope: str
    name: str
    meta: dict[str, Any]
    version: int
    updated: float


class Item(NamedTuple):
    """One row of the store with its secret; its repr never shows it."""

    kind: str
    scope: str
    name: str
    secret: bytes
    meta: dict[str, Any]
    version: int
    updated: float

    def __repr__(self) -> str:
        return f"Item({self.kind!r}, {self.scope!r}, {self.name!r}, version={self.version})"


class Authority(NamedTuple):
    """The certificate authority of one container (`vault/tls/authority.py` makes it); its repr never shows the key.

    Attributes:
        container: whose it is.
        hosts: the only names that its certificates may be for.
        root: the certificate that the container trusts, PEM; its key does not exist any more.
        intermediate: the certificate that signs leaves, PEM.
        key: the intermediate's private key, PEM.
        spare: private key and certificate for all of the hosts: what says that the vault is locked, when it is; PEM.
    """

    container: str
    hosts: tuple[str, ...]
    root: bytes
    intermediate: bytes
    key: bytes
    spare: bytes

    def __repr__(self) -> str:
        return f"Authority({self.container!r}, {self.hosts!r})"


class TokenInfo(NamedTuple):
    """One phantom token as the store knows it: `digest` is the SHA-256 of the token, which is not kept."""

    digest: bytes
    container: str
    scope: str
    provider: str
    created: float
