"""The one table printer: through rich at a terminal, as aligned text elsewhere.

Cells may come from containers, so no control character of theirs reaches the terminal.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .env import Output

STYLES = {"good": "green", "warning": "yellow", "bad": "red", "dim": "dim", "bold": "bold"}
STATES = {"running": "good", "ready": "good", "unlocked": "good", "prepared": "dim", "stopped": "dim", "ended": "dim"}
STATES |= {
    "on demand": "dim",
    "failed": "bad",
    "refused": "bad",
    "broken": "bad",
    "unsupervised": "bad",
    "locked": "warning",
}
"""Cells that are one of these words are coloured."""


def plain(text: str) -> str:
    """One line without control characters: escape sequences can rewrite what a terminal shows."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def escaped(line: str) -> str:
    """A line whose control, format and bidirectional characters stand as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in line
    )


def table(rows: Iterable[Sequence[str]], out: Output | None = None, *, header: bool = True) -> str:
    """Rows as columns; the text ends without a newline and is empty when there is no row.

    Args:
        rows: cells; all rows of the same length.
        out: where it will be printed; without one, aligned text.
        header: the first row names the columns.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    return _rich(cells, out.width, header=header) if out is not None and out.colours else aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _rich(cells: list[list[str]], width: int, *, header: bool) -> str:
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    built = Table(box=None, pad_edge=False, show_header=header, header_style="bold", padding=(0, 2, 0, 0))
    for name in cells[0]:
        built.add_column(Text(name) if header else "", overflow="fold")
    for row in cells[1:] if header else cells:
        built.add_row(*(Text(cell, style=STYLES[STATES[cell]] if cell in STATES else "") for cell in row))
    text = StringIO()
    Console(file=text, force_terminal=True, width=width, color_system="standard").print(built)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
