"""The two streams of a verb."""

from __future__ import annotations

import io
import threading

import pytest

from terok_host.runtime.kit import env as environment
from terok_host.runtime.kit.env import Env, Output


class Stream(io.StringIO):
    """A stream that may be a terminal, and that tells when something was written."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal, self.written = terminal, threading.Event()

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count


def surroundings(*, terminal: bool = False, json_output: bool = False) -> tuple[Env, Stream, Stream]:
    data, messages = Stream(terminal=terminal), Stream(terminal=terminal)
    return Env({}, out=Output(json_output=json_output, stream=data), messages=messages), data, messages


def test_data_is_text_or_json_and_messages_are_elsewhere() -> None:
    env, data, messages = surroundings()
    env.out.emit({"a": 1}, "a is 1")
    env.out.emit({}, "")
    env.note("by the way")
    assert (data.getvalue(), messages.getvalue()) == ("a is 1\n", "by the way\n")
    env, data, _ = surroundings(json_output=True)
    env.out.emit({"a": "é"}, "a is é")
    assert data.getvalue() == '{\n  "a": "é"\n}\n'


def test_what_takes_long_is_named_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PROGRESS_SECONDS", 0.01)
    env, _, messages = surroundings(terminal=True)
    with env.slow("Waiting"):
        assert messages.written.wait(5)
    assert messages.getvalue() == "Waiting ...\n"
    env, _, messages = surroundings(terminal=False)
    with env.slow("Waiting"):
        assert not messages.written.wait(0.1)


def test_what_is_quick_is_not_named() -> None:
    env, _, messages = surroundings(terminal=True)
    with env.slow("Waiting"):
        pass
    assert messages.getvalue() == ""
