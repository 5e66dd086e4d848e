"""The container's audit log: one JSON object a line, appended by every sidecar and by the hook.

A line is written by one write(2) on an O_APPEND descriptor, so lines of several processes never mix.
"""

from __future__ import annotations

import os
import time

from .quick import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIZE_MAX = 8 << 20
"""Bytes after which the log is renamed to `<name>.1`, replacing the one before."""


class Audit:
    """Appends lines to an audit log.

    Args:
        path: the log file; created 0600.
        source: who writes (`vault`, `ssh`, `gate`, `shield`, `hook`).
    """

    def __init__(self, path: str, source: str) -> None:
        self.path, self.source = path, source
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, event: str, **fields: Any) -> None:
        """Append one line: time (UTC, ISO 8601), source, event, and what `fields` say. Never pass a secret.

        For a refusal give `verdict="refused"`, `reason` (why) and `allow` (what would allow it).

        Raises:
            OSError: the disk is full or gone; whether to serve without an audit is the caller's decision.
        """
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        line = dumps({"time": stamp, "source": self.source, "event": event, **fields}, None)
        data = line.encode() + b"\n"
        if os.fstat(self._fd).st_size + len(data) > SIZE_MAX:
            self._rotate()
        if os.write(self._fd, data) != len(data):
            raise OSError(28, "short write to the audit log")

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)

    def _rotate(self) -> None:
        os.replace(self.path, self.path + ".1")
        os.close(self._fd)
        self._fd = self._open()


def append(path: str, source: str, event: str, **fields: Any) -> None:
    """Write one line to the audit log at `path`, for a writer that has only one; raises OSError."""
    log = Audit(path, source)
    try:
        log.write(event, **fields)
    finally:
        log.close()
