"""The SQLite file below the store: who may use it, how it is opened, and what SQLite says in a sentence."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from ...supervisor.ground.errors import Exit, TerokError
from . import schema
from .light import sqlite3

if TYPE_CHECKING:
    from collections.abc import Sequence

BUSY_SECONDS = 5.0
"""How long a statement waits for another process's write transaction, which lasts milliseconds."""

_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""SQLite's words about a damaged file quote it, and Python then fails to decode them."""


class Duplicate(TerokError):
    """A row with this key is there already."""


class Database:
    """One connection; use `Database.open`. Every error of SQLite comes out as a TerokError that names the file."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str, *, create: bool, read_only: bool) -> Database:
        """See `Store.open`."""
        if create:
            _create(path)
        _check_file(path)
        uri = f"file:{_escape(path)}?mode={'ro' if read_only else 'rw'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=32)
        try:
            _prepare(connection, path, read_only=read_only)
        except _ERRORS as error:
            connection.close()
            raise TerokError(f"Could not open the vault {path}: {error}.") from error
        except BaseException:
            connection.close()
            raise
        return cls(path, connection)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query gives."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except _ERRORS as error:
            raise self._failed(error) from error

    def row(self, statement: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The one row that a query gives, or None."""
        rows = self.rows(statement, values)
        return rows[0] if rows else None

    def write(self, statement: str, values: Sequence[object] = ()) -> int:
        """Change something; returns how many rows."""
        try:
            return self._connection.execute(statement, values).rowcount
        except _ERRORS as error:
            raise self._failed(error) from error

    def __enter__(self) -> None:
        """Begin a transaction: the write lock is taken before the first read."""
        self.write("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        """COMMIT, or ROLLBACK on an exception. A COMMIT that fails (a full disk) is rolled back too."""
        try:
            if kind is None:
                self.write("COMMIT")
        finally:
            # some errors end the transaction by themselves (SQLite, "Response To Errors Within A Transaction")
            if self._connection.in_transaction:
                self.write("ROLLBACK")

    def _failed(self, error: Exception) -> TerokError:
        if isinstance(error, sqlite3.IntegrityError):
            return Duplicate(f"The vault {self.path} has this row already: {error}.")
        return TerokError(f"The vault {self.path} could not be used: {error}.")


def _create(path: str) -> None:
    """The file before SQLite sees it, so that it never exists with a wider mode; -wal and -shm inherit its mode."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        pass


def _check_file(path: str) -> None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        raise TerokError(
            f"There is no vault at {path}.", fix="terok vault add SCOPE PROVIDER", code=Exit.NOT_FOUND
        ) from None
    except OSError as error:
        raise TerokError(f"Could not open the vault {path}: {error.strerror}.") from error
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        raise TerokError(f"The vault {path} is not a regular file of yours.", code=Exit.REFUSED)
    if info.st_mode & 0o077:
        raise TerokError(f"The vault {path} can be read by others.", fix=f"chmod 600 {path}", code=Exit.REFUSED)


def _escape(path: str) -> str:
    """A path inside a file: URI (SQLite, "Uniform Resource Identifiers"): %, ? and # would end it."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _prepare(connection: sqlite3.Connection, path: str, *, read_only: bool) -> None:
    connection.execute("PRAGMA trusted_schema = OFF")
    if read_only:
        if schema.check(connection, path) != schema.VERSION:
            raise TerokError(f"The vault {path} was written by an older version.", fix="terok vault status")
        connection.execute("SELECT count(*) FROM settings").fetchone()
        return
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    # with WAL, only FULL syncs the log at each commit: a refresh token that was answered must survive a power cut
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON").fetchone()
    schema.migrate(connection, path)
