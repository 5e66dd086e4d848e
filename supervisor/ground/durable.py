"""Replaces a file so that no reader, no crash and no power failure finds a part of it: the one way to write one."""

from __future__ import annotations

import os

TEMPORARY = ".new"


def replace(
    path: str, content: bytes | str, *, mode: int = 0o600, durable: bool = True, only_writer: bool = False
) -> None:
    """Write a file whole or not at all; the directory must exist.

    Args:
        path: the file; its name is on the disk, too, on return.
        content: bytes, or text in UTF-8.
        mode: its exact mode, whatever the umask says. It is private until it is complete.
        durable: wait for the disk (fsync(2)). False: for what lies in memory, and what its command writes again.
        only_writer: the caller holds a lock, so a temporary file that a killed writer left is taken over.

    Raises:
        OSError: the old content is as it was.
    """
    temporary = path + TEMPORARY if only_writer else f"{path}.{os.getpid()}{TEMPORARY}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
