"""What the launch writes into the sidecar JSON for the relay's connections through a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...kit.proxy.egress import Egress, from_dict

if TYPE_CHECKING:
    from ....supervisor.ground.layout import Layout


MESSAGE_MAX = 2048
"""Bytes of a question or an answer between the relay and its helper."""


class Settings(NamedTuple):
    """The proxy, and where its credential may be: paths of the vault's database and of its key files."""

    egress: Egress
    store: str
    key_files: tuple[str, ...]


def settings_for(layout: Layout, way: Egress) -> dict[str, object]:
    """The `tunnels` object of the relay's settings."""
    from ...store.keys import key_files

    return {
        "egress": way.to_dict(),
        "store": layout.vault_db,
        "key_files": key_files(layout),
    }


def read_settings(document: object) -> Settings | None:
    """The settings; None where there is no proxy.

    Raises:
        ValueError: they are not what `settings_for` wrote.
    """
    if document is None:
        return None
    if isinstance(document, dict) and document.keys() == set(Settings._fields):
        store, files = document["store"], document["key_files"]
        if isinstance(store, str) and isinstance(files, list) and all(isinstance(path, str) for path in files):
            return Settings(from_dict(document["egress"]), store, tuple(files))
    raise ValueError("the settings of the proxy are not understood")
