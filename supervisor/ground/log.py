"""The supervisor's log: descriptor 2, opened for appending by the hook."""

from __future__ import annotations

import os
import time

SIZE_MAX = 4 << 20


def say(line: str) -> None:
    """Write one line.

    A full or read-only disk (write(2): ENOSPC, EDQUOT, EIO; EROFS at the opening) loses the line and nothing else:
    the error that would be raised is the very one that is being reported.
    """
    try:
        os.write(2, f"{line}\n".encode(errors="replace"))
    except OSError:
        pass


def trim() -> None:
    """Empty the log when it is large: what a restarting service prints may not fill the disk."""
    try:
        if os.fstat(2).st_size > SIZE_MAX:
            os.ftruncate(2, 0)
    except OSError:
        pass


def size() -> int:
    """How much is in the log, for `since`."""
    try:
        return os.fstat(2).st_size
    except OSError:
        return 0


def last_line(path: str, since: int, others: tuple[str, ...] = ()) -> str:
    """The last line that was written to the log at `path` after it had the size `since`; "" when there is none.

    Lines that begin with one of `others` are passed over: several services write to the log of one container.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(since, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    own = (line.strip()[:200] for line in reversed(lines) if line.strip() and not line.startswith(others))
    return next(own, "")


_steps = -1


def trace(path: str) -> None:
    """Write the steps of this process, and of those forked from it, to the end of a file; `make bench` asks for it.

    Only an argument in the hook's descriptor does: no container, image or environment can.
    """
    global _steps
    _steps = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def mark(step: str) -> None:
    """Note that a step is done: the clock and this process's processor time in nanoseconds, its id, the step."""
    if _steps >= 0:
        os.write(_steps, f"{time.monotonic_ns()} {time.process_time_ns()} {os.getpid()} {step}\n".encode())
