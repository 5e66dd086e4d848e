"""The pages of `terok top`: one thing that waits, a container (which may go meanwhile), the keys."""

from __future__ import annotations

import asyncio

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from . import closer, text
from .columns import Line, cell
from .lists import Lines, Words
from .model import rank
from .page import Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..kit.env import Env
    from ..queue.items import Item
    from .decision import Offer
    from .model import Refusal, Snapshot

TABS = ("connections", "log", "why", "wiring")
ITEM_KEYS = "a allow  d deny  t 10 min  A/D for good  arrows scroll  Escape back  q quit"
CONTAINER_KEYS = "1-4 part  Enter why (in 3)  / ask about a URL  arrows scroll  Escape back  q quit"
NOT_WAITING = "It does not wait any more."
ASK = "URL, then Enter; Escape forgets it"


class ItemPage(Page):
    """One thing that waits, with what is known about it: a proposal's changes, a limit's usage.

    Args:
        waiting: it.
        env: whose it is.
        snapshot, decide: as for `Page`.
    """

    AUTO_FOCUS = "#body"

    def __init__(self, waiting: Item, env: Env, snapshot: Snapshot, decide: Callable[[Offer], Awaitable[str]]) -> None:
        super().__init__(snapshot, decide)
        self._waiting, self._env = waiting, env

    def compose(self) -> ComposeResult:
        """The widgets, from top to bottom."""
        yield Words("bold", id="title")
        yield Lines(empty="...", id="body")
        yield Words(id="said")
        yield Words("dim", id="keys")

    async def on_mount(self) -> None:
        """Read what there is about it, once: what is shown is what is decided."""
        self.query_one("#title", Words).say(cell(f" {self._waiting.kind} {self._waiting.id}"))
        self.query_one("#keys", Words).say(ITEM_KEYS)
        self.show(self.snapshot)
        self.run_worker(self._read(), exit_on_error=True)

    async def _read(self) -> None:
        lines = await asyncio.to_thread(closer.item, self._env, self._waiting, self.snapshot.time)
        self.query_one("#body", Lines).show(lines)

    def item(self) -> Item | None:
        """It, while it waits and is what the page shows."""
        now = (item for item in self.snapshot.queue if item.id == self._waiting.id)
        return self._waiting if any(item[:4] == self._waiting[:4] for item in now) else None

    def about(self) -> list[str]:
        """Only asked when it does not wait."""
        return [NOT_WAITING]

    def leave(self) -> None:
        """Back to the lists."""
        self.dismiss()


class ContainerPage(Page):
    """One container: its connections, log, why its requests are refused, and its wiring.

    Args:
        name: the container's.
        refusal: begin with why this was refused.
        env: whose it is.
        snapshot, decide: as for `Page`.
    """

    BINDINGS = [
        *(Binding(str(at), f"part({at - 1})", show=False) for at in range(1, len(TABS) + 1)),
        Binding("left", "turn(-1)", show=False),
        Binding("right,tab", "turn(1)", show=False),
        Binding("slash", "ask", show=False),
    ]

    def __init__(
        self,
        name: str,
        refusal: Refusal | None,
        env: Env,
        snapshot: Snapshot,
        decide: Callable[[Offer], Awaitable[str]],
    ) -> None:
        super().__init__(snapshot, decide)
        self._shown, self._env, self._refusal = name, env, refusal
        self._part = TABS.index("why") if refusal is not None else 0
        self._answer: list[Line] = []
        self._asking = False

    def compose(self) -> ComposeResult:
        """The widgets, from top to bottom."""
        yield Words("bold", id="title")
        yield Words("", id="tabs")
        yield Lines(text.DESTINATIONS, empty="No connection in the part of the log that was read.", id="connections")
        yield Lines(empty="The log is empty.", id="log")
        yield Lines(text.REFUSALS, empty="Nothing was refused in the part of the log that was read.", id="why")
        yield Lines(empty="...", id="wiring")
        yield Lines(empty="", id="answer")
        yield Input(placeholder=ASK, id="ask")
        yield Words(id="said")
        yield Words("dim", id="keys")

    def on_mount(self) -> None:
        """Show the first part."""
        self.query_one("#keys", Words).say(CONTAINER_KEYS)
        self.query_one("#ask").display = False
        self.query_one("#answer").display = False
        self.action_part(self._part)
        if self._refusal is not None:
            self._explain(self._refusal)

    def fill(self) -> None:
        """Show what the snapshot has, and read the rest."""
        row = self.snapshot.container(self._shown)
        state = "is gone" if row is None else row.state
        memory = f", {text.size(row.memory)}" if row is not None and row.memory else ""
        spent = f", today {text.money(self.snapshot, row)}" if row is not None and row.usage.tokens else ""
        self.query_one("#title", Words).say(
            cell(f" {self._shown}: {state}{memory}{spent}"),
            style="bad" if row is None or text.RANKS[rank(row)] == text.BAD else "bold",
        )
        if row is not None:
            self.query_one("#connections", Lines).show(text.destinations(row.destinations))
            self.query_one("#why", Lines).show(text.refusals(self._refusals()))
        if TABS[self._part] in ("log", "wiring"):
            self.run_worker(self._read(TABS[self._part]), exclusive=True, group="read", exit_on_error=True)

    async def _read(self, part: str) -> None:
        if part == "log":
            lines = await asyncio.to_thread(closer.log, self._env.layout.bundle(self._shown))
        else:
            lines = await asyncio.to_thread(closer.wiring, self._env, self._shown, self.snapshot.time)
        self.query_one(f"#{part}", Lines).show(lines)

    def _refusals(self) -> list[Refusal]:
        return [row for row in self.snapshot.refusals if row.container == self._shown]

    def about(self) -> list[str]:
        """About the cursor's refusal."""
        if TABS[self._part] != "why":
            return []
        key = self.query_one("#why", Lines).key
        row = next((row for row in self._refusals() if text.refusal_key(row) == key), None)
        return [text.refused(row)] if row is not None else []

    # -- the parts --

    def action_part(self, at: int) -> None:
        """Show a part."""
        self._part = at
        for name in TABS:
            self.query_one(f"#{name}", Lines).display = name == TABS[at]
        words = [f"[{name}]" if name == TABS[at] else f" {name} " for name in TABS]
        self.query_one("#tabs", Words).say(" " + "  ".join(f"{at + 1}{word}" for at, word in enumerate(words)))
        self.query_one("#answer").display = TABS[at] == "why" and bool(self._answer)
        self.query_one(f"#{TABS[at]}", Lines).focus()
        self.fill()
        self.tell("")

    def action_turn(self, by: int) -> None:
        """Show the next part, or the previous one."""
        self.action_part((self._part + by) % len(TABS))

    def opened(self, key: str) -> None:
        """Why the cursor's refusal is one."""
        if TABS[self._part] == "why":
            row = next((row for row in self._refusals() if text.refusal_key(row) == key), None)
            if row is not None:
                self._explain(row)

    def _explain(self, row: Refusal) -> None:
        if row.url:
            self.run_worker(self._ask(row.url, row.method or "GET"), exclusive=True, group="why", exit_on_error=True)
        else:
            self._answered([Line("why", (cell(row.why or "The log has no reason."),))])

    async def _ask(self, url: str, method: str) -> None:
        self._answered(await asyncio.to_thread(closer.why, self._env, self._shown, url, method))

    def _answered(self, lines: list[Line]) -> None:
        self._answer = lines
        answer = self.query_one("#answer", Lines)
        answer.show(lines)
        answer.display = TABS[self._part] == "why"

    # -- asking about a URL --

    def action_ask(self) -> None:
        """Type a URL."""
        self.action_part(TABS.index("why"))
        field = self.query_one("#ask", Input)
        field.value, field.display = "", True
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """A URL was typed."""
        self._close_input()
        if event.value.strip():
            url = closer.checked(event.value.strip())
            self.run_worker(self._ask(url, "GET"), exclusive=True, group="why", exit_on_error=True)

    def _close_input(self) -> None:
        self.query_one("#ask").display = False
        self.query_one(f"#{TABS[self._part]}", Lines).focus()

    def leave(self) -> None:
        """Back to the lists; with the input open, close it."""
        if self.query_one("#ask").display:
            self._close_input()
        else:
            self.dismiss()


HELP = (
    "Tab, Shift+Tab     next list, previous list",
    "arrows, j, k       move the cursor; Page Up, Page Down, Home, End too",
    "Enter              look closer: changes, connections, log, why, wiring",
    "a                  allow: go on, approve, sign, raise",
    "d                  deny: refuse, reject, do not sign, leave the limit",
    "t                  allow a held connection's name for 10 minutes",
    "A, D               allow or deny a held connection's name for good",
    "                   The first press shows the command that is equal to it;",
    "                   the same key again, or Enter, does it.",
    "Escape             forget what was offered; leave a page",
    "q                  leave",
    "",
    "MEMORY             of terok's own processes (PSS)",
    "REQ, TOKENS, COST  today (UTC), through the vault, at list prices",
    "                   + some tokens have no known price, - none has",
    "REFUSED            in the end of the log that was read; + there is more",
)


class HelpPage(Page):
    """The keys."""

    AUTO_FOCUS = "#body"

    def compose(self) -> ComposeResult:
        """The widgets, from top to bottom."""
        yield Words("bold", id="title")
        yield Lines(id="body")
        yield Words(id="said")
        yield Words("dim", id="keys")

    def on_mount(self) -> None:
        """Show them."""
        self.query_one("#title", Words).say(" Keys and columns")
        self.query_one("#keys", Words).say("Escape back  q quit")
        self.fill()

    def fill(self) -> None:
        """Show them, with the date of the prices."""
        lines = [*HELP, "", f"Prices of {self.snapshot.priced or 'unknown date'}, {self.snapshot.currency}."]
        self.query_one("#body", Lines).show([Line(str(at), (cell(line),)) for at, line in enumerate(lines)])

    def leave(self) -> None:
        """Back to the lists."""
        self.dismiss()
