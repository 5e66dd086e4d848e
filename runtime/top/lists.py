"""The widgets of `terok top`: a list with a cursor, and lines of text. Nothing in them is read as markup.

Both draw with Textual's line API: strips of segments, which are text and a style. Control characters were replaced
before (`columns.cell`). Colours are the terminal's own sixteen; without colour the attributes still tell.
"""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .columns import Column, Line, crop, laid_out, widths, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.geometry import Size

STYLES = {
    "": Style(),
    "bad": Style(color="red", bold=True),
    "warning": Style(color="yellow"),
    "good": Style(color="green"),
    "dim": Style(dim=True),
    "bold": Style(bold=True),
    "head": Style(dim=True, underline=True),
}
CHOSEN = Style(reverse=True)
"""The line of the cursor in the list that has the keys; reverse video needs no colour."""
MARK, NO_MARK = "> ", "  "


class Lines(Widget, can_focus=True):
    """A list of lines under a head, with a cursor that stays on its line when others come and go.

    Args:
        columns: the columns; none: each line is one text, which goes on in the next line where it is too long.
        empty: what is shown instead of no lines.
        name: for `id`.
    """

    BINDINGS = [
        Binding("up,k", "step(-1)", show=False),
        Binding("down,j", "step(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("home,g", "step(-1000000)", show=False),
        Binding("end,G", "step(1000000)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Moved(Message):
        """The cursor stands on another line."""

    class Opened(Message):
        """Enter was pressed on a line.

        Args:
            key: the line's.
            source: the list.
        """

        def __init__(self, key: str, source: Lines) -> None:
            super().__init__()
            self.key, self.source = key, source

    def __init__(self, columns: Sequence[Column] = (), *, empty: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self._columns, self._empty = tuple(columns), empty
        self._given: tuple[Line, ...] = ()
        self._lines: tuple[Line, ...] = ()
        """What was given, in pieces that fit the width."""
        self._sizes: list[int] = []
        self._at = self._top = 0

    @property
    def key(self) -> str | None:
        """The key of the cursor's line; None in an empty list."""
        return self._lines[self._at].key if self._lines else None

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines; the cursor stays on the line of its key, or at its place when that is gone."""
        fresh = tuple(lines)
        if fresh == self._given and self._sizes:
            return
        before, count = self.key, len(self._lines)
        self._given = fresh
        self._fold()
        if len(self._lines) != count:
            self.refresh(layout=True)
        kept = next((at for at, line in enumerate(self._lines) if line.key == before), None) if before else 0
        self._at = min(self._at, max(0, len(self._lines) - 1)) if kept is None else kept
        self._scroll()
        self._measure()
        self.refresh()
        if self.key != before and self.has_focus:
            self.post_message(self.Moved())

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as there are, for `height: auto`."""
        return max(1, len(self._lines)) + (1 if self._columns else 0)

    def on_resize(self) -> None:
        """The terminal has another size."""
        self._fold()
        self._at = min(self._at, max(0, len(self._lines) - 1))
        self._scroll()
        self._measure()
        self.refresh()

    def on_focus(self) -> None:
        """The keys are for this list."""
        self.refresh()
        self.post_message(self.Moved())

    def on_blur(self) -> None:
        """The keys are for another list."""
        self.refresh()

    def action_step(self, by: int) -> None:
        """Move the cursor."""
        at = min(max(0, self._at + by), max(0, len(self._lines) - 1))
        if at != self._at:
            self._at = at
            self._scroll()
            self.refresh()
            self.post_message(self.Moved())

    def action_page(self, by: int) -> None:
        """Move the cursor by as many lines as are seen."""
        self.action_step(by * max(1, self._room()))

    def action_open(self) -> None:
        """Open the cursor's line."""
        if (key := self.key) is not None:
            self.post_message(self.Opened(key, self))

    def _fold(self) -> None:
        """Make the lines of what was given."""
        width = self.size.width - len(MARK)
        if self._columns or width < 1:
            self._lines = self._given
            return
        self._lines = tuple(
            Line(line.key if at == 0 else f"{line.key}+{at}", (piece,), line.style)
            for line in self._given
            for at, piece in enumerate(wrapped(line.cells[0], width))
        )

    def _measure(self) -> None:
        width = max(1, self.size.width - len(MARK))
        if not self._columns:
            self._sizes = [width]
            return
        # the widths of the lines around the cursor: a thousand rows cost no more than a screen of them
        seen = self._lines[self._top : self._top + 200]
        self._sizes = widths(self._columns, [line.cells for line in seen], width)

    def _room(self) -> int:
        return max(0, self.size.height - (1 if self._columns else 0))

    def _scroll(self) -> None:
        """Keep the cursor in sight, and no empty lines below the last one."""
        room = max(1, self._room())
        self._top = min(max(self._top, self._at - room + 1), self._at)
        self._top = max(0, min(self._top, len(self._lines) - room))

    def render_line(self, y: int) -> Strip:
        """One line of the widget."""
        width = self.size.width
        if not self._sizes:
            self._measure()
        if self._columns:
            if y == 0:
                titles = [column.title for column in self._columns]
                return _strip(NO_MARK + laid_out(self._columns, titles, self._sizes), STYLES["head"], width)
            y -= 1
        at = self._top + y
        if not self._lines and y == 0:
            return _strip(NO_MARK + self._empty, STYLES["dim"], width)
        if at >= len(self._lines):
            return _strip("", STYLES[""], width)
        line = self._lines[at]
        text = laid_out(self._columns, line.cells, self._sizes) if self._columns else line.cells[0]
        chosen = at == self._at and self.has_focus
        style = STYLES[line.style] + CHOSEN if chosen else STYLES[line.style]
        return _strip((MARK if chosen else NO_MARK) + text, style, width)


class Words(Widget):
    """Lines of text; a line that is longer than the terminal is wide goes on in the next one.

    Args:
        style: a word of `STYLES`.
        id: the widget's.
    """

    def __init__(self, style: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._style = style
        self._said: tuple[str, ...] = (style, "")
        """The style, then the lines."""

    def say(self, *lines: str, style: str | None = None) -> None:
        """Show these lines; each was made by `columns.cell`."""
        fresh = (self._style if style is None else style, *(lines or ("",)))
        if fresh != self._said:
            self._said = fresh
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the text takes, for `height: auto`."""
        return len(self._pieces(width))

    def render_line(self, y: int) -> Strip:
        """One line of the widget."""
        pieces = self._pieces(self.size.width)
        return _strip(pieces[y] if y < len(pieces) else "", STYLES[self._said[0]], self.size.width)

    def _pieces(self, width: int) -> list[str]:
        return [piece for line in self._said[1:] for piece in wrapped(line, width)]


def _strip(text: str, style: Style, width: int) -> Strip:
    return Strip([Segment(crop(text, width), style)], width)
