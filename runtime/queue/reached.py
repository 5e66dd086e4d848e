"""Usage limits that are reached: raising one, or letting it stand for its period. The running vaults see it at once."""

from __future__ import annotations

import os
import sqlite3
import time

from ...sidecars.vault.books.ledger import Ledger, Limit, Reached
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...supervisor.ground.layout import Layout

ID = "limit"
"""The last part of the IDs: `SCOPE/limit`. A proposal's has a number there."""


def reached(layout: Layout) -> list[Reached]:
    """The limits that are reached and were not declined; raises TerokError when the counts cannot be read."""
    if not os.path.exists(layout.vault_usage):
        return []
    try:
        with Ledger(layout.vault_usage, read_only=True) as ledger:
            return ledger.reached(time.time())
    except sqlite3.Error as error:
        raise TerokError(f"The usage limits cannot be read: {error}") from error


def raised(row: Reached, by: int | None = None) -> Limit:
    """A limit with room for more; what is not reached stays as it is.

    Args:
        row: what is reached.
        by: so much more than what was used or allowed, whichever is more; None: as much again as was allowed.

    Raises:
        TerokError: `by` is given, and both requests and tokens are reached: it can mean one of them only.
    """
    limit = row.limit
    over = [
        name
        for name, used, allowed in (
            ("requests", row.requests, limit.requests),
            ("tokens", row.tokens, limit.tokens),
        )
        if allowed is not None and used >= allowed
    ]
    if by is not None and len(over) > 1:
        command = paste.command("terok", "vault", "limit", limit.scope, "--requests", "N", "--tokens", "N")
        raise TerokError("--raise says one number; requests and tokens are both used up.", fix=command, code=Exit.USAGE)
    changes = {}
    for name in over:
        allowed = getattr(limit, name)
        changes[name] = max(allowed, getattr(row, name)) + (allowed if by is None else by)
    return limit._replace(**changes)


def command(limit: Limit) -> str:
    """The command that sets a limit."""
    words = [limit.scope]
    for name, value in (("--requests", limit.requests), ("--tokens", limit.tokens)):
        words += [name, str(value)] if value is not None else []
    return paste.command("terok", "vault", "limit", *words, "--period", limit.period)


def answer(layout: Layout, row: Reached, *, allowed: bool, by: int | None) -> None:
    """Raise a limit that is reached, or let it stand until its period ends.

    Raises:
        TerokError: it is another one by now, or the counts cannot be written.
    """
    try:
        with Ledger(layout.vault_usage) as ledger:
            if ledger.limit(row.limit.scope) != row.limit:
                raise TerokError(f"The limit of {row.limit.scope} was changed meanwhile.", fix="terok pending")
            if allowed:
                ledger.set_limit(raised(row, by))
            else:
                ledger.decline(row.limit, time.time())
    except sqlite3.Error as error:
        raise TerokError(f"Could not write {layout.vault_usage}: {error}.") from error
