"""Processes as kernel objects: a pidfd stays with its process, a pid may be another's tomorrow."""

from __future__ import annotations

import os
import select

from .quick import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from .frozen import dataclass


def pidfd(pid: int) -> int:
    """A descriptor that becomes readable when the process ends (pidfd_open(2)); ProcessLookupError when it has."""
    return os.pidfd_open(pid)


def wait_gone(fd: int, timeout: float) -> bool:
    """True when the process behind the pidfd has ended within `timeout` seconds."""
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    return bool(waiting.poll(timeout * 1000))


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (proc_pid_stat(5), field 22); ProcessLookupError if gone.

    The command name may hold spaces and parentheses: fields are counted from the last ')'.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[19])
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None


def open_same(pid: int, started: int) -> int | None:
    """A pidfd of the process that had this pid and start time; None when it has ended (its pid may be another's)."""
    if pid <= 0:
        return None
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if start_time(pid) == started:
            return fd
    except ProcessLookupError:
        pass
    os.close(fd)
    return None


def signal_pidfd(fd: int, number: int) -> None:
    """Signal the process behind the pidfd; harmless when it has ended."""
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass


@dataclass(frozen=True)
class Process:
    """One process: its pid and start time (in clock ticks since boot), which together are never another's."""

    pid: int
    start_time: int

    def open(self) -> int | None:
        """A pidfd; None when the process has ended. The caller closes it."""
        return open_same(self.pid, self.start_time)

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fd = self.open()
        if fd is None:
            return False
        try:
            return not wait_gone(fd, 0)
        finally:
            os.close(fd)
