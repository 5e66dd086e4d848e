"""`terok top` in a terminal of 80 by 24, driven by keys through Textual's pilot; what it decides is really decided."""

from __future__ import annotations

import io
import math
import os
import time
from pathlib import Path

import pytest
from textual.worker import WorkerFailed

from terok_host.runtime.kit.table import plain
from terok_host.runtime.top.app import Top
from terok_host.runtime.top.decision import KEYS, Decisions, Offer
from terok_host.runtime.top.model import Container, Refusal, Snapshot
from terok_host.sidecars.airlock import questions
from terok_host.sidecars.vault.books.ledger import Ledger, Limit
from tests.standins.decisions import ID, Operator
from tests.standins.terminal import SIZE, fixed, item, run, terminal, view

EVIL = "x\x1b[2J[red]\N{RIGHT-TO-LEFT OVERRIDE}\r\n[/]"


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


# --- deciding ---


def test_a_connection_is_answered_by_two_presses(operator: Operator) -> None:
    operator.hold("box")
    decisions = Path(operator.layout.bundle("box").airlock_decisions)

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("connect to files.example.com")
            assert f"a $ terok shield decide {ID} allow" in shown.text
            await shown.press("d")
            assert "d again or Enter: deny for box: connect to files.example.com" in shown.text
            assert f"$ terok shield decide {ID} deny" in shown.text
            await shown.press("escape", "enter")
            assert not decisions.exists()
            await shown.press("d", "d")
            await shown.until(decisions.exists)
            await shown.shows("Done: deny connect to files.example.com")

    run(drive())
    assert questions.decode_decision(decisions.read_bytes()) == questions.Decision(ID, "files.example.com", 443, False)


def test_a_limit_is_raised_by_keys(operator: Operator) -> None:
    operator.use("work", 10, 0, limit=Limit("work", "day", 10, None))

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("use more than 10 requests each day")
            await shown.press("A", "t")  # for connections alone
            assert "again or Enter" not in shown.text
            await shown.press("a")
            await shown.shows("$ terok vault limit work --requests 20 --period day")
            await shown.press("enter")
            await shown.shows("Nothing waits for you.")

    run(drive())
    ledger = Ledger(operator.layout.vault_usage)
    assert ledger.limit("work") == Limit("work", "day", 20, None)
    ledger.close()


def test_a_signature_is_confirmed_by_keys(operator: Operator) -> None:
    desk, signature = operator.sign()

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("log in to forge.test as git with work key")
            await shown.press("a", "a")
            await shown.until(lambda: desk.read(signature))

    run(drive())


def test_what_is_something_else_by_then_is_not_answered(operator: Operator) -> None:
    """The same ID with another name: a relay that lies, between the two presses."""
    operator.hold("box")

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("connect to files.example.com")
            await shown.press("a")
            operator.hold("box", name="evil.example.com")
            await shown.press("a")
            await shown.shows("is something else now")

    run(drive())
    assert not os.path.exists(operator.layout.bundle("box").airlock_decisions)


def test_the_offer_is_the_item_that_was_shown() -> None:
    """Whatever the cursor stands on at the second press."""
    decisions = Decisions()
    assert decisions.press("a", item(1), 1.0) is None
    offer = decisions.press("a", item(2), 2.0)
    assert offer is not None and offer.item.id == "id1"
    assert decisions.press("a", item(1), 3.0) is None and decisions.press("d", item(1), 3.1) is None
    assert decisions.offer is not None and decisions.offer.key == "d"
    assert decisions.press("x", item(1), 4.0) is None and decisions.offer is None
    assert decisions.press("A", item(1, kind="proposal"), 5.0) is None and decisions.offer is None
    assert decisions.press("a", None, 6.0) is None and decisions.offer is None


def test_a_key_that_is_held_answers_one_item() -> None:
    decisions, queue, answered = Decisions(), [item(number) for number in range(5)], []
    for press in range(100):
        offer = decisions.press("a", queue[0], press * 0.03)
        if offer is not None:
            answered.append(offer.item.id)
            del queue[0]
    assert answered == ["id0"]
    assert decisions.press("a", queue[0], 10.0) is None and decisions.offer is not None


def test_the_terminal_changes_its_size(operator: Operator) -> None:
    async def drive() -> None:
        queue = tuple(item(number) for number in range(30))
        app = fixed(operator, Snapshot(0.0, (Container("box", "running"),), queue))
        async with terminal(app) as shown:
            await shown.until(lambda: app.snapshot.queue)
            await shown.press("end")
            for width, height in ((30, 8), (120, 40), (1, 1), SIZE):
                await shown.pilot.resize_terminal(width, height)
                await shown.pilot.pause()
                assert len(shown.lines()) == height
            await shown.shows("a $ terok allow id29")
            await shown.press("enter")
            await shown.shows(" connection id29")

    run(drive())


def test_every_answer_has_the_command_it_is_equal_to() -> None:
    commands = {key: Offer(key, item(1), kind).command for key, kind in KEYS.items()}
    assert commands == {
        "a": "terok allow id1",
        "d": "terok deny id1",
        "t": "terok decide id1 allow --for 10m",
        "A": "terok decide id1 allow --always",
        "D": "terok decide id1 deny --always",
    }


# --- showing ---


def test_the_cursor_stays_on_its_item(operator: Operator) -> None:
    first = Snapshot(0.0, queue=(item(1), item(2)))
    second = Snapshot(0.0, queue=(item(9), item(8), item(1), item(2)))

    async def drive() -> None:
        app = fixed(operator, first, second)
        async with terminal(app) as shown:
            await shown.until(lambda: len(app.snapshot.queue) == 2)
            await shown.press("down")
            assert "a $ terok allow id2" in shown.text
            await shown.press("a")
            app.look_again()
            await shown.until(lambda: len(app.snapshot.queue) == 4)
            assert "a again or Enter" in shown.text and "$ terok allow id2" in shown.text

    run(drive())


def test_an_offer_ends_when_its_item_does(operator: Operator) -> None:
    async def drive() -> None:
        app = fixed(operator, Snapshot(0.0, queue=(item(1),)), Snapshot(0.0, queue=(item(2),)))
        async with terminal(app) as shown:
            await shown.until(lambda: app.snapshot.queue)
            await shown.press("a")
            app.look_again()
            await shown.until(lambda: app.snapshot.queue[0].id == "id2")
            await shown.shows("a $ terok allow id2")
            await shown.press("enter")
            assert "Not done" not in shown.text

    run(drive())


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (20, 6), (200, 60)])
def test_hostile_words_in_any_terminal(operator: Operator, size: tuple[int, int]) -> None:
    refusal = Refusal(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, 1)
    row = Container(EVIL, "UNPROTECTED", EVIL, fix=EVIL)
    evil = item(1, what=EVIL, until=math.inf)
    snapshot = Snapshot(0.0, (row,), (evil,), (refusal,), (EVIL,))

    async def drive() -> None:
        app = fixed(operator, snapshot)
        async with terminal(app, size) as shown:
            await shown.until(lambda: app.snapshot.queue)
            for keys in (("a",), ("tab",), ("tab",), ("tab", "a", "escape")):
                await shown.press(*keys)
                lines = shown.lines()
                assert len(lines) == size[1]
                assert all(line == plain(line) for line in lines)
            assert size[0] < 80 or "[red]" in shown.text

    run(drive())


def test_without_colour_there_is_none(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Snapshot(0.0, (Container("bare", "UNPROTECTED"), Container("box", "running")), (item(1),))

    def colours() -> set[str]:
        seen: set[str] = set()

        async def drive() -> None:
            app = fixed(operator, snapshot)
            async with terminal(app) as shown:
                await shown.until(lambda: app.snapshot.queue)
                for strip in app.screen._compositor.render_strips():
                    for segment in strip:
                        for colour in (segment.style.color, segment.style.bgcolor) if segment.style else ():
                            seen.add(colour.name if colour else "default")

        run(drive())
        return seen

    assert "red" in colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert colours() <= {"default"}


def test_a_thousand_items_and_two_hundred_containers(operator: Operator) -> None:
    rows = tuple(Container(f"box-{number:03}", "running") for number in range(200))
    queue = tuple(item(number, what=f"connect to n{number}.example") for number in range(1000))

    async def drive() -> None:
        app = fixed(operator, Snapshot(0.0, rows, queue))
        async with terminal(app) as shown:
            await shown.until(lambda: app.snapshot.queue)
            await shown.press("end")
            assert "n999.example" in shown.text and "a $ terok allow id999" in shown.text
            began = time.monotonic()
            for _ in range(20):
                await shown.press("up")
            assert time.monotonic() - began < 5
            assert "a $ terok allow id979" in shown.text
            await shown.press("tab", "end")
            assert "> box-199" in shown.text

    run(drive())


def test_a_look_that_fails_is_said_and_tried_again(operator: Operator) -> None:
    looks: list[int] = []

    def look(now: float) -> Snapshot:
        looks.append(1)
        if len(looks) == 1:
            raise OSError(5, "Input/output error")
        return Snapshot(now, (Container("box", "running"),))

    async def drive() -> None:
        app = Top(operator.env(io.StringIO(), json_output=False), look)
        async with terminal(app) as shown:
            await shown.shows("Could not look: [Errno 5] Input/output error")
            app.look_again()
            await shown.shows("1 running")

    run(drive())


def test_a_defect_shows_no_values(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """Textual's own report of a defect prints local variables."""

    def look(now: float) -> Snapshot:
        token = "phantom-" + "0123456789" * 2
        raise ZeroDivisionError(len(token))

    async def drive() -> None:
        app = Top(operator.env(io.StringIO(), json_output=False), look)
        async with terminal(app) as shown:
            await shown.until(lambda: not app.is_running)

    with pytest.raises(WorkerFailed):
        run(drive())
    shown = capsys.readouterr()
    assert "ZeroDivisionError: 28" in shown.err + shown.out
    assert "phantom-0123" not in shown.err + shown.out
