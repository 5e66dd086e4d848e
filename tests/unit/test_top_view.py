"""`terok top` in a terminal of 80 by 24, driven by keys through Textual's pilot; what it decides is really decided."""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.worker import WorkerFailed

from terok_host.runtime.kit.table import plain
from terok_host.runtime.queue.items import Answer, Item
from terok_host.runtime.top.app import Top
from terok_host.runtime.top.decision import KEYS, Decisions, Offer
from terok_host.runtime.top.gather import Watch
from terok_host.runtime.top.model import Container, Refusal, Snapshot
from terok_host.sidecars.airlock import questions
from terok_host.sidecars.vault.books.ledger import Ledger, Limit
from terok_host.supervisor.ground import audit
from tests.standins.decisions import ID, Operator
from tests.standins.gate import Rig, commit, git, make_upstream

EVIL = "x\x1b[2J[red]\N{RIGHT-TO-LEFT OVERRIDE}\r\n[/]"
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


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def view(operator: Operator) -> Top:
    """The view over the operator's directories."""
    env = operator.env(io.StringIO(), json_output=False)
    return Top(env, Watch(env).look)


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
    assert decisions.press("a", item(1)) is None
    offer = decisions.press("a", item(2))
    assert offer is not None and offer.item.id == "id1"
    assert decisions.press("a", item(1)) is None and decisions.press("d", item(1)) is None
    assert decisions.offer == Offer("d", item(1), KEYS["d"]) or decisions.offer is not None
    assert decisions.press("x", item(1)) is None and decisions.offer is None
    assert decisions.press("A", item(1, kind="proposal")) is None and decisions.offer is None
    assert decisions.press("a", None) is None and decisions.offer is None


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


# --- pages ---


def wire(operator: Operator, container: str) -> None:
    """A sidecar JSON with a service on demand, beside what `hold` writes."""
    bundle = operator.layout.bundle(container)
    wiring = {
        "schema": 1,
        "container": container,
        "scope": "work",
        "bundle": bundle.root,
        "runtime_dir": operator.layout.runtime_dir(container),
        "sidecars": [
            {
                "name": "ssh",
                "start": "demand",
                "idle_seconds": 300,
                "listeners": [{"kind": "unix", "path": f"{operator.layout.runtime_dir(container)}/ssh-agent.sock"}],
                "settings": {},
            }
        ],
        "mounts": [],
        "shield": {"ruleset": bundle.ruleset, "expected": bundle.expected, "dnsmasq_conf": None, "probe": "x.test"},
    }
    Path(bundle.sidecar).write_text(json.dumps(wiring))
    os.chmod(bundle.sidecar, 0o600)


def log(operator: Operator, container: str, **fields: object) -> None:
    audit.append(operator.layout.bundle(container).audit, "shield", "connection", **fields)


def test_the_page_of_a_container(operator: Operator) -> None:
    operator.hold("box")
    wire(operator, "box")
    log(operator, "box", verdict="allowed", name="files.example", port=443, id=1)
    log(operator, "box", verdict="refused", name="evil.example", port=443, reason="no profile", allow="terok x")

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("evil.example:443")
            await shown.press("tab", "enter")
            await shown.shows("files.example:443")
            assert "1[connections]" in shown.text and " box: running" in shown.text
            await shown.press("2")
            await shown.shows("reason=")
            assert shown.text.index("evil.example") < shown.text.index("files.example")  # the newest first
            await shown.press("3")
            assert "would be allowed by: terok x" in shown.text
            await shown.press("enter")
            await shown.shows("GET https://evil.example/ would be refused.")
            await shown.press("slash", *"quay.io", "enter")
            await shown.shows("GET https://quay.io would be refused.")
            await shown.press("4")
            await shown.shows("ssh: not running, starts on demand")
            await shown.press("escape")
            await shown.shows("Waits for you: 1")

    run(drive())


def test_a_refusal_leads_to_its_reason(operator: Operator) -> None:
    operator.hold("box")
    wire(operator, "box")
    log(operator, "box", verdict="refused", name="evil.example", port=8443)

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("evil.example:8443")
            await shown.press("tab", "tab", "enter")
            await shown.shows("GET https://evil.example:8443/ would be refused.")

    run(drive())


def test_a_container_that_goes_while_its_page_is_open(operator: Operator) -> None:
    operator.hold("box")
    wire(operator, "box")
    log(operator, "box", verdict="refused", name="evil.example", port=443)

    async def drive() -> None:
        app = view(operator)
        async with terminal(app) as shown:
            await shown.shows("1 running")
            await shown.press("tab", "enter")
            await shown.shows("1[connections]")
            shutil.rmtree(operator.layout.bundle("box").root)
            app.look_again()
            await shown.shows("box: is gone")
            for key in ("2", "3", "enter", "4"):
                await shown.press(key)
            await shown.shows("Cannot be shown: ")
            await shown.press("escape")
            await shown.shows("Containers: 0")

    run(drive())


def test_a_proposal_is_shown_with_its_changes_and_approved(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "forge").mkdir()
    upstream = make_upstream(tmp_path / "forge" / "up.git")
    rig = Rig(tmp_path)
    rig.configure(upstream)
    rig.start()
    try:
        work = tmp_path / "work"
        git("clone", "-q", rig.url(), work, cwd=tmp_path)
        commit(work, "new.txt", "[bold]hello\x1b[31m\n")
        git("push", "-q", "origin", "HEAD:refs/heads/agent/new", cwd=work)

        async def drive() -> None:
            async with terminal(view(operator)) as shown:
                await shown.shows("create refs/heads/agent/new")
                await shown.press("enter")
                await shown.shows("+[bold]hello\N{REPLACEMENT CHARACTER}[31m")
                assert "$ terok gate diff proj 1" in shown.text
                await shown.press("a")
                assert "$ terok gate approve proj 1" in shown.text
                await shown.press("a")
                await shown.shows("Done: allow create")
                await shown.shows("It does not wait any more.")

        run(drive())
    finally:
        rig.stop()
    assert "agent/new" in git("for-each-ref", "--format=%(refname)", cwd=upstream).stdout


def test_the_page_of_a_limit(operator: Operator) -> None:
    operator.use("work", 10, 5, limit=Limit("work", "day", 10, None))

    async def drive() -> None:
        async with terminal(view(operator)) as shown:
            await shown.shows("use more than 10")
            await shown.press("enter")
            await shown.shows("box anthropic: 10 requests, 5 tokens today")
            await shown.press("d", "d")
            await shown.shows("Done: deny")
            await shown.press("escape")
            await shown.shows("Nothing waits for you.")

    run(drive())


def test_help_and_leaving(operator: Operator) -> None:
    async def drive() -> None:
        app = view(operator)
        async with terminal(app) as shown:
            await shown.shows("Nothing waits for you.")
            await shown.press("question_mark")
            await shown.shows("Prices of 20")
            assert all(len(line) <= 80 for line in shown.lines())
            await shown.press("q")
            await shown.until(lambda: not app.is_running)

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
