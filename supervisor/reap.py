"""Takes away what a container left behind, by its record: for the poststop hook, `terok cleanup` and `terok doctor`."""

from __future__ import annotations

import os
import time

from . import record
from .ground import pids
from .ground.pids import signal_pidfd
from .ground.quick import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ground.layout import Bundle
    from .record import Record

GRACE = 2.0
"""Seconds that the supervisor has to take its services down by itself."""


def reap(bundle: Bundle, runtime_dir: str, *, even_if_running: bool = False) -> bool:
    """End every process that the record names and remove the runtime directory.

    A late poststop of an earlier run must not end the next one: while the recorded container lives, nothing is
    touched, unless `even_if_running`.

    Returns:
        True when nothing of ours is left.
    """
    known = record.read(bundle.record)
    if known is not None and known.alive() and not even_if_running:
        return False
    left = end_processes(known) if known else []
    remove_runtime_dir(runtime_dir)
    if known is not None and not known.over():
        record.write(bundle.record, known.after_the_end())
    return not left


def end_processes(known: Record) -> list[str]:
    """Ask the recorded supervisor to end, then kill what is left of its processes; returns the names still alive."""
    fds = {name: fd for name, process in known.processes() if (fd := process.open()) is not None}
    try:
        if "supervisor" in fds:
            signal_pidfd(fds["supervisor"], signal.SIGTERM)
        deadline = time.monotonic() + (GRACE if "supervisor" in fds else 0)
        for fd in fds.values():
            pids.wait_gone(fd, max(0.0, deadline - time.monotonic()))
        # the supervisor first: its standby would start what it finds missing
        for name in sorted(fds, key=lambda name: name not in ("supervisor", "standby")):
            signal_pidfd(fds[name], signal.SIGKILL)
        left = [name for name, fd in fds.items() if not pids.wait_gone(fd, 1.0)]
    finally:
        for fd in fds.values():
            os.close(fd)
    return left


def remove_runtime_dir(path: str) -> None:
    """Remove the flat runtime directory of a container; links in it are removed, never followed."""
    try:
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        os.write(2, f"supervisor: {path} could not be removed: {error.strerror}\n".encode())
