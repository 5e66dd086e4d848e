"""Opening the operator's vault for a verb, and the one way to make it and to show its recovery key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...sidecars.store import keys
from ...sidecars.store.store import Store
from ...supervisor.ground.errors import Exit, TerokError

if TYPE_CHECKING:
    from .env import Env


def closed(env: Env) -> Store:
    """The vault without its key: for what needs no secret. TerokError (NOT_FOUND) when there is none."""
    return Store.open(env.layout.vault_db)


def unlocked(env: Env, *, create: bool = False) -> Store:
    """The vault with its key.

    Args:
        env: the surroundings.
        create: make the vault when there is none, and show its recovery key once.

    Raises:
        LockedError: no key file opens it.
        TerokError: there is no vault.
    """
    if create:
        make(env)
    store = closed(env)
    try:
        keys.ensure_unlocked(store, keys.key_files(env.layout))
    except BaseException:
        store.close()
        raise
    return store


def make(env: Env) -> None:
    """Make the vault when there is none, and show its recovery key once; any number of verbs may do so at a time."""
    if exists(env):
        return
    try:
        show_recovery_key(env, keys.create_vault(env.layout))
    except TerokError:
        if not exists(env):  # else another verb made it meanwhile, and showed its recovery key
            raise


def exists(env: Env) -> bool:
    """Whether there is a vault that has a data key."""
    try:
        with closed(env) as store:
            return store.setting("check") is not None
    except TerokError as error:
        if error.code == Exit.NOT_FOUND:
            return False
        raise


def show_recovery_key(env: Env, key: str) -> None:
    """Show a recovery key: the only time that it is seen."""
    env.note(
        "The vault was created. Its recovery key, shown only now; write it down and keep it away from this machine:\n\n"
        f"    {key}\n\n"
        "It unlocks the vault when every other way is lost: terok vault unlock --recovery"
    )
