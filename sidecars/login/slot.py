"""The slot of one credential's refresh: a lock, and a place on the disk where an answer survives a crash.

One file a credential in `vault/refresh/`, named by a hash of scope and name. Holding its flock(2) is owning the refresh
on this machine. Its content is empty, `sent`, or a sealed answer; see `refresh.py` for what follows from each. The
space is allocated before the request is sent: a disk that fills up in between cannot lose the answer.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING

from ...supervisor.ground.errors import TerokError
from ..store.light import sha256
from ..store.seal import SealBroken

if TYPE_CHECKING:
    from ..store.records import Item
    from ..store.store import Store

ANSWER_MAX = 256 << 10
"""Bytes of a token endpoint's answer; real ones have a few KiB."""

_SPACE = ANSWER_MAX * 2
_SENT = b"terok refresh sent\n"
_ANSWER = b"terok refresh answer\n"


class Slot:
    """The held slot of one credential; waits for another owner when opened. A context manager.

    Args:
        directory: where slots are; made when missing.
        scope, name: the credential.
        wait: False raises BlockingIOError instead of waiting for another owner.
    """

    def __init__(self, directory: str, scope: str, name: str, *, wait: bool = True) -> None:
        self.scope, self.name = scope, name
        os.makedirs(directory, mode=0o700, exist_ok=True)
        identity = sha256(f"{len(scope)}:{scope}{name}".encode()).hexdigest()[:32]
        self._fd = os.open(f"{directory}/{identity}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            os.close(self._fd)
            raise

    def __repr__(self) -> str:
        return f"Slot({self.scope!r}, {self.name!r})"

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the next owner in."""
        os.close(self._fd)

    def mark_sent(self) -> None:
        """Say durably that a request is about to be sent, and have the space for its answer.

        Raises:
            TerokError: there is no space; nothing was sent.
        """
        try:
            os.posix_fallocate(self._fd, 0, _SPACE)
            self._write(_SENT)
        except OSError as error:
            raise TerokError(f"There is no room for a new login's tokens: {error.strerror}.") from error

    def keep(self, store: Store, item: Item, status: int, body: bytes) -> None:
        """Put an answer on the disk, sealed, before anything is done with it."""
        text = json.dumps({"status": status, "body": body.decode("utf-8", "replace")}).encode()
        sealed = store.seal(self._identity(item), text)
        self._write(_ANSWER + len(sealed).to_bytes(4, "big") + sealed)

    def answer(self, store: Store, item: Item) -> tuple[int, bytes] | None:
        """An answer that was kept for this version of the credential and is not in the store yet."""
        data = os.pread(self._fd, _SPACE, 0)
        if not data.startswith(_ANSWER):
            return None
        start = len(_ANSWER) + 4
        size = int.from_bytes(data[start - 4 : start], "big")
        try:
            fields = json.loads(store.open_sealed(self._identity(item), data[start : start + size]))
        except SealBroken:
            return None  # torn by a crash, or for a version that the store has left behind
        return int(fields["status"]), str(fields["body"]).encode()

    def clear(self) -> None:
        """Forget what was kept: it is in the store."""
        os.ftruncate(self._fd, 0)
        os.fsync(self._fd)

    def _write(self, data: bytes) -> None:
        if os.pwrite(self._fd, data, 0) != len(data):
            raise OSError(28, "short write")
        os.fsync(self._fd)

    def _identity(self, item: Item) -> tuple[str | int, ...]:
        return "terok refresh answer", item.kind, item.scope, item.name, item.version
