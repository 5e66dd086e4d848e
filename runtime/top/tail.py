"""Reads what is new in an audit log, and at first its end: a log may be long, and its writers parse hostile bytes."""

from __future__ import annotations

import os
import stat

from ..kit.audit_lines import decode

PART = 256 << 10
"""Bytes of a log that are read at once: its end at first, and what one look may add."""
LINE_MAX = 16 << 10
"""A longer line is passed over."""


class Tail:
    """One log, followed from the last `PART` bytes on.

    Args:
        path: the log.

    Attributes:
        truncated: something was passed over: what stood before, or more than `PART` bytes between two looks.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._at = 0
        self._file = (0, 0)
        self._rest = b""
        self.truncated = False

    def new(self) -> list[dict[str, object]]:
        """Entries that were not seen before; nothing when the log is absent or cannot be read."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return []
        try:
            data = self._read(fd)
        except OSError:
            return []
        finally:
            os.close(fd)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[: LINE_MAX + 1]
        texts = (line.decode("utf-8", "replace") for line in lines if 0 < len(line) <= LINE_MAX)
        return [entry for entry in map(decode, texts) if entry]

    def _read(self, fd: int) -> bytes:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return b""
        same = self._file == (info.st_dev, info.st_ino)
        self._file = (info.st_dev, info.st_ino)
        if not same or info.st_size < self._at:
            self._at, self._rest = 0, b""  # another file, or emptied when it was full
        if info.st_size - self._at <= PART:
            data = os.pread(fd, info.st_size - self._at, self._at)
            self._at += len(data)
            return data
        self.truncated = True
        data = os.pread(fd, PART, info.st_size - PART)
        self._at, self._rest = info.st_size - PART + len(data), b""
        return data.partition(b"\n")[2]  # it begins inside a line
