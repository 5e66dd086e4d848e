"""The data key: made once, wrapped by each unlock tier, found again by a process that may read a key file.

Two kinds of key files exist, both one line of text, 0600, owned by the operator:

- `terok-key-file-v1 BASE64`: the key of the `key-file` tier, which unwraps the data key in vault.db (`vault/key`);
- `terok-data-key-v1 BASE64`: the data key itself, put under the runtime directory by `terok vault unlock`.

A sidecar is given the paths where such files may be. It calls `prepare` before it confines itself, grants itself
reading of those directories, and `ensure_unlocked` before it needs a secret.
"""

from __future__ import annotations

import base64
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from ...supervisor.ground import durable
from ...supervisor.ground.errors import Exit, TerokError
from .records import LockedError
from .seal import KEY_SIZE, SealBroken, Sealer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...supervisor.ground.layout import Layout
    from .store import Store

__all__ = ["LockedError", "create_vault", "ensure_unlocked", "find_data_key", "key_files", "prepare"]

KEY_FILE_TIER = "key-file"
_KEY_FILE = "terok-key-file-v1"
_DATA_KEY = "terok-data-key-v1"
_LINE_MAX = 256


def key_files(layout: Layout) -> list[str]:
    """Where a key file may be, in the order in which they are tried: what `settings["key_files"]` should hold."""
    return [layout.unlocked_key, layout.vault_key]


def prepare(paths: Sequence[str]) -> None:
    """Make the directories of key files (0700), so that Landlock can grant a directory whose file comes later."""
    for path in paths:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)


def find_data_key(store: Store, key_files: Sequence[str], *, unlocking: bool = False) -> bytes:
    """The data key, from the first key file that gives it.

    Args:
        store: needs not be unlocked.
        key_files: absolute paths; missing files are passed over.
        unlocking: for `terok vault unlock` alone: also when the operator locked the vault.

    Raises:
        LockedError: the operator locked the vault, or no file gives the key; the message says why for the last one that
            exists.
    """
    if store.is_held() and not unlocking:
        raise LockedError("The vault is locked by `terok vault lock`.")
    reason = ""
    for path in key_files:
        try:
            key_file = _read(path)
            if key_file is None:
                continue
            word, key = key_file
            if word == _DATA_KEY:
                return key
            return unwrap(store, KEY_FILE_TIER, key)
        except (TerokError, SealBroken) as error:
            reason = f" {path}: {error}"
    raise LockedError(f"The vault is locked.{reason}")


def ensure_unlocked(store: Store, key_files: Sequence[str]) -> None:
    """Unlock the store when it is not, and forget the key when `terok vault lock` ran; cheap when nothing changed.

    Raises:
        LockedError: no key file gives the data key.
    """
    if not store.locked and store.was_locked_elsewhere():
        store.lock()
    if store.locked:
        store.unlock(find_data_key(store, key_files))


def wrap(store: Store, tier: str, key: bytes, data_key: bytes, parameters: dict[str, object] | None = None) -> None:
    """Add or replace a tier: `key` opens the data key from now on."""
    store.set_tier(tier, Sealer(key).seal(("terok tier", tier), data_key), parameters or {})


def unwrap(store: Store, tier: str, key: bytes) -> bytes:
    """The data key out of a tier.

    Raises:
        LockedError: the vault has no such tier, or `key` does not open it.
    """
    wrapped = store.tiers().get(tier)
    if wrapped is None:
        raise LockedError(f"The vault has no {tier} tier.")
    try:
        return Sealer(key).open(("terok tier", tier), wrapped[0])
    except SealBroken:
        raise LockedError(f"The {tier} tier did not open: wrong key.") from None


def write_key_file(path: str, key: bytes, *, data_key: bool) -> None:
    """Write a key file: 0600, complete or not at all, durable on return: no tier in the database without its file.

    Args:
        data_key: True for the unlocked data key, False for the key of the key-file tier.
    """
    prepare([path])
    durable.replace(path, f"{_DATA_KEY if data_key else _KEY_FILE} {base64.b64encode(key).decode()}\n".encode())


def add_key_file(store: Store, path: str, data_key: bytes) -> None:
    """Add or replace the key-file tier: a fresh key in `path` opens the vault from now on."""
    key = os.urandom(KEY_SIZE)
    # the file first: when this is cut off, a file that opens nothing is left, not a tier without its file
    write_key_file(path, key, data_key=False)
    wrap(store, KEY_FILE_TIER, key, data_key)


def _read(path: str) -> tuple[str, bytes] | None:
    """The word and key of a key file; None when there is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TerokError(f"could not be read: {error.strerror}") from error
    with open(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise TerokError("it is not a regular file of yours with mode 0600", fix=f"chmod 600 {path}")
        line = file.read(_LINE_MAX).decode("ascii", "replace").split()
    try:
        key = base64.b64decode(line[1], validate=True) if len(line) == 2 else b""
    except ValueError:  # a character that base64 does not have
        key = b""
    if len(key) != KEY_SIZE or line[0] not in (_KEY_FILE, _DATA_KEY):
        raise TerokError("it is not a key file of terok")
    return line[0], key


def create_vault(layout: Layout) -> str:
    """Give the vault its data key, with a key-file tier and a recovery key; makes the database when missing.

    Returns:
        The recovery key, to be shown to the operator once: it is kept nowhere.

    Raises:
        TerokError: the vault has a data key already.
    """
    from .recovery import RECOVERY_TIER, new_recovery_key, recovery_kek
    from .store import Store

    os.makedirs(layout.vault, mode=0o700, exist_ok=True)
    # two first `add`s at a time must not mix their keys; the lock is on the directory, since closing another descriptor
    # of the database would drop SQLite's own locks (fcntl(2))
    directory = os.open(layout.vault, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with Store.open(layout.vault_db, create=True) as store:
            if store.setting("check") is not None:
                raise TerokError("The vault has a data key already.", code=Exit.REFUSED)
            data_key, recovery = os.urandom(KEY_SIZE), new_recovery_key()
            add_key_file(store, layout.vault_key, data_key)
            wrap(store, RECOVERY_TIER, recovery_kek(recovery), data_key)
            # last: a vault whose creation was cut off has no data key yet, and is created again
            store.initialise(data_key)
    finally:
        os.close(directory)
    return recovery
