"""The credential of the HTTP proxy, in a row of its own kind: no token of a container leads to it.

The row's name is the proxy's `host:port`, so that a credential is never sent to another proxy than the one it was
stored for. `meta["user"]` is the user name.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from .keys import ensure_unlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .store import Store

KIND = "proxy"
SCOPE = ""


def login(store: Store, key_files: Sequence[str], proxy: str) -> tuple[str, str] | None:
    """User and password for a proxy; None without any.

    Args:
        store: the vault.
        key_files: where its key may be.
        proxy: `host:port`.

    Raises:
        LockedError: there is one, and the vault is locked.
    """
    if not any(entry.name == proxy for entry in store.describe(KIND, SCOPE)):
        return None
    ensure_unlocked(store, key_files)
    item = store.get(KIND, SCOPE, proxy)
    return None if item is None else (str(item.meta.get("user", "")), item.secret.decode())


def authorization(store: Store, key_files: Sequence[str], proxy: str) -> str:
    """The value of Proxy-Authorization (RFC 7617); empty without a credential. Arguments and errors as of `login`."""
    found = login(store, key_files, proxy)
    return "" if found is None else "Basic " + b64encode(":".join(found).encode()).decode("ascii")


def reader(store: Store, key_files: Sequence[str], proxy: str) -> Callable[[], str]:
    """`authorization` with its arguments, read when it is called."""
    return lambda: authorization(store, key_files, proxy)
