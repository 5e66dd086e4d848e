"""The project file as a frozen record. Each key is one field: the reader, the schema and the documents come from it."""

from __future__ import annotations

import dataclasses
import os
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ...supervisor.ground.errors import Exit, TerokError
from ..kit.config import NETWORK_MODES
from . import FILE, kinds
from .kinds import Kind

_FILE_MAX, _CONTAINERFILE_MAX = 64 << 10, 256 << 10
"""Bytes; a person reads both files before trusting them."""


def key(kind: Kind, doc: str) -> Any:
    """A key: what its value may be, and one sentence about it."""
    return field(default=None, metadata={"kind": kind, "doc": doc})


@dataclass(frozen=True)
class Project:
    """What a project file says; None: nothing about that."""

    agent: str | None = key(kinds.NAME, "The agent that `terok start` starts when none is named.")
    image: str | None = key(kinds.IMAGE, "The image to use instead of the agent's own.")
    containerfile: str | None = key(
        kinds.INSIDE,
        "A Containerfile below the project, built without a context. `ARG AGENT_IMAGE` and `FROM ${AGENT_IMAGE}` "
        "begin with the agent's own image.",
    )
    scope: str | None = key(
        kinds.NAME, "Whose credentials, keys and mirrors; default: what the directory used last, else named like it."
    )
    profiles: tuple[str, ...] | None = key(kinds.list_of(kinds.NAME), "Shield profiles.")
    allow: tuple[str, ...] | None = key(kinds.list_of(kinds.TARGET), "Further destinations that may be reached.")
    publish: tuple[str, ...] | None = key(
        kinds.list_of(kinds.PUBLISHED, 32), "Ports to publish, on 127.0.0.1 unless an address is given."
    )
    mounts: tuple[str, ...] | None = key(
        kinds.list_of(kinds.MOUNT, 32), "Further directories of the host; DIR is relative to the project."
    )
    environment: tuple[tuple[str, str], ...] | None = key(kinds.variables(), "Environment variables.")
    network: str | None = key(kinds.one_of(NETWORK_MODES), "The network mode.")
    gate: bool | None = key(kinds.boolean(), "Whether the git gate serves the container.")
    vault: bool | None = key(kinds.boolean(), "Whether the vault serves the container.")
    ssh: bool | None = key(kinds.boolean(), "Whether the SSH signer serves the container.")
    restricted: bool | None = key(kinds.boolean(), "Start as with --restricted.")
    memory: str | None = key(kinds.MEMORY, "The memory limit of --restricted.")
    pids: int | None = key(kinds.count(), "The limit of processes of --restricted.")
    agents: tuple[str, ...] | None = key(kinds.list_of(kinds.NAME), "Further agents to configure in the container.")


def keys() -> dict[str, tuple[Kind, str]]:
    """Every key with its kind and its sentence, in the order of the documents."""
    return {member.name: (member.metadata["kind"], member.metadata["doc"]) for member in dataclasses.fields(Project)}


@dataclass(frozen=True)
class Found:
    """A project file that was read.

    Attributes:
        directory: the project, absolute and without links.
        project: what the file says.
        text: the file.
        containerfile: the text of the Containerfile that it names; empty without one.
    """

    directory: str
    project: Project
    text: str
    containerfile: str

    @property
    def digest(self) -> str:
        """What trust is remembered by: the content of both files."""
        parts = (self.text.encode(), self.containerfile.encode())
        return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()

    @property
    def path(self) -> str:
        """The file's path."""
        return os.path.join(self.directory, FILE)


def read(directory: str) -> Found | None:
    """The project file of a directory; None when there is none.

    Raises:
        TerokError: the file is wrong (USAGE), with line and column.
    """
    real = os.path.realpath(directory)
    path = os.path.join(real, FILE)
    content = _content(path, _FILE_MAX, missing=None)
    if content is None:
        return None
    project = parse(content, path)
    containerfile = ""
    if project.containerfile is not None:
        where = os.path.join(real, project.containerfile)
        if os.path.commonpath([real, os.path.realpath(where)]) != real:
            raise TerokError(f"{path}: the Containerfile leads out of the project.", code=Exit.REFUSED)
        containerfile = _content(where, _CONTAINERFILE_MAX, missing=path) or ""
    return Found(real, project, content, containerfile)


def parse(content: str, path: str) -> Project:
    """What the text of a project file says; raises TerokError (USAGE)."""
    from ..kit.config_file import parse_flat  # YAML, which most launches do not need

    checks = {name: kind.check for name, (kind, _) in keys().items()}
    values: dict[str, Any] = parse_flat(content, path, checks)
    project = Project(**values)
    if project.image is not None and project.containerfile is not None:
        raise TerokError(f"{path}: image and containerfile exclude each other.", code=Exit.USAGE)
    return project


def _content(path: str, most: int, *, missing: str | None) -> str | None:
    """A regular file's text; None when it does not exist and `missing` is None, else the file that names it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        if missing is None:
            return None
        raise TerokError(f"{missing}: there is no file {path}.", code=Exit.USAGE) from error
    except OSError as error:
        raise TerokError(f"The project file {path} could not be read: {error.strerror}.", code=Exit.USAGE) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise TerokError(f"{path} is not a regular file.", code=Exit.USAGE)
    with open(fd, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise TerokError(f"{path} is larger than {most >> 10} KiB.", code=Exit.USAGE)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise TerokError(f"The project file {path} is not UTF-8.", code=Exit.USAGE) from error
