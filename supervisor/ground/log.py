"""The supervisor's log: descriptor 2, opened for appending by the hook."""

from __future__ import annotations

import os

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


def last_line(path: str, since: int) -> str:
    """The last line that was written to the log at `path` after it had the size `since`; "" when there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(since, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
