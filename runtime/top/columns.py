"""Rows of cells fitted into a width, in terminal columns (a letter may take two). No terminal, no markup."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size

from ..kit.table import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "  "
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
CELL_MAX = 400
"""Letters of a cell that are looked at; no terminal is wider."""
ROW_MAX = 4000


class Column(NamedTuple):
    """A column: its title, how narrow it may become, and whether its cells stand at the right."""

    title: str
    least: int
    right: bool = False


class Line(NamedTuple):
    """One line of a list.

    key: says which thing it is, whatever its place; cells: what is shown; style: a word of `STYLES` in `lists.py`.
    """

    key: str
    cells: tuple[str, ...]
    style: str = ""


def cell(text: str) -> str:
    """A cell as it may reach a terminal: one line, no control characters, bounded."""
    return plain(text) if len(text) <= CELL_MAX else plain(text[:CELL_MAX]) + ELLIPSIS


def row(text: str) -> str:
    """A line of a page, as `cell`; it may be long, and says how much of it is left out."""
    text = text.expandtabs(4)
    more = len(text) - ROW_MAX
    return plain(text) if more <= 0 else f"{plain(text[:ROW_MAX])}{ELLIPSIS} ({more} letters more)"


def crop(text: str, width: int) -> str:
    """Exactly `width` columns; what does not fit ends in an ellipsis."""
    if width <= 0:
        return ""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + ELLIPSIS


def widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """How wide each column is: as its cells need, and where that is too much, the widest ones give way.

    Args:
        columns: their least widths.
        rows: cells that `cell` has returned.
        width: columns of the terminal.
    """
    wanted = [max(cell_len(text) for text in texts) for texts in zip([c.title for c in columns], *rows, strict=True)]
    room = width - len(GAP) * (len(columns) - 1)
    while sum(wanted) > room:
        spare = [have - column.least for have, column in zip(wanted, columns, strict=True)]
        at = max(range(len(wanted)), key=lambda index: (spare[index] > 0, wanted[index]))
        if spare[at] <= 0:
            break  # narrower than the least: the line is cut at the right
        others = [have for index, have in enumerate(wanted) if index != at and spare[index] > 0]
        step = min(spare[at], sum(wanted) - room, max(1, wanted[at] - max(others, default=0)))
        wanted[at] -= step
    return wanted


def laid_out(columns: Sequence[Column], cells: Sequence[str], sizes: Sequence[int]) -> str:
    """One line of text."""
    parts = []
    for column, text, size in zip(columns, cells, sizes, strict=True):
        short = crop(text, size)
        parts.append(crop(" " * (size - cell_len(text)) + text, size) if column.right else short)
    return GAP.join(parts)


def wrapped(text: str, width: int) -> list[str]:
    """A text in pieces of at most `width` columns, cut wherever it must be: nothing of it is left out."""
    return chop_cells(text, max(2, width)) or [""]
