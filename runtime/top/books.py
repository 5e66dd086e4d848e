"""What the vault counted today, by container, with what it cost."""

from __future__ import annotations

import os
import sqlite3

from ...sidecars.vault.books.ledger import Ledger, period_start
from .model import Usage
from .prices import Prices, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...supervisor.ground.layout import Layout


class Books:
    """The vault's counts, read again only when a vault has written.

    Args:
        layout: where they are.
        prices: path of the operator's price table; None: none.

    Attributes:
        prices: the price table.
        problems: sentences about what could not be read.
    """

    def __init__(self, layout: Layout, prices: str | None) -> None:
        self._path = layout.vault_usage
        self._ledger: Ledger | None = None
        self._seen = (-1, 0)
        self._usages: dict[str, Usage] = {}
        self.prices: Prices = load(prices)
        self.problems: tuple[str, ...] = ()

    def close(self) -> None:
        """Close the file."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def today(self, now: float) -> dict[str, Usage]:
        """What each container used since midnight UTC, when limits by the day begin."""
        start = period_start("day", now)
        try:
            if self._ledger is None:
                if not os.path.exists(self._path):
                    return {}
                self._ledger = Ledger(self._path, read_only=True)
            seen = (self._ledger.changes(), start)
            if seen != self._seen:
                self._usages = self._read(self._ledger, start)
                self._seen = seen
            self.problems = ()
        except sqlite3.Error as error:
            self.close()
            self.problems = (f"The vault's counts cannot be read: {error}",)
        return self._usages

    def _read(self, ledger: Ledger, start: int) -> dict[str, Usage]:
        usages: dict[str, Usage] = {}
        for row in ledger.rows(since=start):
            used = Usage(row.requests, row.input_tokens, row.output_tokens, row.cached_tokens)
            # what no row of the models accounts for has no price
            used = used._replace(unpriced=used.tokens)
            usages[row.container] = usages.get(row.container, Usage()).plus(used)
        for model in ledger.models(since=start):
            price = self.prices.of(model.model)
            if price is not None and model.container in usages:
                tokens = model.input_tokens + model.output_tokens
                usages[model.container] = usages[model.container].plus(Usage(cost=price.cost(model), unpriced=-tokens))
        return usages
