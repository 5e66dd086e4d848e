"""Looks at processes that a record names: alive or not, how much memory, since when."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ...supervisor.record import Process

if TYPE_CHECKING:
    import psutil


class Seen(NamedTuple):
    """One live process.

    memory: bytes; `proportional` says whether they are its PSS, or its RSS where the kernel does not show the PSS.
    suspended: SIGSTOP holds it (state T, proc_pid_stat(5)): it does nothing until SIGCONT.
    """

    pid: int
    uptime: float
    memory: int
    proportional: bool
    suspended: bool

    def to_dict(self) -> dict[str, object]:
        """As plain data for JSON."""
        return self._asdict()


def look(recorded: Process | None, *, now: float) -> Seen | None:
    """What the recorded process is like now, or None when it has ended.

    A pidfd is held meanwhile, so the numbers are not another process's that got the pid.
    """
    fd = recorded.open() if recorded else None
    if recorded is None or fd is None:
        return None
    import psutil  # a third of the time of `terok status`, and not needed while nothing runs

    try:
        return _measure(psutil.Process(recorded.pid), now)
    except psutil.NoSuchProcess:
        return None
    finally:
        os.close(fd)


def _measure(seen: psutil.Process, now: float) -> Seen | None:
    import psutil

    status = seen.status()
    if status == psutil.STATUS_ZOMBIE:
        return None
    suspended = status == psutil.STATUS_STOPPED
    uptime = max(0.0, now - seen.create_time())
    try:
        return Seen(seen.pid, uptime, int(seen.memory_full_info().pss), True, suspended)
    except psutil.AccessDenied:
        return Seen(seen.pid, uptime, int(seen.memory_info().rss), False, suspended)
