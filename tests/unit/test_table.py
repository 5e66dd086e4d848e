"""The table printer: aligned text for programs, rich at a terminal, and no control character from a cell."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from terok_host.runtime.kit.env import Output
from terok_host.runtime.kit.table import aligned, plain, table

ROWS = [("NAME", "STATE"), ("box", "running"), ("longer", "failed")]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Output(json_output=False, stream=Terminal())


def test_columns_are_aligned_and_lines_do_not_end_with_spaces() -> None:
    assert table(ROWS) == "NAME    STATE\nbox     running\nlonger  failed"
    assert table(ROWS, Output(json_output=False, stream=io.StringIO())) == aligned(ROWS)
    assert table([]) == ""


def test_a_terminal_gets_colours(terminal: Output) -> None:
    text = table(ROWS, terminal)
    assert "\x1b[32mrunning" in text
    assert "\x1b[31mfailed" in text
    assert "\x1b[1mNAME" in text


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_for_who_asked_for_none(
    terminal: Output, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert table(ROWS, terminal) == aligned(ROWS)


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\rb", "a\nb", "\x9b31m", "\u202eevil", "[red]x[/red]"])
def test_cells_cannot_command_a_terminal(terminal: Output, hostile: str) -> None:
    for text in (table([("A", "B"), (hostile, "x")]), table([("A", "B"), (hostile, "x")], terminal)):
        shown = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
        assert plain(hostile) in shown
        assert not set("\x1b\r\x9b\u202e") & set(shown)
        assert len(text.splitlines()) == 2


def test_a_narrow_terminal_wraps_and_loses_nothing() -> None:
    """In a real terminal of 20 columns."""
    code = (
        "import sys; from terok_host.runtime.kit.env import Output; from terok_host.runtime.kit.table import table\n"
        "out = Output(json_output=False, stream=sys.stdout)\n"
        "print(out.width); print(table([('A', 'B'), ('x', 'y' * 40)], out))"
    )
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    done = subprocess.Popen([sys.executable, "-c", code], stdout=slave, env={**environ, "TERM": "xterm"})
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(master)
    assert done.wait(timeout=20) == 0
    lines = seen.decode().split("\r\n")
    assert lines[0] == "20"
    assert seen.count(b"y") == 40
    assert all(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) <= 20 for line in lines)


def test_rich_is_imported_for_terminals_only() -> None:
    code = (
        "import sys; from terok_host.runtime.kit.env import Output; from terok_host.runtime.kit.table import table\n"
        "print(table([('A',), ('b',)], Output(json_output=False, stream=sys.stdout))); print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.split() == ["A", "b", "False"]
