"""Writes the bundle's files: private from their first byte, and either whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock

from ...supervisor.ground import durable
from ...supervisor.ground.errors import TerokError


def make_dir(path: str, mode: int = 0o700) -> str:
    """Make a directory and its parents, and give the last one exactly `mode` whatever the umask; returns `path`.

    Raises:
        TerokError: it can't be made, or belongs to another user.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if os.stat(path).st_uid != os.geteuid():
            raise TerokError(f"The directory {path} belongs to another user.", fix="move it away, or change paths.*")
        os.chmod(path, mode)
    except OSError as error:
        raise TerokError(f"Could not create the directory {path}: {error.strerror}.") from error
    return path


def write(path: str, content: str | bytes, *, mode: int = 0o600, sync: bool = False) -> None:
    """Replace `path` by a file with `content` and exactly `mode`, in one step; `sync`: and wait for the disk.

    Raises:
        TerokError: the disk is full or the directory not writable; the old file is still there.
    """
    try:
        durable.replace(path, content, mode=mode, durable=sync)
    except OSError as error:
        raise TerokError(f"Could not write {path}: {error.strerror}.") from error


def remove_file(path: str) -> bool:
    """Remove a file; False when there is none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def write_json(path: str, data: object) -> None:
    """`write` a JSON document, 0600, readable by people."""
    write(path, json.dumps(data, indent=2) + "\n")


def read_json(path: str) -> object:
    """A JSON file of terok, or None when it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold an exclusive flock(2) on `path` (made when missing): one launch at a time allocates and writes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        flock(fd, LOCK_EX)
        yield
    finally:
        os.close(fd)
