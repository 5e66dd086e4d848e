"""The tables of vault.db, and the steps from each older version to the current one.

`PRAGMA user_version` says which version a file has. A step is a tuple of statements; all missing steps run in one
transaction, so a crash leaves the old version whole. A file that is newer than this program is refused.
"""

from __future__ import annotations

from ...supervisor.ground.errors import TerokError
from .light import sqlite3

APPLICATION_ID = 0x7465726B  # "terk", shown by file(1)

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE tiers (name TEXT PRIMARY KEY, wrapped BLOB NOT NULL, parameters TEXT NOT NULL,"
        " created REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE items (kind TEXT NOT NULL, scope TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,"
        " sealed BLOB NOT NULL, meta TEXT NOT NULL, updated REAL NOT NULL, PRIMARY KEY (kind, scope, name))",
        "CREATE TABLE tokens (digest BLOB PRIMARY KEY, container TEXT NOT NULL, scope TEXT NOT NULL,"
        " provider TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID",
        "CREATE INDEX tokens_by_container ON tokens (container)",
    ),
)
VERSION = len(STEPS)


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version of an open file; 0: it has no tables yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check(connection: sqlite3.Connection, path: str, *, version: int = VERSION) -> int:
    """The file's version.

    Args:
        version: the newest that the program knows.

    Raises:
        TerokError: a newer program wrote the file, or it is no vault.
    """
    present = version_of(connection)
    if present > version:
        raise TerokError(
            f"{path} has schema version {present}; this program knows versions up to {version}.",
            fix="use the terok that wrote it, or a newer one",
        )
    if present and int(connection.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
        raise TerokError(f"{path} is an SQLite file of another program.")
    return present


def migrate(connection: sqlite3.Connection, path: str, *, steps: tuple[tuple[str, ...], ...] = STEPS) -> None:
    """Bring the file to the current version in one transaction; does nothing when it is there.

    Args:
        steps: how each version is made from the one before.

    Raises:
        TerokError: it is newer than this program.
    """
    version = len(steps)
    if check(connection, path, version=version) == version:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # another process may have done it while this one waited for the lock
        for step in steps[check(connection, path, version=version) :]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
