"""The roster: bundled and personal YAML files, compiled into `routes.json`, and compiled again when one has changed.

Importing this module and loading a current `routes.json` reads no YAML; PyYAML is imported when something must be
compiled. A personal file (`roster.d/*.yml`) may define providers and agents or replace bundled ones of the same name.
A file that is wrong changes nothing: the old `routes.json` stays, and the error says file, line and key.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...supervisor.ground import durable
from . import catalog
from .model import Catalog, Source

if TYPE_CHECKING:
    from ...supervisor.ground.layout import Layout


def load(layout: Layout) -> tuple[Catalog, str]:
    """The current catalogue, compiled first when it is missing or a roster file has changed since.

    Returns:
        The catalogue, and a warning: empty, or why a changed roster was not taken and the old routes are used.

    Raises:
        TerokError: the roster is wrong and there are no old routes.
    """
    old = _load_or_none(layout.vault_routes)
    if old is not None and old.sources == sources(layout):
        return old, ""
    from .nodes import RosterError

    try:
        return write_routes(layout), ""
    except RosterError as error:
        if old is None:
            raise
        return old, f"The old routes are used: {error}"


def write_routes(layout: Layout) -> Catalog:
    """Compile every roster file and replace `routes.json` in one step.

    Raises:
        RosterError: a file is wrong; nothing was changed.
    """
    from .compile import compile_files

    files = sources(layout)
    catalogue = compile_files([source.path for source in files])._replace(sources=files)
    os.makedirs(os.path.dirname(layout.vault_routes), mode=0o700, exist_ok=True)
    durable.replace(layout.vault_routes, catalog.dump(catalogue))
    return catalogue


def sources(layout: Layout) -> tuple[Source, ...]:
    """Every roster file, bundled ones first, each group in order of name."""
    files: list[Source] = []
    for directory in (bundled(), layout.roster):
        try:
            names = sorted(name for name in os.listdir(directory) if name.endswith((".yml", ".yaml")))
        except FileNotFoundError:
            continue
        for name in names:
            path = f"{directory}/{name}"
            status = os.stat(path)
            files.append(Source(path, status.st_mtime_ns, status.st_size))
    return tuple(files)


def bundled() -> str:
    """The directory of the roster that terok brings."""
    return f"{os.path.dirname(os.path.abspath(__file__))}/shipped"


def _load_or_none(path: str) -> Catalog | None:
    from ...supervisor.ground.errors import TerokError

    try:
        return catalog.load(path)
    except TerokError:
        return None
