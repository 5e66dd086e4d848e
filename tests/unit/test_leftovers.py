"""Which runtime directories `terok doctor --fix` removes, and which are in use or still to be used."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, flock
from pathlib import Path

from terok_host.runtime.care.leftovers import leftovers
from terok_host.supervisor import record
from terok_host.supervisor.ground import pids
from terok_host.supervisor.ground.layout import Layout
from terok_host.supervisor.record import Process, Record

GONE = Process(2**22 - 1, 1)


def test_only_what_no_start_and_no_end_will_use_is_left_behind(tmp_path: Path) -> None:
    places = Layout(*(str(tmp_path / part) for part in ("data", "run", "config")))
    own = Process(os.getpid(), pids.start_time(os.getpid()))
    records = {
        "unknown": None,
        "prepared": None,
        "running": Record("running", container=own, supervisor=own, phase=record.READY),
        "starting": Record("starting", container=GONE, phase=record.ENDED),
        "killed": Record("killed", container=GONE, phase="starting"),
        "ended": Record("ended", container=GONE, phase=record.ENDED),
    }
    for name, known in records.items():
        os.makedirs(places.runtime_dir(name))
        if name != "unknown":
            os.makedirs(places.bundle(name).root)
        if known is not None:
            record.write(places.bundle(name).record, known)
    os.makedirs(tmp_path / "run" / ".vault")
    lock = os.open(places.bundle("starting").lock, os.O_RDWR | os.O_CREAT, 0o600)
    flock(lock, LOCK_EX)
    left = [os.path.basename(path) for path in leftovers(places)]
    os.close(lock)
    assert left == ["ended", "killed", "unknown"]


def test_without_a_runtime_directory_nothing_is_left(tmp_path: Path) -> None:
    assert leftovers(Layout(*(str(tmp_path / part) for part in ("data", "run", "config")))) == []
