"""The first screen of `terok top`: what waits, the containers, the last refusals."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen

from . import text
from .columns import cell
from .decision import KEYS, Decisions
from .lists import Lines, Words
from .model import Snapshot, rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..queue.items import Item
    from .decision import Offer
    from .model import Container, Refusal

HELP = "Tab list  a allow  d deny  t 10 min  A/D for good  Enter look  ? help  q quit"
NOTHING_WAITS = "Nothing waits for you."
NO_CONTAINER = "No container was prepared. `terok start` or `terok run NAME -- IMAGE` starts one."
NO_REFUSAL = "Nothing was refused."


class Page(Screen[None]):
    """A screen that shows a snapshot."""

    def show(self, snapshot: Snapshot) -> None:
        """Show what was seen."""


class Main(Page):
    """The lists.

    Args:
        decide: carries an answer out, and returns what to say about it.
    """

    BINDINGS = [
        Binding("tab", "app.focus_next", show=False),
        Binding("shift+tab", "app.focus_previous", show=False),
        Binding("escape", "drop", show=False),
        *(Binding(key, f"press('{key}')", show=False) for key in KEYS),
    ]
    AUTO_FOCUS = "#queue"

    def __init__(self, decide: Callable[[Offer], Awaitable[str]]) -> None:
        super().__init__()
        self._decide = decide
        self._decisions = Decisions()
        self._snapshot = Snapshot(0.0)
        self._note = ""

    def compose(self) -> ComposeResult:
        """The widgets, from top to bottom."""
        yield Words("bold", id="summary")
        yield Lines(text.QUEUE, empty=NOTHING_WAITS, id="queue")
        yield Lines(text.CONTAINERS, empty=NO_CONTAINER, id="containers")
        yield Lines(text.REFUSALS, empty=NO_REFUSAL, id="refusals")
        yield Words(id="said")
        yield Words("dim", id="keys")

    def on_mount(self) -> None:
        """What stands before the first look."""
        self.query_one("#keys", Words).say(HELP)

    def show(self, snapshot: Snapshot) -> None:
        """Show what was seen."""
        self._snapshot = snapshot
        bare = any(rank(row) == 0 for row in snapshot.containers)
        self.query_one("#summary", Words).say(f" {text.summary(snapshot)}", style="bad" if bare else "bold")
        for name, lines, title in (
            ("#queue", text.queue(snapshot), f"Waits for you: {len(snapshot.queue)}"),
            ("#containers", text.containers(snapshot), f"Containers: {len(snapshot.containers)}"),
            ("#refusals", text.refusals(snapshot), "Last refusals"),
        ):
            widget = self.query_one(name, Lines)
            widget.border_title = title
            widget.show(lines)
        if self._decisions.offer is None:
            self._tell()

    # -- the lines under the lists --

    def on_lines_moved(self) -> None:
        """The cursor stands elsewhere: what was offered was about another line."""
        self._decisions.drop()
        self._note = ""
        self._tell()

    def _tell(self) -> None:
        """Say what concerns the cursor's line, below what was said last."""
        lines = [self._note] if self._note else []
        if (item := self._item()) is not None:
            allow, deny = text.command(item, allowed=True), text.command(item, allowed=False)
            lines += [cell(f"a $ {allow}" if allow else "a allow"), cell(f"d $ {deny}" if deny else "d deny")]
        elif (row := self._container()) is not None:
            lines.append(text.about(row))
        elif (refusal := self._refusal()) is not None:
            lines.append(text.refused(refusal))
        if self._snapshot.unread:
            lines.insert(1, cell(self._snapshot.unread[0]))
        self.query_one("#said", Words).say(*lines)

    def _key(self, name: str) -> str | None:
        """The key of the cursor's line, when the list of this name has the keys."""
        widget = self.focused
        return widget.key if isinstance(widget, Lines) and widget.id == name else None

    def _item(self) -> Item | None:
        key = self._key("queue")
        return next((item for item in self._snapshot.queue if text.item_key(item) == key), None)

    def _container(self) -> Container | None:
        key = self._key("containers")
        return None if key is None else self._snapshot.container(key)

    def _refusal(self) -> Refusal | None:
        key = self._key("refusals")
        return next((row for row in self._snapshot.refusals if text.refusal_key(row) == key), None)

    # -- deciding --

    def action_drop(self) -> None:
        """Escape: what was offered is not done."""
        self.on_lines_moved()

    def on_lines_opened(self, event: Lines.Opened) -> None:
        """Enter: give the answer that is offered, else look closer."""
        if self._decisions.offer is not None:
            self.action_press("enter")

    def action_press(self, key: str) -> None:
        """A key that decides."""
        offer = self._decisions.press(key, self._item())
        self._note = ""
        if offer is not None:
            self._note = cell(f"{offer.kind.verb}: {offer.item.what} ...")
            self._tell()
            self.run_worker(self._carry_out(offer), exit_on_error=True)
        elif self._decisions.offer is not None:
            self.query_one("#said", Words).say(*self._decisions.offer.lines(), style="warning")
        else:
            self._tell()

    async def _carry_out(self, offer: Offer) -> None:
        self._note = await self._decide(offer)
        if self._decisions.offer is None:
            self._tell()
