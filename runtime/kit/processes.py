"""Looks at processes that a record names: alive or not, how much memory, since when."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import psutil

from ...supervisor.record import Process


@dataclass(frozen=True)
class Seen:
    """One live process. `memory` is its PSS in bytes, or its RSS where the kernel does not show the PSS.

    suspended: SIGSTOP holds it (state T, proc_pid_stat(5)): it does nothing until SIGCONT.
    """

    pid: int
    uptime: float
    memory: int
    proportional: bool
    suspended: bool

    def to_dict(self) -> dict[str, object]:
        """As plain data for JSON."""
        return asdict(self)


def look(recorded: Process | None, *, now: float) -> Seen | None:
    """What the recorded process is like now, or None when it has ended.

    A pidfd is held meanwhile, so the numbers are not another process's that got the pid.
    """
    fd = recorded.open() if recorded else None
    if recorded is None or fd is None:
        return None
    try:
        return _measure(psutil.Process(recorded.pid), now)
    except psutil.NoSuchProcess:
        return None
    finally:
        os.close(fd)


def _measure(seen: psutil.Process, now: float) -> Seen | None:
    status = seen.status()
    if status == psutil.STATUS_ZOMBIE:
        return None
    suspended = status == psutil.STATUS_STOPPED
    uptime = max(0.0, now - seen.create_time())
    try:
        return Seen(seen.pid, uptime, int(seen.memory_full_info().pss), True, suspended)
    except psutil.AccessDenied:
        return Seen(seen.pid, uptime, int(seen.memory_info().rss), False, suspended)
