"""Processes of one container that the kernel knows of, whatever the record says.

The record may be damaged, or older than the last fork. What cannot be wrong: in which network namespace a process is
(namespaces(7)), which files it holds open, and which program it was started with.
"""

from __future__ import annotations

import os

from .ground.pids import Process, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .ground.layout import Bundle

DNSMASQ = "dnsmasq"
NAMES = ("terok-superv", "terok-standby")
"""What supervisor and standby are called (proc_pid_comm(5)); a hook that waits for the same lock is not."""


def resolvers(net: int) -> list[Process]:
    """Every dnsmasq of terok in the network namespace behind the descriptor.

    The container's own programs share that network but not this process's mount namespace.
    """
    link, mount = f"net:[{os.fstat(net).st_ino}]", _link("self", "ns/mnt")
    return [
        process
        for pid, process in _processes()
        if _link(pid, "ns/net") == link and _link(pid, "ns/mnt") == mount and _name(pid) == DNSMASQ
    ]


def of_bundle(bundle: Bundle) -> list[tuple[str, Process]]:
    """Supervisor and standby (they hold the bundle's lock) and its dnsmasq (started with the bundle's file)."""
    option = f"--conf-file={bundle.dnsmasq_conf}".encode()
    strays = []
    for pid, process in _processes():
        name = _name(pid)
        if name in NAMES and bundle.lock in _open_files(pid):
            strays.append(("supervisor" if name == NAMES[0] else "standby", process))
        elif name == DNSMASQ and option in _arguments(pid):
            strays.append((DNSMASQ, process))
    return strays


def _processes() -> Iterator[tuple[str, Process]]:
    own = str(os.getpid())
    for pid in os.listdir("/proc"):
        if pid.isdigit() and pid != own:
            try:
                yield pid, Process(int(pid), start_time(int(pid)))
            except OSError:
                continue  # it has just ended


def _link(pid: str, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""  # it has ended, or is another user's


def _name(pid: str) -> str:
    return _read(pid, "comm").decode(errors="replace").rstrip("\n")


def _arguments(pid: str) -> list[bytes]:
    return _read(pid, "cmdline").split(b"\0")


def _read(pid: str, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def _open_files(pid: str) -> set[str]:
    try:
        return {_link(pid, f"fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    except OSError:
        return set()
