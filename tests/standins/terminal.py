"""`terok top` in a terminal of the tests: a screen that can be read, and keys, through Textual's pilot."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from textual.pilot import Pilot

from terok_host.runtime.queue.items import Answer, Item
from terok_host.runtime.top.app import Top
from terok_host.runtime.top.gather import Watch
from terok_host.runtime.top.model import Snapshot
from tests.standins.decisions import Operator

SIZE = (80, 24)
STEP = 0.02


class Terminal:
    """The view in its terminal."""

    def __init__(self, app: Top, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    def lines(self) -> list[str]:
        """What stands on the screen."""
        return [strip.text for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines())

    async def until(self, condition: Callable[[], object], within: float = 10.0) -> None:
        end = time.monotonic() + within
        while not condition():
            assert time.monotonic() < end, f"not within {within} s:\n{self.text}"
            await self.pilot.pause(STEP)

    async def shows(self, words: str) -> None:
        await self.until(lambda: words in self.text)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()


@asynccontextmanager
async def terminal(app: Top, size: tuple[int, int] = SIZE) -> AsyncIterator[Terminal]:
    async with app.run_test(size=size) as pilot:
        yield Terminal(app, pilot)


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(test)


def view(operator: Operator) -> Top:
    """The view over the operator's directories."""
    env = operator.env(io.StringIO(), json_output=False)
    watch = Watch(env)
    return Top(env, watch.look, watch.close)


def fixed(operator: Operator, *snapshots: Snapshot) -> Top:
    """The view of these snapshots, one after the other."""
    left = list(snapshots)

    def look(now: float) -> Snapshot:
        return left.pop(0) if len(left) > 1 else left[0]

    return Top(operator.env(io.StringIO(), json_output=False), look)


def item(number: int, *, kind: str = "connection", what: str = "connect to files.example", until: float = 2e9) -> Item:
    def act(env: object, answer: Answer) -> None:
        raise AssertionError("not asked for")

    return Item(
        f"id{number}", kind, "box", what, 0.0, until, "", f"terok allow id{number}", f"terok deny id{number}", act
    )
