"""`terok top` as a person starts it: the program in a real terminal, its keys as bytes, its colours or none."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from terok_host.supervisor.ground.errors import Exit
from tests.lab.terminal import Terminal

PROGRAM = Path(sys.executable).parent / "terok"
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9]+)*m")
LEFT_SCREEN = "\x1b[?1049l"


def environ(home: Path, **variables: str) -> dict[str, str]:
    """A home without any container."""
    (home / "config/terok").mkdir(parents=True)
    paths = f"paths: {{data: {home}/data, runtime: {home}/run}}\n"
    (home / "config/terok/config.yml").write_text(paths)
    places = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    return {**places, "PATH": "/usr/bin:/bin", **variables}


@contextmanager
def started(home: Path, **variables: str) -> Iterator[Terminal]:
    shown = Terminal(environ(home, **variables), [str(PROGRAM), "top"], home)
    try:
        shown.until("Nothing waits for you.")
        yield shown
    finally:
        shown.end()


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["colours", "none"])
def test_it_starts_shows_and_leaves(tmp_path: Path, variables: dict[str, str]) -> None:
    with started(tmp_path, **variables) as shown:
        shown.type("\t?")
        shown.until("Keys and columns")
        shown.type("q")
        shown.until(LEFT_SCREEN)
        assert shown.process.wait(30) == Exit.OK
        assert bool(COLOUR.search(shown.text)) is not bool(variables)


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGHUP])
def test_it_leaves_the_terminal_as_it_was(tmp_path: Path, number: signal.Signals | None) -> None:
    with started(tmp_path) as shown:
        if number is None:
            shown.type("\x03")
        else:
            shown.process.send_signal(number)
        shown.until(LEFT_SCREEN)
        shown.process.wait(30)


def test_without_textual_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/textual.py").write_text("raise ImportError('no', name='textual')\n")
    places = environ(tmp_path, PYTHONPATH=str(tmp_path / "without"))
    shown = Terminal(places, [str(PROGRAM), "top"], tmp_path)
    shown.until("fix: pip install textual, or terok top --json")
    assert shown.end() == Exit.MANUAL


def test_without_a_terminal_a_snapshot_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(PROGRAM), "top"],
        env=environ(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert done.stdout == "0 running  0 waiting  today: 0 tokens, 0 requests\n"
