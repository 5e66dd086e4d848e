"""The first screen of `terok top`: what waits, the containers, the last refusals."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.message import Message

from . import text
from .lists import Lines, Words
from .model import rank
from .page import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..queue.items import Item
    from .model import Container, Refusal

HELP = "Tab list  a allow  d deny  t 10 min  A/D for good  Enter look  ? help  q quit"
NOTHING_WAITS = "Nothing waits for you."
NO_CONTAINER = "No container was prepared. `terok start` or `terok run NAME -- IMAGE` starts one."
NO_REFUSAL = "Nothing was refused."


class Look(Message):
    """The operator wants to look closer.

    Args:
        container: at this container; with a refusal, at why.
        item: at what waits.
        refusal: see `container`.
    """

    def __init__(self, container: str = "", item: Item | None = None, refusal: Refusal | None = None) -> None:
        super().__init__()
        self.container, self.item, self.refusal = container, item, refusal


class Main(Page):
    """The lists."""

    BINDINGS = [
        Binding("tab", "app.focus_next", show=False),
        Binding("shift+tab", "app.focus_previous", show=False),
    ]
    AUTO_FOCUS = "#queue"

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

    def fill(self) -> None:
        """Show the snapshot."""
        snapshot = self.snapshot
        bare = any(rank(row) == 0 for row in snapshot.containers)
        self.query_one("#summary", Words).say(f" {text.summary(snapshot)}", style="bad" if bare else "bold")
        for name, lines, title in (
            ("#queue", text.queue(snapshot), f"Waits for you: {len(snapshot.queue)}"),
            ("#containers", text.containers(snapshot), text.heading(snapshot)),
            ("#refusals", text.refusals(snapshot.refusals), "Last refusals"),
        ):
            widget = self.query_one(name, Lines)
            widget.border_title = title
            widget.show(lines)

    def item(self) -> Item | None:
        """The cursor's item of the queue."""
        key = self._key("queue")
        return next((item for item in self.snapshot.queue if text.item_key(item) == key), None)

    def about(self) -> list[str]:
        """About the cursor's container or refusal."""
        if (row := self._container()) is not None:
            return [text.about(row)]
        refusal = self._refusal()
        return [text.refused(refusal)] if refusal is not None else []

    def opened(self, key: str) -> None:
        """Look closer at the cursor's line."""
        if (item := self.item()) is not None:
            self.post_message(Look(item=item))
        elif (row := self._container()) is not None:
            self.post_message(Look(row.name))
        elif (refusal := self._refusal()) is not None:
            self.post_message(Look(refusal.container, refusal=refusal))

    def _key(self, name: str) -> str | None:
        """The key of the cursor's line, when the list of this name has the keys."""
        widget = self.focused
        return widget.key if isinstance(widget, Lines) and widget.id == name else None

    def _container(self) -> Container | None:
        key = self._key("containers")
        return None if key is None else self.snapshot.container(key)

    def _refusal(self) -> Refusal | None:
        key = self._key("refusals")
        return next((row for row in self.snapshot.refusals if text.refusal_key(row) == key), None)
