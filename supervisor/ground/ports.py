"""Who listens on a TCP port of the host, for the sentence that refuses a start."""

from __future__ import annotations

import os

_LISTEN = "0A"


def owner(port: int) -> str:
    """The listener's command and pid, as far as this process may see it; "" when there is none.

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
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _links(directory: str) -> set[str]:
    found = set()
    try:
        for name in os.listdir(directory):
            found.add(os.readlink(f"{directory}/{name}"))
    except OSError:
        pass  # it has ended, or belongs to another user
    return found


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process"
