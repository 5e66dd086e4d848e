"""What the screens of `terok top` share: they show snapshots, and keys on them decide."""

from __future__ import annotations

import time

from textual.binding import Binding
from textual.screen import Screen

from . import text
from .columns import cell
from .decision import KEYS, Decisions
from .lists import Lines, Words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..queue.items import Item
    from .decision import Offer
    from .model import Snapshot


class Page(Screen[None]):
    """A screen with lists, and a part `#said` under them that tells what concerns the cursor's line.

    Args:
        snapshot: what is shown first.
        decide: carries an answer out, and returns what to say about it.
    """

    BINDINGS = [
        Binding("escape", "back", show=False),
        *(Binding(key, f"press('{key}')", show=False) for key in KEYS),
    ]

    def __init__(self, snapshot: Snapshot, decide: Callable[[Offer], Awaitable[str]]) -> None:
        super().__init__()
        self.snapshot = snapshot
        self._decide, self._decisions = decide, Decisions()
        self._note = ""

    # -- what a screen fills in --

    def fill(self) -> None:
        """Show `snapshot`."""

    def item(self) -> Item | None:
        """What the keys decide about."""
        return None

    def about(self) -> list[str]:
        """Lines about the cursor's line, made by `columns.cell`."""
        return []

    def opened(self, key: str) -> None:
        """Enter was pressed on a line."""

    def leave(self) -> None:
        """Escape was pressed, and no answer was offered."""

    # -- what they share --

    def show(self, snapshot: Snapshot) -> None:
        """Show what was seen now."""
        self.snapshot = snapshot
        self.fill()
        if self._decisions.offer is None:
            self.tell()

    def tell(self, note: str | None = None) -> None:
        """Say what concerns the cursor's line, below a note: what was said last, when none is given."""
        self._note = self._note if note is None else note
        lines = [self._note] if self._note else []
        if (item := self.item()) is not None:
            allow, deny = text.command(item, allowed=True), text.command(item, allowed=False)
            lines += [cell(f"a $ {allow}" if allow else "a allow"), cell(f"d $ {deny}" if deny else "d deny")]
        else:
            lines += self.about()
        if self.snapshot.unread:
            lines.insert(1, cell(self.snapshot.unread[0]))
        self.query_one("#said", Words).say(*lines)

    def on_lines_moved(self) -> None:
        """The cursor stands elsewhere: what was offered was about another line. What was done last stays to be read."""
        self._decisions.drop()
        self.tell()

    def on_lines_opened(self, event: Lines.Opened) -> None:
        """Enter: give the answer that is offered, else look closer."""
        if self._decisions.offer is not None:
            self.action_press("enter")
        else:
            self.opened(event.key)

    def action_back(self) -> None:
        """Escape: what was offered is not done; without an offer the screen is left."""
        if self._decisions.offer is None:
            self.leave()
        self.on_lines_moved()

    def action_press(self, key: str) -> None:
        """A key that decides."""
        offer = self._decisions.press(key, self.item(), time.monotonic())
        if offer is not None:
            self.tell(cell(f"{offer.kind.verb}: {offer.item.what} ..."))
            self.run_worker(self._carry_out(offer), exit_on_error=True)
        elif self._decisions.offer is not None:
            self.query_one("#said", Words).say(*self._decisions.offer.lines(), style="warning")
        else:
            self.tell("")

    async def _carry_out(self, offer: Offer) -> None:
        self._note = await self._decide(offer)
        if self._decisions.offer is None:
            self.tell()
