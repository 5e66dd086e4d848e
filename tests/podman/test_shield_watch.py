"""`terok shield watch` at a terminal: what it shows, what its keys do, and how it leaves the terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.supervisor.ground.layout import package_root
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.dns import Resolver

from .test_shield import resolves


def _interruptible() -> None:
    """Take SIGINT's default back: a shell without job control ignores it in what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, house: House, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            [str(house.program), *words], stdin=theirs, stdout=theirs, stderr=theirs, env=house.env, cwd=house.home,
            preexec_fn=_interruptible,
        )  # fmt: skip
        self.shown = ""

    def press(self, key: str) -> None:
        os.write(self._ours, key.encode())

    def until(self, pattern: str, seconds: float = 20) -> None:
        """Read until what came since the last call matches."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} is not in: {self.shown}"
            self.shown += os.read(self._ours, 4096).decode(errors="replace")
        self.shown = self.shown[found.end() :]

    def settings(self) -> list[object]:
        """How the terminal is set up now (termios(3))."""
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def box(house: House, name: str, resolver: Resolver, network: str) -> str:
    """A running container that may reach allowed.test."""
    return house.start_box(name, "allowed.test")


@pytest.fixture
def terminal(house: House, box: str) -> Iterator[Terminal]:
    made = Terminal(house, "shield", "watch", box)
    yield made
    made.close()


def recorded(house: House, box: str) -> str:
    return Path(house.bundle(box).live_allowed).read_text()


def test_the_keys_decide_about_what_was_seen(house: House, box: str, terminal: Terminal) -> None:
    terminal.until("q  leave")
    assert not resolves(house, box, "denied.test")
    terminal.until(r"refused .*denied\.test")
    terminal.press("o")
    terminal.until(r"allow denied\.test \(TCP 80, 443\) for 60 seconds\? Press o again")
    assert not resolves(house, box, "denied.test")
    terminal.press("o")
    terminal.until(r"allowed denied\.test for 60 seconds")
    assert resolves(house, box, "denied.test")
    assert recorded(house, box) == ""
    end = json.loads(house.terok("shield", "status", box, "--json").stdout)["allowed_until"]["denied.test"]
    assert 0 < end - time.time() < 60
    terminal.press("aa")
    terminal.until(r"allowed denied\.test\s")
    assert recorded(house, box) == "denied.test\n"
    terminal.press("dd")
    terminal.until(r"denied denied\.test\s")
    assert not resolves(house, box, "denied.test")
    terminal.press("q")
    assert terminal.process.wait(10) == 0
    assert terminal.settings() == terminal.before


def test_the_interrupt_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.until("q  leave")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(10) == 130
    assert terminal.settings() == terminal.before


def test_without_a_terminal_it_only_prints(house: House, box: str) -> None:
    with subprocess.Popen(
        [str(house.program), "shield", "watch", box, "--json"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=house.env, cwd=house.home,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            entry: dict[str, object] = {}
            while entry.get("name") != "denied.test":
                resolves(house, box, "denied.test")
                if select.select([process.stdout], [], [], 0.2)[0]:
                    entry = json.loads(process.stdout.readline())
            assert entry["verdict"] == "refused"
        finally:
            process.kill()


def test_an_allowance_for_a_time_ends_by_itself(house: House, box: str) -> None:
    house.terok("shield", "allow", box, "denied.test", "--for", "1s")
    until(lambda: not resolves(house, box, "denied.test"), 20)

    def said() -> list[str]:
        log = json.loads(house.terok("shield", "logs", box, "--json").stdout)
        return [each["event"] for each in log if each["event"] in ("allow", "lapse")]

    until(lambda: said() == ["allow", "lapse"], why=said)


def test_after_a_bypass_it_is_tidied_up(house: House, box: str) -> None:
    house.terok("shield", "bypass", box, "--for", "1s")

    def mode() -> str:
        return str(json.loads(house.terok("shield", "status", box, "--json").stdout)["mode"])

    until(lambda: mode() == "up", 20)
    assert not resolves(house, box, "denied.test")


def test_the_end_of_an_old_bypass_leaves_a_later_mode_alone(house: House, box: str) -> None:
    house.terok("shield", "bypass", box, "--for", "1s")
    house.terok("shield", "down", box)
    bundle = house.bundle(box)
    script = str(Path(package_root()) / "sidecars" / "shield" / "later.py")
    house.run([sys.executable, "-I", "-S", script, "1.1", bundle.root])
    assert json.loads(house.terok("shield", "status", box, "--json").stdout)["mode"] == "down"
