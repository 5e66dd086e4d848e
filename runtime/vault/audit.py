"""`terok vault audit`, `usage` and `limit`: requests to the vault, and how much was used."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from typing import TYPE_CHECKING

from ...sidecars.vault.books import journal
from ...sidecars.vault.books.ledger import Ledger, Limit
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name
from ..kit.audit_lines import line, read
from ..kit.table import table
from ..kit.verb import argument, scope_option, switch, verb

if TYPE_CHECKING:
    import argparse

    from ..kit.env import Env


@verb(
    switch("--verify", "find removed and changed lines"),
    argument("-n", "--lines", type=int, default=20, metavar="N", help="how many lines (default 20; 0: all)"),
    argument("--container", metavar="NAME", help="only this container", values="containers"),
    scope_option("only this scope"),
)
def run_audit(args: argparse.Namespace, env: Env) -> int:
    """Show the requests that containers made to the vault, and verify its log."""
    path = env.layout.vault_audit
    if not os.path.exists(path):
        env.out.emit([], "")
        env.note("The vault has received no request yet.")
        return Exit.OK
    if args.verify:
        return _verify(env, path)
    kept: deque[dict[str, object]] = deque(maxlen=args.lines or None)
    for entry in read(path):
        if args.container in (None, entry.get("container")) and args.scope in (None, entry.get("scope")):
            kept.append(entry)
    env.out.emit(list(kept), "\n".join(line(entry, env.out) for entry in kept))
    return Exit.OK


def _verify(env: Env, path: str) -> int:
    verdict = journal.verify(path)
    text = f"{verdict.lines} lines, none missing or changed." if not verdict.wrong else ""
    env.out.emit({"lines": verdict.lines, "wrong": verdict.wrong}, text)
    if verdict.wrong:
        raise TerokError(f"The audit log {path} was changed: {verdict.wrong}.")
    return Exit.OK


@verb(scope_option("only this scope"))
def run_usage(args: argparse.Namespace, env: Env) -> int:
    """Show requests, bytes and tokens by scope and container."""
    with _opened(env) as ledger:
        rows = ledger.rows(scope=args.scope)
        scopes = sorted({row.scope for row in rows})
        limits = [limit._asdict() for scope in scopes if (limit := ledger.limit(scope)) is not None]
    cells = [("SCOPE", "CONTAINER", "PROVIDER", "REQUESTS", "SENT", "RECEIVED", "TOKENS IN", "TOKENS OUT")]
    for row in rows:
        counts = (str(row.requests), _size(row.bytes_in), _size(row.bytes_out))
        cells.append((row.scope, row.container, row.provider, *counts, str(row.input_tokens), str(row.output_tokens)))
    lines = [table(cells, env.out)] if rows else []
    for limited in limits:
        lines.append(f"limit of {limited['scope']}: {_limit_text(limited)}")
    env.out.emit({"usage": [row._asdict() for row in rows], "limits": limits}, "\n".join(lines))
    if not rows:
        env.note("There is no usage yet.")
    return Exit.OK


@verb(
    argument("scope", metavar="SCOPE", help="the scope", values="scopes"),
    argument("--requests", type=int, metavar="N", help="requests in a period"),
    argument("--tokens", type=int, metavar="N", help="tokens in a period, if the provider reports them"),
    argument("--period", choices=("hour", "day"), default="day", help="default day; in UTC"),
    examples=("terok vault limit work --requests 1000", "terok vault limit work"),
)
def run_limit(args: argparse.Namespace, env: Env) -> int:
    """Limit what the containers of a scope may use. Without an option, the limit is removed."""
    check_name(args.scope)
    for name in ("requests", "tokens"):
        value = getattr(args, name)
        if value is not None and value < 0:
            raise TerokError(f"--{name} must be a non-negative number.", code=Exit.USAGE)
    with _opened(env) as ledger:
        ledger.set_limit(Limit(args.scope, args.period, args.requests, args.tokens))
        limit = ledger.limit(args.scope)
    data = limit._asdict() if limit else {"scope": args.scope, "period": None, "requests": None, "tokens": None}
    env.out.emit(data, f"{args.scope}: {_limit_text(data)}")
    return Exit.OK


def _limit_text(limit: dict[str, object]) -> str:
    parts = [f"{limit[name]} {name}" for name in ("requests", "tokens") if limit[name] is not None]
    return f"{' and '.join(parts)} a {limit['period']}" if parts else "no limit"


def _size(count: int) -> str:
    """Bytes, for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _opened(env: Env) -> Ledger:
    """The ledger, to be closed by a `with` block; TerokError when it is damaged."""
    try:
        return Ledger(env.layout.vault_usage)
    except (sqlite3.Error, OSError) as error:
        raise TerokError(f"Could not open {env.layout.vault_usage}: {error}.") from error
