"""Whether a container's supervisor is alive, from the record that it writes; and its end."""

from __future__ import annotations

import os
import signal

from ...supervisor import process, record
from ...supervisor.errors import Exit, TerokError
from ...supervisor.layout import Bundle

END_SECONDS = 3.0
"""How long a supervisor may take to end after its container has ended or it was told to."""


def supervisor_fd(bundle: Bundle) -> int | None:
    """A pidfd on the container's live supervisor; None when none runs. The caller closes it."""
    known = record.read(bundle.record)
    if known is None or known.get("phase") in ("ended", "failed"):
        return None
    pid, started = known.get("pid"), known.get("start_time")
    if not isinstance(pid, int) or not isinstance(started, int):
        return None
    return process.open_same(pid, started)


def container_alive(bundle: Bundle) -> bool:
    """Whether the container's init, as the record names it, is still a running process."""
    known = record.read(bundle.record)
    pid = known.get("container_pid") if known else None
    if not isinstance(pid, int):
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


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
        f"The container {bundle.name} is running with this wiring.", fix=f"podman stop {bundle.name}", code=Exit.REFUSED
    )


def end_supervisor(bundle: Bundle) -> None:
    """Tell the container's supervisor to end, and kill it when it does not within `END_SECONDS`."""
    fd = supervisor_fd(bundle)
    if fd is None:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        if not process.wait_gone(fd, END_SECONDS):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            process.wait_gone(fd, END_SECONDS)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)
