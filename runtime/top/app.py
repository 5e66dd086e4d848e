"""The application of `terok top`: looks once a second in a thread, shows what it saw, carries answers out."""

from __future__ import annotations

import asyncio
import io
import signal
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from rich.text import Text
from textual.app import App
from textual.binding import Binding

from ...supervisor.ground.errors import TerokError
from ..kit.env import Env, Output
from ..queue import items
from .columns import cell
from .decision import Offer
from .details import ContainerPage, HelpPage, ItemPage
from .model import Snapshot
from .page import Page
from .screens import Look, Main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.screen import Screen

PERIOD = 1.0
"""Seconds between two looks."""
THEMES = ("ansi-dark", "textual-ansi")
"""The terminal's own colours: what Textual calls them now, and before."""
IDLE = 4.0
"""A look that took long is followed by a pause of so many times that: looking costs a fifth of a processor at most."""


class Top(App[None]):
    """The live view.

    Args:
        env: whose containers; answers are given as by `terok decide`.
        look: makes a snapshot at a Unix time; called in one thread, never twice at a time.
        close: ends the looking; called in the same thread.
        clock: Unix time.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS_PATH = "top.tcss"
    BINDINGS = [
        Binding("q", "quit", show=False),
        Binding("ctrl+c,ctrl+q", "quit", show=False, priority=True),
        Binding("question_mark", "help", show=False),
    ]

    def __init__(
        self,
        env: Env,
        look: Callable[[float], Snapshot],
        close: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(ansi_color=True)
        self.theme = next(name for name in THEMES if name in self.available_themes)
        self.env = env
        self._look, self._close, self._clock = look, close, clock
        self._looker = ThreadPoolExecutor(1, "look")
        self._now = asyncio.Event()
        self.snapshot = Snapshot(clock())

    def get_default_screen(self) -> Screen[None]:
        """The lists."""
        return Main(self.snapshot, self.decide)

    def on_mount(self) -> None:
        """Begin to look. A signal that ends the program gives the terminal back first."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)
        self.run_worker(self._watch(), exit_on_error=True)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = time.monotonic()
            try:
                self.snapshot = await loop.run_in_executor(self._looker, self._look, self._clock())
            except (TerokError, OSError) as error:
                self.snapshot = self.snapshot._replace(unread=(f"Could not look: {error}",))
            self._show()
            pause = max(PERIOD, (time.monotonic() - began) * IDLE)
            self._now.clear()
            try:
                await asyncio.wait_for(self._now.wait(), pause)
            except TimeoutError:
                pass

    def _show(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, Page):
                screen.show(self.snapshot)

    def on_look(self, event: Look) -> None:
        """The operator looks closer."""
        if event.item is not None:
            self.push_screen(ItemPage(event.item, self.env, self.snapshot, self.decide))
        else:
            self.push_screen(ContainerPage(event.container, event.refusal, self.env, self.snapshot, self.decide))

    def action_help(self) -> None:
        """Show the keys."""
        if not isinstance(self.screen, HelpPage):
            self.push_screen(HelpPage(self.snapshot, self.decide))

    def look_again(self) -> None:
        """Look now, and not when the pause is over."""
        self._now.set()

    async def decide(self, offer: Offer) -> str:
        """Give an answer; returns what to say about it. It may take long: a proposal is pushed to upstream."""
        messages = io.StringIO()
        env = Env(self.env.environ, out=Output(json_output=False, stream=io.StringIO()), messages=messages)
        try:
            await asyncio.to_thread(carry_out, offer, env)
        except (TerokError, OSError) as error:
            return cell(f"Not done: {error}")
        finally:
            self.look_again()
        said = " ".join(messages.getvalue().split())
        return cell(f"Done: {offer.kind.verb} {offer.item.what}" + (f" ({said})" if said else ""))

    def _fatal_error(self) -> None:
        """Show a defect as Python does: Textual's own report has the values of local variables, tokens among them."""
        self.panic(Text(traceback.format_exc()))

    def on_unmount(self) -> None:
        """The terminal is given back at once; a look that is under way, at a Podman that hangs perhaps, ends later."""
        self._looker.submit(self._close)
        self._looker.shutdown(wait=False)


def carry_out(offer: Offer, env: Env) -> None:
    """Answer what was offered, if it still waits and still is what was shown.

    Raises:
        TerokError: it does not wait any more, is something else now, or could not be answered.
    """
    item = items.find(env.layout, offer.item.id)
    if not offer.still(item):
        raise TerokError(f"{offer.item.id} is something else now: {item.what}")
    item.act(env, offer.kind.answer)
