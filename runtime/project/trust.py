"""Remembers, by content, which project files the operator has trusted; shows what changed since."""

from __future__ import annotations

import os

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Layout
from ..kit import files
from ..kit.config import Config
from ..kit.table import escaped
from . import FILE, connected, rights
from .file import Found, read
from .rights import Widening


def is_trusted(layout: Layout, file: Found) -> bool:
    """Whether the operator has trusted exactly this content in this directory."""
    return _remembered(layout, file.directory).get("digest") == file.digest


def remember(layout: Layout, file: Found) -> None:
    """Trust this content in this directory, and nothing else there; with it the scope that the file names."""
    files.make_dir(layout.trust)
    record = {
        "directory": file.directory,
        "digest": file.digest,
        "text": file.text,
        "containerfile": file.containerfile,
    }
    files.write_json(layout.trust_file(file.directory), record)
    if file.project.scope is not None:
        connected.connect(layout, file.directory, file.project.scope)


def forget(layout: Layout, directory: str) -> bool:
    """Trust nothing in a directory, and let it use no scope; whether something was trusted there."""
    real = os.path.realpath(directory)
    used = connected.forget(layout, real)
    return files.remove_file(layout.trust_file(real)) or used


def diff(layout: Layout, file: Found) -> list[str]:
    """Both files as a unified diff to what was trusted last, without anything that a terminal would act on."""
    import difflib  # 6 ms

    before = _remembered(layout, file.directory)
    lines: list[str] = []
    pairs = [(FILE, before.get("text", ""), file.text)]
    pairs.append((file.project.containerfile or "Containerfile", before.get("containerfile", ""), file.containerfile))
    for name, old, new in pairs:
        if old != new:
            lines += difflib.unified_diff(
                old.splitlines(), new.splitlines(), f"trusted/{name}", f"now/{name}", lineterm=""
            )
    return [escaped(line) for line in lines]


def asked(file: Found, cfg: Config, *, scope: str | None = None) -> list[Widening]:
    """What a file asks for beyond the configuration, trusted or not; arguments as for `judged`."""
    used = connected.scopes(cfg.layout, file.directory)
    return rights.widenings(file.project, cfg, used if scope is None else [*used, scope])


def judged(file: Found, cfg: Config, *, scope: str | None = None, only: frozenset[str] | None = None) -> list[Widening]:
    """What a file asks for beyond the configuration and is not trusted for.

    Args:
        file: the file.
        cfg: the operator's configuration.
        scope: the scope that the operator named.
        only: the keys that the caller takes from the file; None: all.
    """
    widenings = [widening for widening in asked(file, cfg, scope=scope) if only is None or widening.key in only]
    return [] if not widenings or is_trusted(cfg.layout, file) else widenings


def require(file: Found, cfg: Config, *, scope: str | None = None, only: frozenset[str] | None = None) -> None:
    """Raise TerokError (REFUSED) when a file asks for something that it is not trusted for; arguments as `judged`."""
    widenings = judged(file, cfg, scope=scope, only=only)
    if widenings:
        more = f" and {len(widenings) - 3} more" if len(widenings) > 3 else ""
        listed = "; ".join(escaped(widening.sentence) for widening in widenings[:3])
        raise TerokError(
            f"The project file {escaped(file.path)} asks for what only you can allow: {listed}{more}.",
            fix=paste.command("terok", "trust", file.directory) or "terok trust in that directory",
            code=Exit.REFUSED,
        )


def applied(cfg: Config, directory: str) -> Config:
    """The configuration with the keys that `terok run` and `terok prepare` take from a directory's project file.

    Raises:
        TerokError: the file is wrong (USAGE), or asks for more without being trusted (REFUSED).
    """
    file = read(directory)
    if file is None:
        return cfg
    require(file, cfg, only=frozenset(rights.CONFIGURED))
    return rights.apply(file.project, cfg)


def _remembered(layout: Layout, directory: str) -> dict[str, str]:
    record = files.read_json(layout.trust_file(directory))
    if not isinstance(record, dict) or record.get("directory") != directory:
        return {}
    return {name: value for name, value in record.items() if isinstance(value, str)}
