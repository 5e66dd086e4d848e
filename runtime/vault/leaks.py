"""Finding secrets in directories that a container could write: by the names of known credential files, and by content.

The directories are hostile: a container may change them while they are read. So nothing is followed that is a link,
every file is opened relative to its directory's descriptor, and a file is deleted only when it is still the one
that was found.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

CHUNK = 1 << 20
FILE_MAX = 256 << 20
"""Bytes of a file that are searched; a larger one is searched up to here, and reported as such."""

SECRET_MIN = 8
"""Shorter secrets would be found everywhere."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Found(NamedTuple):
    """A file that holds or may hold a credential.

    Attributes:
        root: the directory that was searched.
        path: the file, relative to it.
        inode: (device, inode), to recognise it.
        agents: whose credential file has this name.
        secrets: `SCOPE/PROVIDER (form)` of the vault's secrets that are in it.
        text: the content of a file with a known name, up to 1 MiB; never shown.
    """

    root: str
    path: str
    inode: tuple[int, int]
    agents: tuple[str, ...]
    secrets: tuple[str, ...]
    text: str

    def __repr__(self) -> str:
        return f"Found({self.root!r}, {self.path!r})"


class Scan:
    """One search.

    Args:
        names: path below a home directory -> agents whose credential file it is.
        secrets: `SCOPE/PROVIDER` -> its secrets.
        skip: directories that are not entered, wherever they are met: terok's own.

    Attributes:
        files: how many files were read.
        unreadable: paths that could not be read.
        cut: paths of files that were read only in part.
    """

    def __init__(
        self, names: Mapping[str, tuple[str, ...]], secrets: Mapping[str, Iterable[bytes]], skip: Iterable[str] = ()
    ) -> None:
        self._names = names
        self._skip = {_inode(os.stat(path)) for path in skip if os.path.isdir(path)}
        self._patterns = [
            (f"{label} ({form})", pattern)
            for label, parts in secrets.items()
            for secret in parts
            if len(secret) >= SECRET_MIN
            for form, pattern in forms(secret)
        ]
        self._overlap = max((len(pattern) for _, pattern in self._patterns), default=1) - 1
        self.files = 0
        self.unreadable: list[str] = []
        self.cut: list[str] = []

    def walk(self, root: str) -> Iterator[Found]:
        """Every file below `root` that matches."""

        def failed(error: OSError) -> None:
            self.unreadable.append(os.path.join(root, str(error.filename)))

        for directory, below, names, fd in os.fwalk(root, onerror=failed, follow_symlinks=False):
            if _inode(os.fstat(fd)) in self._skip:
                below.clear()
                continue
            for name in names:
                path = os.path.relpath(os.path.join(directory, name), root)
                match = self._file(root, path, name, fd)
                if match is not None:
                    yield match

    def _file(self, root: str, path: str, name: str, directory: int) -> Found | None:
        try:
            fd = os.open(name, _FLAGS, dir_fd=directory)
        except OSError as error:
            if error.errno not in _NO_FILE:
                self.unreadable.append(os.path.join(root, path))
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
                return None
            self.files += 1
            agents = self._agents(path)
            secrets = self._search(fd, os.path.join(root, path))
            if not agents and not secrets:
                return None
            text = os.pread(fd, CHUNK, 0).decode("utf-8", "replace") if agents else ""
            return Found(root, path, _inode(status), agents, tuple(secrets), text)
        except OSError:
            self.unreadable.append(os.path.join(root, path))
            return None
        finally:
            os.close(fd)

    def _agents(self, path: str) -> tuple[str, ...]:
        """The agents whose credential file ends like this path."""
        parts = path.split("/")
        return next((agents for start in range(len(parts)) if (agents := self._names.get("/".join(parts[start:])))), ())

    def _search(self, fd: int, path: str) -> list[str]:
        """The labels of all secrets in a file."""
        labels: dict[str, None] = {}
        tail, position = b"", 0
        while self._patterns:
            chunk = os.pread(fd, CHUNK, position)
            if not chunk:
                break
            position += len(chunk)
            window = tail + chunk
            labels.update((label, None) for label, pattern in self._patterns if pattern in window)
            tail = window[-self._overlap :] if self._overlap else b""
            if position >= FILE_MAX:
                self.cut.append(path)
                break
        return list(labels)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


_NO_FILE = frozenset({2, 6, 20, 40})  # ENOENT, ENXIO (a socket), ENOTDIR, ELOOP (a link): nothing to read


def forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """The ways in which a secret may stand in a file: (name of the form, bytes to look for).

    Base64 depends on where the secret begins within a group of three bytes, so there are three of it, each without the
    characters at the ends that also depend on the neighbours.
    """
    seen: set[bytes] = set()
    for form, pattern in [
        ("raw", secret),
        ("JSON", secret.replace(b"/", b"\\/")),
        ("percent-encoded", quote(secret, safe="").encode()),
        ("hexadecimal", secret.hex().encode()),
        ("hexadecimal", secret.hex().upper().encode()),
        ("UTF-16", secret.decode("latin-1").encode("utf-16-le")),
        *(("base64", form) for offset in range(3) for form in _base64(secret, offset)),
    ]:
        if pattern not in seen:
            seen.add(pattern)
            yield form, pattern


def _base64(secret: bytes, offset: int) -> list[bytes]:
    """Both alphabets, for a secret that begins `offset` bytes into a group."""
    encoded = base64.b64encode(bytes(offset) + secret)
    start = (0, 2, 3)[offset]  # characters that hold bits of what stands before
    whole = (offset + len(secret)) // 3 * 4
    inner = encoded[start:whole]
    return [inner, inner.replace(b"+", b"-").replace(b"/", b"_")]


def delete(file: Found) -> bool:
    """Delete a file when it is still the one that was found; False when it has changed meanwhile."""
    try:
        directory, name = open_parent(file.root, file.path)
    except OSError:
        return False
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if _inode(status) != file.inode:
            return False
        os.unlink(name, dir_fd=directory)
        return True
    except OSError:
        return False
    finally:
        os.close(directory)


def open_parent(root: str, path: str) -> tuple[int, str]:
    """A descriptor of the directory of `path` below `root`, reached without following a link, and the last name.

    Raises:
        OSError: a part is missing, is a link, or is no directory.
    """
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    *parents, name = path.split("/")
    for parent in parents:
        try:
            below = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
        finally:
            os.close(directory)
        directory = below
    return directory, name
