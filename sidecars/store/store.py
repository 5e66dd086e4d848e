"""The sealed store: one SQLite file that the operator's programs and every sidecar share.

Rules of this file:

- Secrets are sealed under the data key with (kind, scope, name, version) as associated data: a sealed value that is put
  into another row, or into a row that says another version, does not open. A whole row, or the whole file, put back as
  it once was does open: nothing outside of the file remembers what was last. `meta` is plain JSON and is not
  authenticated: it never holds a secret. Only the operator can write the file.
- Describing, setting meta and everything about tokens needs no key.
- WAL: a reader never waits for a writer. SQLite's readers need `vault.db-wal` and `vault.db-shm` beside the file, and
  the last connection that closes deletes them. So a confined sidecar opens the store **before** it confines itself,
  with `read_only=True`: `open` reads once, which opens all three descriptors, and these keep working under Landlock for
  as long as the connection lives (a writer that closes sees the reader's lock and leaves the files).
  A sidecar needs no Landlock rule for the store. It must not fork with an open store, and keeps one connection.
- `changes()` is one pragma that reads no table: call it per request, and reread tokens and credentials when it moved.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from ...supervisor.ground.errors import Exit, TerokError
from .database import Database, Duplicate
from .records import Authority, Entry, Item, LockedError, TokenInfo
from .schema import APPLICATION_ID
from .seal import SealBroken, Sealer
from .tokens import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SECRET_MAX = 1 << 20
"""Bytes of one secret; a login's JSON has a few KiB."""

AUTHORITY = "authority"
"""The kind of the rows that hold containers' certificate authorities; they belong to no scope."""
_AUTHORITY = ("root", "intermediate", "key", "spare")

_CHECK = ("terok check", APPLICATION_ID)
_COLUMNS = "CAST(kind AS TEXT), CAST(scope AS TEXT), CAST(name AS TEXT), meta, version, updated"


class Store:
    """One connection to the vault's database; use `Store.open`.

    Attributes:
        path: the database file.
        locked: True until `unlock` was given the right key.
    """

    def __init__(self, database: Database) -> None:
        self.path = database.path
        self._db = database
        self._sealer: Sealer | None = None
        self._lock_count = self.setting("locks")

    def __repr__(self) -> str:
        return f"Store({self.path!r}, {'locked' if self.locked else 'unlocked'})"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def open(cls, path: str, *, create: bool = False, read_only: bool = False) -> Store:
        """Open the database.

        Args:
            path: absolute path of `vault.db`.
            create: make the file (0600) and its directory (0700) when missing, without any key yet.
            read_only: never write; for sidecars. An older schema is then refused, not migrated.

        Raises:
            TerokError: it is missing (NOT_FOUND), readable by others, newer than this program, or not a database.
        """
        database = Database.open(path, create=create, read_only=read_only)
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the file and forget the data key."""
        self._sealer = None
        self._db.close()

    # -- the data key --

    @property
    def locked(self) -> bool:
        """True while secrets can neither be read nor written through this object."""
        return self._sealer is None

    def unlock(self, data_key: bytes) -> None:
        """Use `data_key` from now on.

        Raises:
            LockedError: the vault has no key yet, or this is not its key.
        """
        check = self.setting("check")
        if check is None:
            raise LockedError("The vault has no key yet.", fix="terok vault add SCOPE PROVIDER")
        try:
            sealer = Sealer(data_key)
            sealer.open(_CHECK, check)
        except SealBroken:
            raise LockedError("The key that was found is not the vault's data key.") from None
        self._sealer = sealer
        self._lock_count = self.setting("locks")

    def lock(self) -> None:
        """Forget the data key in this object."""
        self._sealer = None

    def initialise(self, data_key: bytes) -> None:
        """Give a new vault its data key, once.

        Raises:
            TerokError: it has one already.
        """
        sealer = Sealer(data_key)
        with self._db:
            if self.setting("check") is not None:
                raise TerokError("The vault has a data key already.")
            self.set_setting("check", sealer.seal(_CHECK, b""))
        self._sealer = sealer

    def was_locked_elsewhere(self) -> bool:
        """True when `terok vault lock` ran since this object was unlocked (`keys.ensure_unlocked` acts on it)."""
        return self.setting("locks") != self._lock_count

    def hold(self) -> None:
        """Tell every process that uses this vault to forget the data key, and to use no key file until `release`."""
        with self._db:
            count = self.setting("locks") or b"0"
            self.set_setting("locks", b"%d" % (int(count) + 1 if count.isdigit() else 1))
            self.set_setting("held", b"1")

    def release(self) -> None:
        """Take `hold` back: key files open the vault again."""
        with self._db:
            self._db.write("DELETE FROM settings WHERE name = 'held'")

    def is_held(self) -> bool:
        """True between `hold` and `release`: the operator locked the vault."""
        return self.setting("held") is not None

    def _need_key(self) -> Sealer:
        if self._sealer is None:
            raise LockedError("The vault is locked.")
        return self._sealer

    def seal(self, identity: Iterable[str | int], value: bytes) -> bytes:
        """Seal something that is kept outside of the tables; LockedError without the key."""
        return self._need_key().seal(identity, value)

    def open_sealed(self, identity: Iterable[str | int], sealed: bytes) -> bytes:
        """Open what `seal` gave.

        Raises:
            LockedError: no key.
            SealBroken: another identity, or changed bytes.
        """
        return self._need_key().open(identity, sealed)

    # -- items --

    def put(self, kind: str, scope: str, name: str, secret: bytes, meta: Mapping[str, object]) -> None:
        """Seal `secret` as the next version of its row, durably: the call returns after fsync(2).

        Args:
            kind: "credential", "ssh-key" or "gate".
            scope, name: the rest of the identity; see `docs/vault.md` for what each kind puts there.
            meta: JSON-serialisable facts that are no secret; replaces what was there.

        Raises:
            LockedError: no key.
            TerokError: the secret is longer than 1 MiB.
        """
        sealer = self._need_key()
        if len(secret) > SECRET_MAX:
            raise TerokError(
                f"The secret for {name} has {len(secret)} bytes; the limit is {SECRET_MAX}.", code=Exit.USAGE
            )
        with self._db:
            row = self._db.row(
                "SELECT version FROM items WHERE kind = ? AND scope = ? AND name = ?", (kind, scope, name)
            )
            # a version that another program wrote into the row counts for nothing
            version = row[0] + 1 if row and _is_version(row[0]) else 1
            sealed = sealer.seal(_identity(kind, scope, name, version), secret)
            self._db.write(
                "INSERT OR REPLACE INTO items (kind, scope, name, version, sealed, meta, updated)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (kind, scope, name, version, sealed, json.dumps(dict(meta)), time.time()),
            )

    def get(self, kind: str, scope: str, name: str) -> Item | None:
        """The row with its secret, or None when there is none.

        Raises:
            LockedError: no key.
            TerokError: the row does not open: it was changed or moved.
        """
        sealer = self._need_key()
        row = self._db.row(
            f"SELECT {_COLUMNS}, CAST(sealed AS BLOB) FROM items WHERE kind = ? AND scope = ? AND name = ?",
            (kind, scope, name),
        )
        if row is None:
            return None
        entry = _entry(row[:6])
        try:
            secret = sealer.open(_identity(kind, scope, name, entry.version), row[6])
        except SealBroken:
            raise _changed(kind, scope, name) from None
        return Item(kind, scope, name, secret, entry.meta, entry.version, entry.updated)

    def describe(self, kind: str | None = None, scope: str | None = None) -> list[Entry]:
        """Rows without their secrets, in order of kind, scope and name; needs no key.

        Args:
            kind, scope: only these; None means any that the operator added: no authority.
        """
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM items WHERE (kind = ?1 OR (?1 IS NULL AND kind <> ?3))"
            " AND (?2 IS NULL OR scope = ?2) ORDER BY kind, scope, name",
            (kind, scope, AUTHORITY),
        )
        return [_entry(row) for row in rows]

    def set_meta(self, kind: str, scope: str, name: str, meta: Mapping[str, object]) -> None:
        """Replace a row's meta and leave its secret and version; needs no key.

        Raises:
            TerokError: there is no such row.
        """
        with self._db:
            changed = self._db.write(
                "UPDATE items SET meta = ?, updated = ? WHERE kind = ? AND scope = ? AND name = ?",
                (json.dumps(dict(meta)), time.time(), kind, scope, name),
            )
            if changed == 0:
                raise TerokError(f"The vault has no {kind} {scope}/{name}.", code=Exit.NOT_FOUND)

    def remove(self, kind: str, scope: str, name: str) -> bool:
        """Delete a row and overwrite its bytes; True when there was one. Needs no key."""
        with self._db:
            removed = self._db.write("DELETE FROM items WHERE kind = ? AND scope = ? AND name = ?", (kind, scope, name))
        # the write-ahead log still holds the row's old pages until a checkpoint
        self._db.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        return removed > 0

    # -- phantom tokens --

    def add_token(self, token: str, *, container: str, scope: str, provider: str) -> None:
        """Remember a phantom token by its SHA-256; needs no key. The same token twice is a TerokError."""
        try:
            with self._db:
                self._db.write(
                    "INSERT INTO tokens (digest, container, scope, provider, created) VALUES (?, ?, ?, ?, ?)",
                    (digest(token), container, scope, provider, time.time()),
                )
        except Duplicate:
            raise TerokError(f"A token for {provider} was given to {container} already.") from None

    def tokens(self, container: str) -> list[TokenInfo]:
        """Every token of one container; needs no key."""
        rows = self._db.rows(
            "SELECT digest, container, scope, provider, created FROM tokens WHERE container = ?"
            " ORDER BY provider, created",
            (container,),
        )
        return [TokenInfo(*row) for row in rows]

    def token_digests(self) -> set[bytes]:
        """The SHA-256 of every container's phantom tokens; needs no key."""
        return {row[0] for row in self._db.rows("SELECT digest FROM tokens")}

    def revoke(self, container: str) -> int:
        """Forget every token of one container; returns how many there were."""
        with self._db:
            return self._db.write("DELETE FROM tokens WHERE container = ?", (container,))

    # -- authorities of containers --

    def put_authority(self, container: str, authority: Authority) -> None:
        """Seal the authority of a container, in place of the one that it had; raises LockedError without the key."""
        sealed = {name: getattr(authority, name).decode("ascii") for name in _AUTHORITY}
        # the certificates stand in the secret too: what is not authenticated must not decide what a container trusts
        secret = json.dumps({**sealed, "hosts": authority.hosts}).encode()
        self.put(AUTHORITY, "", container, secret, {"hosts": authority.hosts, "root": sealed["root"]})

    def authority(self, container: str) -> Authority | None:
        """The authority of a container, or None when it has none.

        Raises:
            LockedError: no key.
            TerokError: it was changed outside of terok.
        """
        item = self.get(AUTHORITY, "", container)
        if item is None:
            return None
        try:
            fields = json.loads(item.secret)
            parts = (fields[name].encode("ascii") for name in _AUTHORITY)
            return Authority(container, tuple(fields["hosts"]), *parts)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _changed(AUTHORITY, "", container) from None

    def root_certificate(self, container: str) -> bytes | None:
        """The certificate (PEM) that a container trusts, for showing it; None without one. Needs no key."""
        entries = [entry for entry in self.describe(AUTHORITY) if entry.name == container]
        return str(entries[0].meta.get("root", "")).encode() if entries else None

    def drop_authority(self, container: str) -> bool:
        """Delete the authority of a container: nothing is signed with it any more; True when there was one."""
        return self.remove(AUTHORITY, "", container)

    # -- settings and tiers --

    def setting(self, name: str) -> bytes | None:
        """A value of the vault itself, or None."""
        row = self._db.row("SELECT CAST(value AS BLOB) FROM settings WHERE name = ?", (name,))
        return row[0] if row else None

    def set_setting(self, name: str, value: bytes) -> None:
        """Set a value of the vault itself."""
        self._db.write("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, value))

    def tiers(self) -> dict[str, tuple[bytes, dict[str, object]]]:
        """Unlock tiers: name -> (wrapped data key, parameters); `keys` gives them their meaning.

        Parameters that were damaged are empty: such a tier opens nothing, and the others go on.
        """
        rows = self._db.rows("SELECT CAST(name AS TEXT), CAST(wrapped AS BLOB), parameters FROM tiers ORDER BY name")
        return {name: (wrapped, _object(parameters) or {}) for name, wrapped, parameters in rows}

    def set_tier(self, name: str, wrapped: bytes, parameters: Mapping[str, object]) -> None:
        """Add or replace one tier."""
        with self._db:
            self._db.write(
                "INSERT OR REPLACE INTO tiers (name, wrapped, parameters, created) VALUES (?, ?, ?, ?)",
                (name, wrapped, json.dumps(dict(parameters)), time.time()),
            )

    def remove_tier(self, name: str) -> bool:
        """Remove one tier; True when there was one."""
        with self._db:
            return self._db.write("DELETE FROM tiers WHERE name = ?", (name,)) > 0

    def changes(self) -> int:
        """A number that moves when another connection committed a change (PRAGMA data_version)."""
        return int(self._db.rows("PRAGMA data_version")[0][0])


def _identity(kind: str, scope: str, name: str, version: int) -> Iterator[str | int]:
    return iter(("terok item", kind, scope, name, version))


def _entry(row: tuple[Any, ...]) -> Entry:
    kind, scope, name, meta, version, updated = row
    facts = _object(meta)
    # a column of SQLite holds values of any type, whatever the table says
    if facts is None or not _is_version(version) or not isinstance(updated, int | float):
        raise _changed(kind, scope, name)
    return Entry(kind, scope, name, facts, version, updated)


def _is_version(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _object(text: Any) -> dict[str, object] | None:
    """A JSON object; None when the text is none."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _changed(kind: str, scope: str, name: str) -> TerokError:
    return TerokError(
        f"The vault's row {kind}/{scope}/{name} does not open: it was changed outside of terok.",
        fix="add it again, or restore vault.db from a backup",
    )
