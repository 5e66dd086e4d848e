"""What a supervisor does when it fails before there is anything that could take it down."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from terok_host.supervisor import listeners, start
from terok_host.supervisor.ground import process


def test_a_failure_before_the_supervisor_is_told_and_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_processes(*_: object) -> None:
        raise BlockingIOError(11, "no more processes")

    monkeypatch.setattr(listeners, "begin_inside", no_more_processes)
    wiring: Any = SimpleNamespace(runtime_dir=str(tmp_path / "run" / "box"), sidecars=(), shield=None)
    hears, tell = os.pipe2(os.O_CLOEXEC)
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    container: Any = None
    pid = process.fork(lambda: start._run(wiring, container, tell, log, running=False))
    os.close(tell)
    os.close(log)
    with open(hears) as pipe:
        assert pipe.read() == "The supervisor failed: BlockingIOError: [Errno 11] no more processes"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert os.listdir(tmp_path / "run") == []
