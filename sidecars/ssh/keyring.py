"""The scope's keys, as the store has them now: reread when the store changed, opened when the vault is unlocked."""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import NamedTuple

from ...supervisor.ground import paste
from ...supervisor.ground.errors import TerokError
from ..store.keys import LockedError, ensure_unlocked
from ..store.light import sqlite3
from . import keys, policy
from .settings import KIND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..store.records import Entry
    from ..store.store import Store


class Unavailable(Exception):
    """A key cannot be used now; the text is for the audit, `allow` says what helps."""

    def __init__(self, reason: str, allow: str = "") -> None:
        super().__init__(reason)
        self.allow = allow


class Identity(NamedTuple):
    """One key of the scope without its secret.

    kind: the key's type.
    policy: None when it is not understood; `problem` says why then.
    """

    name: str
    blob: bytes
    kind: str
    comment: str
    version: int
    policy: policy.Policy | None
    problem: str


class Keyring:
    """The keys of one scope.

    Args:
        store: the open vault; None when there is none.
        key_files: where the data key may be.
        scope: whose keys; None has none.
        defaults: policy fields for keys that do not say otherwise.
    """

    def __init__(
        self, store: Store | None, key_files: Sequence[str], scope: str | None, defaults: dict[str, object]
    ) -> None:
        self._store, self._key_files = store, key_files
        self._scope, self._defaults = scope, defaults
        self._seen = -1
        self._identities: dict[bytes, Identity] = {}
        self._signers: dict[tuple[str, int], keys.Signer] = {}

    def __repr__(self) -> str:
        return f"Keyring(scope={self._scope!r}, keys={len(self._identities)}, open={len(self._signers)})"

    def refresh(self) -> dict[bytes, Identity]:
        """The keys by their public blob, the scope's default first; cheap while nothing has changed.

        Raises:
            Unavailable: the vault is locked, missing, or cannot be read.
        """
        store = self._store
        if store is None:
            raise Unavailable(
                "there is no vault", f"terok ssh generate NAME --scope {paste.quoted(self._scope or 'SCOPE')}"
            )
        try:
            changes = store.changes()
            if changes != self._seen or store.locked:
                ensure_unlocked(store, self._key_files)
                entries = store.describe(KIND, "")
                self._identities = self._select(entries)
                current = {(identity.name, identity.version) for identity in self._identities.values()}
                self._signers = {name: signer for name, signer in self._signers.items() if name in current}
                self._seen = changes
        except LockedError as error:
            self._identities, self._signers, self._seen = {}, {}, -1
            raise Unavailable(error.what, error.fix) from None
        except (TerokError, sqlite3.Error) as error:
            raise Unavailable(f"the vault could not be read: {error}") from None
        return self._identities

    def _select(self, entries: list[Entry]) -> dict[bytes, Identity]:
        mine = [entry for entry in entries if self._scope is not None and self._scope in entry.meta.get("scopes", ())]
        mine.sort(key=lambda entry: (self._scope not in entry.meta.get("default", ()), entry.name))
        return {identity.blob: identity for identity in map(self._identity, mine) if identity.blob}

    def _identity(self, entry: Entry) -> Identity:
        problem, chosen = "", None
        try:
            own = entry.meta.get("policy", {}).get(self._scope, {})
            chosen = policy.parse({**self._defaults, **own})
        except (policy.PolicyError, AttributeError, TypeError) as error:
            problem = f"the key's policy is not understood: {error}"
        comment = str(entry.meta.get("comment", "")) or entry.name
        blob = public_of(entry.meta)
        return Identity(entry.name, blob, keys.kind_of(blob), comment, entry.version, chosen, problem)

    def signer(self, identity: Identity) -> keys.Signer:
        """The private key of `identity`, opened once and kept while the vault stays unlocked.

        Raises:
            Unavailable: its row does not open or does not hold this key.
        """
        opened = self._signers.get((identity.name, identity.version))
        if opened is not None:
            return opened
        assert self._store is not None
        try:
            item = self._store.get(KIND, "", identity.name)
            if item is None:
                raise Unavailable("the key was removed")
            signer = keys.Signer(keys.load_private(item.secret))
        except (TerokError, sqlite3.Error, keys.KeyFormatError) as error:
            raise Unavailable(f"the key could not be opened: {error}") from None
        if signer.blob != identity.blob:
            raise Unavailable("the vault's row holds another key than it says")
        self._signers[identity.name, identity.version] = signer
        return signer


def public_of(meta: dict[str, object]) -> bytes:
    """The public blob that a key's meta describes; empty when it describes none."""
    words = str(meta.get("public", "")).split()
    try:
        return a2b_base64(words[1]) if len(words) >= 2 else b""
    except Base64Error:
        return b""
