"""The containers, and whether the supervisor of each is alive, from the record that it writes; and its end."""

from __future__ import annotations

import os

from ...supervisor import record
from ...supervisor.ground import paste, process
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle, Layout, is_name
from ...supervisor.record import Record
from . import files

END_SECONDS = 3.0
"""How long a supervisor may take to end after its container has ended or it was told to."""


def supervisor_fd(bundle: Bundle) -> int | None:
    """A pidfd on the container's live supervisor; None when none runs. The caller closes it."""
    known = record.read(bundle.record)
    return known.supervisor.open() if known and known.supervisor and not known.over() else None


def container_alive(bundle: Bundle) -> bool:
    """Whether the container's init, as the record names it, is still a running process."""
    known = record.read(bundle.record)
    return known is not None and known.alive()


def containers(layout: Layout) -> list[str]:
    """Names of all containers that have a state bundle, in order."""
    try:
        entries = [entry for entry in os.scandir(layout.containers) if is_name(entry.name)]
    except FileNotFoundError:
        return []
    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def running_in_scope(layout: Layout, scope: str) -> list[str]:
    """The names of the containers that run with the credentials of a scope."""
    running = []
    for name in containers(layout):
        bundle = layout.bundle(name)
        meta = files.read_json(bundle.meta)
        if isinstance(meta, dict) and meta.get("scope") == scope and container_alive(bundle):
            running.append(name)
    return running


def missing_sockets(known: Record) -> list[str]:
    """Unix sockets that a live supervisor serves and that are gone, as after the runtime directory was removed."""
    return [path for path in known.sockets if path.startswith("/") and not os.path.exists(path)]


def refuse_if_running(bundle: Bundle) -> None:
    """Raise TerokError (REFUSED) when the container runs: its wiring is in use. Waits while its supervisor ends."""
    fd = supervisor_fd(bundle)
    if fd is None:
        return
    try:
        if not container_alive(bundle) and process.wait_gone(fd, END_SECONDS):
            return
    finally:
        os.close(fd)
    raise TerokError(
        f"{bundle.name} is running; its wiring cannot be changed.",
        fix=paste.command("podman", "stop", bundle.name),
        code=Exit.REFUSED,
    )
