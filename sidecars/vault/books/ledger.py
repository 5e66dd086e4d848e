"""What was used, by scope, container, provider and day; and the limits on it. One small SQLite file for all vaults.

A vault counts in memory and writes a moment later, so the relay never waits for the disk: a process that is killed
loses the last second's counts. Limits are compared with what is written plus what is in memory.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ...store.light import sqlite3

FIELDS = ("requests", "bytes_in", "bytes_out", "input_tokens", "output_tokens", "cached_tokens")
PERIODS = {"hour": 3600, "day": 86400}
"""Periods of limits, in seconds of UTC."""
MODEL_FIELDS = ("input_tokens", "output_tokens", "cached_tokens", "written_tokens")
MODELS_MAX = 64
"""Models that one vault tells apart; an upstream names them. What comes further is counted as `OTHER_MODEL`."""
OTHER_MODEL = ""
LOOK_SECONDS = 1.0
"""How long a limit, or what other containers of the scope used, may be known late."""
_OPEN_SECONDS, _BUSY_SECONDS = 5.0, 0.05
"""How long another process's write is waited for: while opening, and in the loop, which must not stand still."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS usage (
  scope TEXT, container TEXT, provider TEXT, hour INTEGER, {" INTEGER NOT NULL, ".join(FIELDS)} INTEGER NOT NULL,
  PRIMARY KEY (scope, container, provider, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS limits (
  scope TEXT PRIMARY KEY, period TEXT NOT NULL, requests INTEGER, tokens INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS models (
  scope TEXT, container TEXT, provider TEXT, model TEXT, hour INTEGER,
  {" INTEGER NOT NULL, ".join(MODEL_FIELDS)} INTEGER NOT NULL,
  PRIMARY KEY (scope, container, provider, model, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS declined (
  scope TEXT PRIMARY KEY, start INTEGER NOT NULL, period TEXT NOT NULL, requests INTEGER, tokens INTEGER) WITHOUT ROWID;
"""
_TABLES = {"usage", "limits", "models", "declined"}


class Limit(NamedTuple):
    """At most so many requests and tokens (input and output) of a scope in one `period`; None: no limit."""

    scope: str
    period: str
    requests: int | None
    tokens: int | None

    def exceeded(self, requests: int, tokens: int) -> bool:
        """Whether so many requests and tokens are all that it allows."""
        return (self.requests is not None and requests >= self.requests) or (
            self.tokens is not None and tokens >= self.tokens
        )


class Row(NamedTuple):
    """What one container used of one provider."""

    scope: str
    container: str
    provider: str
    requests: int
    bytes_in: int
    bytes_out: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int


class ModelRow(NamedTuple):
    """Tokens that one container used of one model, as the upstream names it; `OTHER_MODEL` when it does not."""

    scope: str
    container: str
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    written_tokens: int


class Reached(NamedTuple):
    """A limit that is reached, what was used of it, and when its period ends (Unix seconds)."""

    limit: Limit
    requests: int
    tokens: int
    until: int


class Ledger:
    """The file, opened for reading and writing; made when missing.

    Args:
        path: `Layout.vault_usage`.
        read_only: it is only read; it must exist, and no other process is held up.

    Raises:
        sqlite3.Error: it cannot be opened, or is no database.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        if not read_only:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        self._db = _reader(path) if read_only else sqlite3.connect(path, isolation_level=None, timeout=_OPEN_SECONDS)
        try:
            self._look_for_tables(path) if read_only else self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _look_for_tables(self, path: str) -> None:
        names = self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        if not {name for (name,) in names} >= _TABLES:  # a vault of an older version has written it
            self._db.close()
            Ledger(path).close()
            self._db = _reader(path)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # counts, no secrets: after a power cut the last seconds may be missing
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)
        # the first write opens the files that later ones need, which a confined process cannot
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("COMMIT")
        self._db.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}").fetchall()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        counts: dict[tuple[str, str, str, int], list[int]],
        models: dict[tuple[str, str, str, str, int], list[int]] | None = None,
    ) -> None:
        """Add counts, by (scope, container, provider, hour) in the order of `FIELDS`.

        Args:
            counts: the counts.
            models: tokens, by (scope, container, provider, model, hour) in the order of `MODEL_FIELDS`.

        Raises:
            sqlite3.OperationalError: another process writes; nothing was added.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(_adding("usage", 4, FIELDS), [(*key, *values) for key, values in counts.items()])
            self._db.executemany(
                _adding("models", 5, MODEL_FIELDS), [(*key, *values) for key, values in (models or {}).items()]
            )
        except sqlite3.Error:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def rows(self, *, since: float = 0.0, scope: str | None = None) -> list[Row]:
        """What was used since a time (Unix seconds, by whole hours)."""
        sums = ", ".join(f"SUM({field})" for field in FIELDS)
        rows = self._db.execute(
            f"SELECT scope, container, provider, {sums} FROM usage WHERE hour >= ?1 AND (?2 IS NULL OR scope = ?2)"
            " GROUP BY scope, container, provider ORDER BY scope, container, provider",
            (int(since) // 3600, scope),
        )
        return [Row(*row) for row in rows]

    def models(self, *, since: float = 0.0) -> list[ModelRow]:
        """Tokens by model since a time (Unix seconds, by whole hours)."""
        sums = ", ".join(f"SUM({field})" for field in MODEL_FIELDS)
        rows = self._db.execute(
            f"SELECT scope, container, provider, model, {sums} FROM models WHERE hour >= ?"
            " GROUP BY scope, container, provider, model ORDER BY scope, container, provider, model",
            (int(since) // 3600,),
        )
        return [ModelRow(*row) for row in rows]

    def used(self, scope: str, period: str, now: float) -> tuple[int, int]:
        """Requests and tokens of a scope in the running period."""
        first = period_start(period, now) // 3600
        row = self._db.execute(
            "SELECT SUM(requests), SUM(input_tokens + output_tokens) FROM usage WHERE scope = ? AND hour >= ?",
            (scope, first),
        ).fetchone()
        return int(row[0] or 0), int(row[1] or 0)

    def limit(self, scope: str) -> Limit | None:
        """The limit of a scope."""
        row = self._db.execute(
            "SELECT scope, period, requests, tokens FROM limits WHERE scope = ?", (scope,)
        ).fetchone()
        return Limit(*row) if row else None

    def set_limit(self, limit: Limit) -> None:
        """Set a scope's limit; with neither requests nor tokens it has none."""
        if limit.period not in PERIODS:
            raise ValueError(f"a period is one of {', '.join(PERIODS)}")
        if limit.requests is None and limit.tokens is None:
            self._db.execute("DELETE FROM limits WHERE scope = ?", (limit.scope,))
        else:
            self._db.execute("INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?)", limit)

    def reached(self, now: float) -> list[Reached]:
        """The limits that are reached and wait for a decision.

        A limit of 0 is a decision already, and one that was declined is one until its period ends or it is changed.
        """
        waiting = []
        for row in self._db.execute("SELECT scope, period, requests, tokens FROM limits ORDER BY scope").fetchall():
            limit = Limit(*row)
            requests, tokens = self.used(limit.scope, limit.period, now)
            start = period_start(limit.period, now)
            if 0 not in (limit.requests, limit.tokens) and limit.exceeded(requests, tokens):
                declined = self._db.execute("SELECT * FROM declined WHERE scope = ?", (limit.scope,)).fetchone()
                if declined != (limit.scope, start, *limit[1:]):
                    waiting.append(Reached(limit, requests, tokens, start + PERIODS[limit.period]))
        return waiting

    def decline(self, limit: Limit, now: float) -> None:
        """Let a limit stand for the running period: `reached` does not name it again."""
        start = period_start(limit.period, now)
        self._db.execute("INSERT OR REPLACE INTO declined VALUES (?, ?, ?, ?, ?)", (limit.scope, start, *limit[1:]))

    def changes(self) -> int:
        """A number that moves when another process wrote (PRAGMA data_version)."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])


def _reader(path: str) -> sqlite3.Connection:
    # characters that mean something in a URI (https://www.sqlite.org/uri.html)
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(f"file:{quoted}?mode=ro", isolation_level=None, timeout=_BUSY_SECONDS, uri=True)


def _adding(table: str, keys: int, fields: tuple[str, ...]) -> str:
    marks = ", ".join("?" * (keys + len(fields)))
    sums = ", ".join(f"{field} = {field} + excluded.{field}" for field in fields)
    return f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO UPDATE SET {sums}"


def period_start(period: str, now: float) -> int:
    """When the running period began, in Unix seconds."""
    seconds = PERIODS[period]
    return int(now) // seconds * seconds


class Counts:
    """One vault's view of the ledger: what it counted itself, and what the others wrote.

    Args:
        ledger: the file.
        container: whose requests are counted.
    """

    def __init__(self, ledger: Ledger, container: str) -> None:
        self._ledger, self._container = ledger, container
        self._pending: dict[tuple[str, str, str, int], list[int]] = {}
        self._models: dict[tuple[str, str, str, str, int], list[int]] = {}
        self._names: set[str] = set()
        self._changes = -1
        self._look_next = 0.0
        self._known: dict[str, tuple[Limit | None, int, int, int]] = {}

    def add(self, scope: str, provider: str, *counts: int) -> bool:
        """Count one request, in the order of `FIELDS`; True when it is the first since the last `flush`."""
        first = not self._pending
        key = (scope, self._container, provider, int(time.time()) // 3600)
        entry = self._pending.get(key)
        if entry is None:
            self._pending[key] = list(counts)
        else:
            for at, count in enumerate(counts):
                if count:
                    entry[at] += count
        return first

    def add_model(self, scope: str, provider: str, model: str, *counts: int) -> None:
        """Count one request's tokens for its model, in the order of `MODEL_FIELDS`; `add` has counted the request."""
        if len(self._names) < MODELS_MAX:
            self._names.add(model)
        name = model if model in self._names else OTHER_MODEL
        key = (scope, self._container, provider, name, int(time.time()) // 3600)
        entry = self._models.setdefault(key, [0] * len(MODEL_FIELDS))
        for at, count in enumerate(counts):
            entry[at] += count

    def flush(self) -> bool:
        """Write what was counted; False when another process was in the way: try again."""
        pending = self._pending
        if pending:
            try:
                self._ledger.add(pending, self._models)
            except sqlite3.Error:
                return False
            self._pending, self._models = {}, {}
            self._known.clear()
        return True

    def exceeded(self, scope: str, now: float) -> tuple[Limit, float] | None:
        """The scope's limit, when it is reached, and when its period ends (Unix seconds)."""
        # The file is shared by the vaults of all containers. `data_version` (sqlite pragma) says without reading a
        # row whether another one wrote; what this process has counted since its last flush is added on top.
        if now >= self._look_next:
            self._look_next = now + LOOK_SECONDS
            changes = self._ledger.changes()
            if changes != self._changes:
                self._changes = changes
                self._known.clear()
        known = self._known.get(scope)
        if known is None or (known[0] is not None and known[1] != period_start(known[0].period, now)):
            limit = self._ledger.limit(scope)
            used = self._ledger.used(scope, limit.period, now) if limit else (0, 0)
            known = self._known[scope] = (limit, period_start(limit.period, now) if limit else 0, *used)
        limit, start, requests, tokens = known
        if limit is None:
            return None
        for (counted, _, _, _), counts in self._pending.items():
            if counted == scope:
                requests, tokens = requests + counts[0], tokens + counts[3] + counts[4]
        return (limit, start + PERIODS[limit.period]) if limit.exceeded(requests, tokens) else None
