"""The signer's part of the sidecar JSON: written at launch, read at every start."""

from __future__ import annotations

from typing import NamedTuple

from ...supervisor.ground.errors import TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...supervisor.ground.layout import Layout


KIND = "ssh-key"
"""What an SSH key is called in the store."""


class Settings(NamedTuple):
    """What the signer is told.

    store: absolute path of vault.db.
    key_files: absolute paths where the vault's key may be, in the order in which they are tried.
    policy: fields of a key's policy that hold where the key itself says nothing.
    """

    store: str
    key_files: tuple[str, ...]
    policy: dict[str, object]


def settings_for(layout: Layout, policy: dict[str, object] | None = None) -> dict[str, object]:
    """The settings object for one container's sidecar JSON.

    Args:
        layout: where the vault is.
        policy: defaults for this container's keys; see `docs/ssh.md`.
    """
    from ..store.keys import key_files

    return {"store": layout.vault_db, "key_files": key_files(layout), "policy": policy or {}}


def parse(settings: dict[str, object]) -> Settings:
    """Check a settings object.

    Raises:
        TerokError: a field is missing, unknown or of the wrong type.
    """
    store, key_files, policy = (settings.get(name) for name in Settings._fields)
    fine = (
        settings.keys() == set(Settings._fields)
        and isinstance(store, str)
        and isinstance(key_files, list)
        and all(isinstance(path, str) and path.startswith("/") for path in (store, *key_files))
        and isinstance(policy, dict)
    )
    if not fine:
        raise TerokError(
            "The signer's settings in the sidecar JSON are not understood.", fix="run `terok prepare` again"
        )
    assert isinstance(store, str) and isinstance(key_files, list) and isinstance(policy, dict)
    return Settings(store, tuple(key_files), policy)
