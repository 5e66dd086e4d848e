"""Replaces a file so that neither a crash nor a power failure leaves a part of it."""

from __future__ import annotations

import os


def replace(path: str, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, and on disk on return (fsync(2)); the directory must exist.

    Raises:
        OSError: the old content is as it was.
    """
    temporary = f"{path}.{os.getpid()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
