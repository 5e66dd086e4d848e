"""The tables of vault.db, and the steps from each older version to the current one.

`PRAGMA user_version` says which version a file has. A step is a tuple of statements; all missing steps run in one
transaction, so a crash leaves the old version whole. A file that is newer than this program is refused.
"""

from __future__ import annotations

import sqlite3

from ...supervisor.errors import TerokError

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


def check(connection: sqlite3.Connection, path: str) -> int:
    """The file's version; TerokError when a newer program wrote it or it is no vault."""
    found = version_of(connection)
    if found > VERSION:
        raise TerokError(
            f"{path} has schema version {found}; this program knows versions up to {VERSION}.",
            fix="use the terok that wrote it, or a newer one",
        )
    if found and int(connection.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
        raise TerokError(f"{path} is an SQLite file of another program.")
    return found


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to the current version in one transaction; does nothing when it is there.

    Raises:
        TerokError: it is newer than this program.
    """
    if check(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in STEPS[check(connection, path) :]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
