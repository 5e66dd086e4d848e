"""The vault's own audit log: JSON Lines, chained by hashes, shared by the vaults of all containers.

Every line ends with `"chain"`: SHA-256 over the chain value before it and the line without that member. A small file
beside the log (`.head`) holds the last chain value, the number of lines and the log's size, so that a line cut off the
end is missed as one taken out of the middle is. All writers hold flock(2) on the head while they append.

The files are opened before the process is confined, and never by path afterwards: a full log is copied into `.1` and
emptied in place. `verify` reads both and says whether the chain holds. What it cannot show: a writer of
the files can make a new chain. Ship the log elsewhere when that matters.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fcntl import LOCK_EX, LOCK_UN, flock
from typing import NamedTuple

from ...store.light import sha256

SIZE_MAX = 32 << 20
START = "0" * 64
"""The chain value before the first line."""
_HEAD_SIZE = 64 + 1 + 12 + 1 + 12 + 1
_TAIL = b', "chain": "%b"}\n'


class Head(NamedTuple):
    """Where the chain stands: last value, lines ever written, bytes in the log."""

    chain: str
    lines: int
    size: int

    def encode(self) -> bytes:
        """Always the same number of bytes, so that one write(2) replaces the other."""
        return b"%b %012d %012d\n" % (self.chain.encode(), self.lines, self.size)

    @classmethod
    def decode(cls, data: bytes) -> Head | None:
        """None for what is not complete."""
        fields = data.decode("ascii", "replace").split()
        if len(data) != _HEAD_SIZE or len(fields) != 3:
            return None
        return cls(fields[0], int(fields[1]), int(fields[2]))


def link(before: str, line: bytes) -> str:
    """The chain value of a line (without its `chain` member and newline)."""
    return sha256(before.encode() + line).hexdigest()


class Journal:
    """Appends to the log.

    Args:
        path: the log; `.head` and `.1` lie beside it. All are created 0600.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._log = os.open(path, flags | os.O_APPEND, 0o600)
        self._head = os.open(path + ".head", flags, 0o600)
        self._old = os.open(path + ".1", flags, 0o600)
        self._known = (b"", Head(START, 0, 0))

    def append(self, bodies: Sequence[bytes]) -> None:
        """Write lines, all or none. A body is a JSON object without its closing brace.

        Raises:
            OSError: they could not be written; nothing of them is in the log then.
        """
        flock(self._head, LOCK_EX)
        try:
            head = self._find_head()
            if head.size > SIZE_MAX:
                head = self._rotate(head)
            chain = head.chain
            lines = []
            for body in bodies:
                chain = link(chain, body)
                lines.append(body + _TAIL % chain.encode())
            data = b"".join(lines)
            self._write(data, head.size)
            head = Head(chain, head.lines + len(lines), head.size + len(data))
            self._known = (head.encode(), head)
            os.pwrite(self._head, self._known[0], 0)
        finally:
            flock(self._head, LOCK_UN)

    def _write(self, line: bytes, size: int) -> None:
        try:
            if os.write(self._log, line) != len(line):
                raise OSError(28, "No space left on device")
        except OSError:
            os.ftruncate(self._log, size)
            raise

    def _find_head(self) -> Head:
        """Where the chain stands; a writer that was killed between its two writes is made good."""
        size = os.fstat(self._log).st_size
        written = os.pread(self._head, _HEAD_SIZE, 0)
        known, head = self._known
        if written != known:
            head = Head.decode(written) or Head(START, 0, 0)
        if head.size == size:
            return head
        chain, count = head.chain, head.lines
        if size > head.size:
            for line in os.pread(self._log, size - head.size, head.size).splitlines():
                chain, count = _chain_of(line) or chain, count + 1
        return Head(chain, count, size)

    def _rotate(self, head: Head) -> Head:
        os.ftruncate(self._old, 0)
        os.lseek(self._old, 0, os.SEEK_SET)
        at = 0
        while at < head.size:
            sent = os.sendfile(self._old, self._log, at, head.size - at)
            if sent == 0:
                break
            at += sent
        os.ftruncate(self._log, 0)
        return Head(head.chain, head.lines, 0)


def _chain_of(line: bytes) -> str | None:
    body, mark, chain = line.rpartition(b', "chain": "')
    return chain[:-2].decode("ascii", "replace") if body and mark and len(chain) == 66 else None


class Verdict(NamedTuple):
    """What `verify` found: `lines` read, and the first thing that is wrong (empty: nothing)."""

    lines: int
    wrong: str


def verify(path: str) -> Verdict:
    """Follow the chain through `.1` and the log, and compare its end with the head.

    Raises:
        OSError: the log cannot be read.
    """
    count = 0
    chain: str | None = None
    for name, number, line in _lines(path):
        count += 1
        body, _, _ = line.rpartition(b', "chain": "')
        value = _chain_of(line)
        if value is None:
            return Verdict(count, f"{name}:{number} has no chain value")
        # the first line that is left continues lines that were rotated away: only the head's own start is known
        if chain is not None and link(chain, body) != value:
            return Verdict(
                count, f"{name}:{number} does not follow from the line before it: one was changed or removed"
            )
        if chain is None and link(START, body) != value and not _rotated(path, count):
            return Verdict(
                count, f"{name}:{number} is not the first line that was written: the ones before it are gone"
            )
        chain = value
    return Verdict(count, _check_head(path, chain, count))


def _rotated(path: str, read: int) -> bool:
    """Whether lines were rotated away for good: more were written than two files can hold."""
    head = _read_head(path)
    kept = sum(os.stat(file).st_size for file in (path, path + ".1") if os.path.exists(file))
    return head is not None and head.lines > read and kept > SIZE_MAX


def _read_head(path: str) -> Head | None:
    try:
        with open(path + ".head", "rb") as file:
            return Head.decode(file.read())
    except FileNotFoundError:
        return None


def _check_head(path: str, chain: str | None, count: int) -> str:
    head = _read_head(path)
    if head is None:
        return "" if not count else "the head file is missing or damaged"
    if head.chain != (chain or START):
        return "the log does not end where the head says: lines at its end were changed or removed"
    if head.lines < count or (head.lines > count and not _rotated(path, count)):
        return f"the head counts {head.lines} lines, the log has {count}"
    return ""


def _lines(path: str) -> Iterator[tuple[str, int, bytes]]:
    for name in (path + ".1", path):
        try:
            file = open(name, "rb")
        except FileNotFoundError:
            if name == path:
                raise
            continue
        with file:
            for number, line in enumerate(file, 1):
                yield os.path.basename(name), number, line.rstrip(b"\n")
