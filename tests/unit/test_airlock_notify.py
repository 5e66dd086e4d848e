"""`notify.command`: what it gets, how often it runs, and that it ends with the relay."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.airlock.notify import Notifier
from terok_host.sidecars.airlock.settings import settings_for
from tests.lab.waiting import until

SCRIPT = """\
import json, os, sys, time
line = sys.stdin.read()
seen = {"argv": sys.argv[2:], "stdin": json.loads(line), "env": dict(os.environ), "pid": os.getpid()}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(seen) + chr(10))
time.sleep(float(sys.argv[2]))
"""


class Told:
    """A command that writes down what it gets."""

    def __init__(self, path: Path, seconds: float = 0) -> None:
        self.path = path / "told"
        self.command = [sys.executable, "-c", SCRIPT, str(self.path), str(seconds)]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


def close(notifier: Notifier) -> None:
    """What the end of the relay does; the helper is reaped."""
    os.close(notifier._fd)
    os.wait()


def test_what_it_gets(tmp_path: Path) -> None:
    told = Told(tmp_path)
    notifier = Notifier(told.command, {"HOME": "/home/me"}, "box")
    notifier.announce("1f0c77ab", "x.test", 443, time.time() + 60)
    (seen,) = until(told.lines, 10)
    shown = [seen["stdin"][key] for key in ("container", "id", "name", "port")]
    assert shown == ["box", "1f0c77ab", "x.test", 443]
    assert seen["argv"] == ["0"]  # the operator's own argument, and nothing else
    assert (seen["env"]["TEROK_NAME"], seen["env"]["TEROK_PORT"], seen["env"]["HOME"]) == ("x.test", "443", "/home/me")
    close(notifier)


def test_one_at_a_time_and_nothing_late(tmp_path: Path) -> None:
    told = Told(tmp_path)
    notifier = Notifier(told.command, {}, "box")
    notifier.announce("a", "over.test", 443, time.time() - 1)
    for number in range(300):
        notifier.announce(str(number), "x.test", 443, time.time() + 1)
    notifier.announce("z", "last.test", 443, time.time() + 60)
    until(lambda: len(told.lines()) >= 2, 10)
    assert [line["stdin"]["name"] for line in told.lines()] == ["x.test", "last.test"]
    close(notifier)


def test_it_ends_with_the_relay(tmp_path: Path) -> None:
    told = Told(tmp_path, 60)
    notifier = Notifier(told.command, {}, "box")
    notifier.announce("a", "x.test", 443, time.time() + 60)
    (seen,) = until(told.lines, 10)
    close(notifier)
    with pytest.raises(ProcessLookupError):
        os.kill(seen["pid"], 0)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    notifier = Notifier([str(tmp_path / "missing")], {}, "box")
    notifier.announce("a", "x.test", 443, time.time() + 60)
    close(notifier)
    notifier = Notifier(["true"], {}, "box")
    os.close(notifier._fd)
    os.wait()


def test_what_the_launch_writes() -> None:
    settings = settings_for(notify=["notify-send", "terok"], environment={"HOME": "/h", "AWS_SECRET": "s"})
    assert settings == {"notify": ["notify-send", "terok"], "notify_environment": {"HOME": "/h"}}
    assert settings_for() == {}
