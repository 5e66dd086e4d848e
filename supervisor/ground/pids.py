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

_LISTENS = "0A"
"""The state of a listening socket in /proc/net/tcp (proc_net_tcp(5))."""


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


def port_owner(port: int) -> str:
    """The process that listens on a TCP port of the host, as COMMAND (pid PID), if it may be seen; "" for none.

    The table of sockets (proc_net_tcp(5)) names an inode, and the process that holds it is found by its descriptors.
    """
    inodes = {inode for table in ("/proc/net/tcp", "/proc/net/tcp6") for inode in _inodes(table, port)}
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if wanted & _links(f"/proc/{pid}/fd"):
            return f"{_command(pid)} (pid {pid})"
    return "a process of another user"


def _inodes(table: str, port: int) -> list[str]:
    try:
        with open(table, encoding="ascii") as lines:
            rows = [line.split() for line in lines.readlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port]


def _links(directory: str) -> set[str]:
    links = set()
    try:
        for name in os.listdir(directory):
            links.add(os.readlink(f"{directory}/{name}"))
    except OSError:
        pass  # it has ended, or belongs to another user
    return links


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process"
