"""What a container's life leaves behind: processes, sockets, mounts, namespaces, files. Compare before and after."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, fields
from pathlib import Path

from terok_host.supervisor.ground.layout import handover_socket

from .house import House, in_lab


@dataclass(frozen=True)
class Traces:
    """Everything of a house that the kernel and the disk show at one moment."""

    processes: frozenset[str]
    sockets: frozenset[str]
    mounts: frozenset[str]
    namespaces: frozenset[str]
    files: frozenset[str]

    def beyond(self, before: Traces) -> list[str]:
        """What is here and was not `before`, one line each."""
        return [
            f"{field.name}: {each}"
            for field in fields(self)
            for each in sorted(getattr(self, field.name) - getattr(before, field.name))
        ]


def read(path: Path) -> str:
    """A file of /proc; empty when its process has ended or is somebody else's."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := read(entry / "stat")):
            found[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def _own(parents: dict[int, int]) -> set[int]:
    """This process and all that it started and still knows: stand-ins, not leaks (a leak has lost its parent)."""
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return own


def _links(directory: Path, pattern: str) -> set[str]:
    found = set()
    try:
        for entry in directory.iterdir():
            try:
                target = os.readlink(entry)
            except OSError:
                continue
            if re.match(pattern, target):
                found.add(target)
    except OSError:
        pass
    return found


def take(house: House, *, bundles: bool = True) -> Traces:
    """The traces of a house now.

    Args:
        house: whose.
        bundles: also the files of state bundles, which outlive a stop by design and end with `terok cleanup`.
    """
    base = str(house.base)
    parents = _parents()
    processes, mounts, namespaces, seen = set(), set(), set(), set()
    for pid in sorted(parents.keys() - _own(parents)):
        proc = Path(f"/proc/{pid}")
        command = read(proc / "cmdline").replace("\0", " ").strip() or f"[{read(proc / 'comm').strip()}]"
        if pid == 1 or not (in_lab() or base in command or base in read(proc / "environ")):
            continue
        processes.add(f"{pid} {command[:200]}")
        namespaces |= _links(proc / "ns", r"(net|mnt|user|pid):") | _links(proc / "fd", r"(net|mnt|user|pid):\[")
        mount_namespace = next(iter(_links(proc / "ns", "mnt:")), "")
        if mount_namespace not in seen:
            seen.add(mount_namespace)
            for line in read(proc / "mountinfo").splitlines():
                root, point = line.split()[3:5]
                if point.endswith("/storage/overlay"):
                    continue  # Podman binds its storage onto itself when it likes
                if base in line or point.startswith("/run/terok"):
                    mounts.add(f"{root} on {point}")
                if root.startswith(("net:[", "mnt:[")):
                    namespaces.add(root)
    unlocked = Path(house.layout.unlocked_key).parent  # the operator's, not a container's
    shared = Path(handover_socket(house.layout.runtime_dir("x"))).parent  # all containers' sockets are in it
    runtime = (path for path in Path(house.layout.runtime).rglob("*") if path != shared)
    files = {str(path) for path in runtime if unlocked not in (path, path.parent)}
    if bundles:  # the lock beside them stays
        files |= {str(path) for path in Path(house.layout.containers).rglob("*") if path.name != ".lock"}
    return Traces(
        frozenset(processes), frozenset(_sockets(base)), frozenset(mounts), frozenset(namespaces), frozenset(files)
    )


def _sockets(base: str) -> set[str]:
    """Unix sockets below `base`, and in the lab every listening TCP port of the host's network namespace."""
    found = {line.split()[7] for line in read(Path("/proc/net/unix")).splitlines()[1:] if base in line}
    if in_lab():
        for table in ("tcp", "tcp6"):
            for line in read(Path(f"/proc/net/{table}")).splitlines()[1:]:
                local, _, state, *_, inode = line.split()[1:10]
                if state == "0A" and f"socket:[{inode}]" not in _own_sockets():
                    found.add(f"{table} {local}")
    return found


def _own_sockets() -> set[str]:
    return {link for pid in _own(_parents()) for link in _links(Path(f"/proc/{pid}/fd"), r"socket:\[")}


def left(house: House, before: Traces, *, within: float, bundles: bool = True) -> list[str]:
    """What is left of a life after `within` seconds at the latest, one line each; empty when nothing is."""
    deadline = time.monotonic() + within
    while True:
        rest = take(house, bundles=bundles).beyond(before)
        if not rest or time.monotonic() > deadline:
            return rest
        time.sleep(0.01)  # the kernel has no event for "no process holds it any more"
