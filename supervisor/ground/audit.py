"""The container's audit log: one JSON object a line, appended by every sidecar and by the hook.

A line is written by one write(2) on an O_APPEND descriptor, so lines of several processes never mix. A full log is
copied into `<name>.1` and emptied in place: a rename would need rights that a confined sidecar does not have, and
would leave the other writers with the old file.
"""

from __future__ import annotations

import os
import time
from fcntl import LOCK_EX, LOCK_UN, flock

from .quick import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

SIZE_MAX = 8 << 20
"""Bytes after which the log becomes `<name>.1`, replacing the one before."""


class Audit:
    """Appends lines to an audit log.

    Args:
        path: the log file; created 0600.
        source: who writes (`vault`, `ssh`, `gate`, `shield`, `hook`).
    """

    def __init__(self, path: str, source: str) -> None:
        self.path, self.source = path, source
        self._fd = _open(path, os.O_APPEND)
        self._old = -1
        self._left = 0
        self._second, self._stamp = -1, ""

    def open_old(self) -> None:
        """Open `<name>.1` too; before a process confines itself, since it opens no file by its path afterwards."""
        if self._old < 0:
            self._old = _open(self.path + ".1", 0)

    def write(self, event: str, **fields: object) -> None:
        """Append one line: time (UTC, ISO 8601), source, event, and what `fields` say. Never pass a secret.

        For a refusal give `verdict="refused"`, `reason` (why) and `allow` (what would allow it).

        Raises:
            OSError: the disk is full or gone; whether to serve without an audit is the caller's decision.
        """
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        stamp = f"{self._stamp}.{int((now - second) * 1000):03d}Z"
        line = dumps({"time": stamp, "source": self.source, "event": event, **fields}, None)
        self.append(line.encode() + b"\n")

    def append(self, data: bytes) -> None:
        """Append whole lines that are JSON already, with one write(2); raises OSError as `write` does."""
        self._left -= len(data)
        if self._left < 0:
            # others write too: the size is looked up again after each part of the whole
            if os.fstat(self._fd).st_size + len(data) > SIZE_MAX:
                self._rotate()
            self._left = SIZE_MAX // 64
        if os.write(self._fd, data) != len(data):
            raise OSError(28, "short write to the audit log")

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)
        if self._old >= 0:
            os.close(self._old)

    def _rotate(self) -> None:
        self.open_old()
        flock(self._old, LOCK_EX)
        try:
            size = os.fstat(self._fd).st_size
            if size <= SIZE_MAX // 2:
                return  # another process has just done it
            os.ftruncate(self._old, 0)
            at = 0
            while at < size and (sent := os.pwrite(self._old, os.pread(self._fd, 1 << 20, at), at)):
                at += sent
            os.ftruncate(self._fd, 0)
        finally:
            flock(self._old, LOCK_UN)


def _open(path: str, flags: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)


def append(path: str, source: str, event: str, **fields: object) -> None:
    """Write one line to the audit log at `path`, for a writer that has only one; raises OSError."""
    log = Audit(path, source)
    try:
        log.write(event, **fields)
    finally:
        log.close()
