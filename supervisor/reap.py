"""Takes away what a container left behind, by its record and by what the kernel knows: for the poststop hook,
`terok cleanup`, `terok heal` and `terok doctor`.
"""

from __future__ import annotations

import os
import time

from . import record, strays
from .ground.layout import handover_socket
from .ground.log import say
from .ground.pids import signal_pidfd, wait_gone
from .ground.quick import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ground.layout import Bundle
    from .ground.pids import Process

GRACE = 2.0
"""Seconds that the supervisor has to take its services down by itself."""
TAKE_DOWN = signal.SIGUSR2
"""Asks a supervisor to end although its container may live; at SIGTERM it hands over to its standby then."""


def reap(bundle: Bundle, runtime_dir: str, *, even_if_running: bool = False) -> bool:
    """End every process of the container's supervisor and remove the runtime directory.

    A late poststop of an earlier run must not end the next one: while the recorded container lives, nothing is
    touched, unless `even_if_running`.

    Returns:
        True when nothing of the supervisor is left.
    """
    known = record.read(bundle.record)
    if known is not None and known.alive() and not even_if_running:
        return False
    left = end_processes(bundle)
    remove_runtime_dir(runtime_dir)
    if known is not None and not known.over():
        try:
            record.write(bundle.record, known.after_the_end())
        except OSError as error:
            say(f"terok: the record could not be written: {error.strerror}")
    return not left


def end_processes(bundle: Bundle) -> list[str]:
    """Ask the supervisor to end, then kill what is left of its processes; returns the names still alive.

    The kernel is asked too unless the record says that all was taken down: that takes a look at every process.
    """
    known = record.read(bundle.record)
    processes = list(known.processes()) if known else []
    if known is None or not known.over():
        processes += [
            entry for entry in strays.of_bundle(bundle) if entry[1] not in [process for _, process in processes]
        ]
    return end(processes)


def end(processes: list[tuple[str, Process]]) -> list[str]:
    """End these processes, the supervisor by asking it first; returns the names still alive."""
    open_fds = [(name, fd) for name, process in processes if (fd := process.open()) is not None]
    try:
        asked = [fd for name, fd in open_fds if name == "supervisor"]
        for fd in asked:
            signal_pidfd(fd, TAKE_DOWN)
        deadline = time.monotonic() + (GRACE if asked else 0)
        for _, fd in open_fds:
            wait_gone(fd, max(0.0, deadline - time.monotonic()))
        # the supervisor first: its standby would start what it finds missing
        for _, fd in sorted(open_fds, key=lambda entry: entry[0] not in ("supervisor", "standby")):
            signal_pidfd(fd, signal.SIGKILL)
        return [name for name, fd in open_fds if not wait_gone(fd, 1.0)]
    finally:
        for _, fd in open_fds:
            os.close(fd)


def remove_runtime_dir(path: str) -> None:
    """Remove the flat runtime directory of a container; links in it are removed, never followed."""
    try:
        os.unlink(handover_socket(path))
    except OSError:
        pass  # most containers have none
    try:
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        say(f"supervisor: {path} could not be removed: {error.strerror}")
