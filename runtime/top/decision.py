"""How a key becomes an answer: the first press offers it with its command, the same key again or Enter gives it. Pure.

What was offered is what is decided: the list may change between the two presses, the offer does not, and an item that
is another one by then is not answered.
"""

from __future__ import annotations

from typing import NamedTuple

from ..queue import items
from ..queue.items import Answer
from . import text
from .columns import cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..queue.items import Item

REPEAT_SECONDS = 0.4
"""A key that is held repeats sooner than this; after an answer, it offers nothing until it was let go."""
A_TIME = 600
"""Seconds that `t` allows a name for."""


class Kind(NamedTuple):
    """What a key stands for: an answer, its words for people, and the options of `terok decide` that say the same."""

    answer: Answer
    verb: str
    words: tuple[str, ...] = ()


KEYS = {
    "a": Kind(Answer(True), "allow"),
    "d": Kind(Answer(False), "deny"),
    "t": Kind(Answer(True, seconds=A_TIME), f"allow for {A_TIME // 60} minutes", ("--for", f"{A_TIME // 60}m")),
    "A": Kind(Answer(True, always=True), "allow for good", ("--always",)),
    "D": Kind(Answer(False, always=True), "deny for good", ("--always",)),
}
"""The keys that decide; the last three are for the kinds in `items.LASTING`."""


class Offer(NamedTuple):
    """An answer that the next press gives."""

    key: str
    item: Item
    kind: Kind

    @property
    def command(self) -> str:
        """The command that it is equal to; empty when none can be shown."""
        return text.command(self.item, allowed=self.kind.answer.allowed, words=self.kind.words)

    def lines(self) -> tuple[str, str]:
        """What is shown: the question, and the command."""
        who = f" for {self.item.container}" if self.item.container else ""
        question = f"{self.key} again or Enter: {self.kind.verb}{who}: {self.item.what}"
        return cell(question), cell(f"$ {self.command}" if self.command else "no command can be shown")

    def still(self, item: Item) -> bool:
        """Whether `item`, which waits now, is what was shown."""
        return (item.id, item.kind, item.container, item.what) == self.item[:4]


class Decisions:
    """Keys in; what to offer and what to do out."""

    def __init__(self) -> None:
        self.offer: Offer | None = None
        self._held = ("", 0.0)
        """The key that gave the last answer, and when it was pressed last."""

    def press(self, key: str, item: Item | None, now: float) -> Offer | None:
        """A key.

        Args:
            key: one of `KEYS`, or `enter`.
            item: the one that the cursor stands on.
            now: monotonic seconds.

        Returns:
            what is to be done now; None: nothing, and `offer` is what a second press would do.
        """
        offer, self.offer = self.offer, None
        if offer is not None and key in (offer.key, "enter"):
            self._held = (key, now)
            return offer
        if key == self._held[0] and now - self._held[1] < REPEAT_SECONDS:
            self._held = (key, now)
            return None
        kind = KEYS.get(key)
        if kind is None or item is None or (kind.words and item.kind not in items.LASTING):
            return None
        self.offer = Offer(key, item, kind)
        return None

    def drop(self) -> None:
        """Forget the offer."""
        self.offer = None
