"""The credential of the HTTP proxy, in a row of its own kind: no token of a container leads to it.

The row's name is the proxy's `host:port`, so that a credential is never sent to another proxy than the one it was
stored for. `meta["user"]` is the user name.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from ...supervisor.ground.errors import Exit, TerokError
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


def stored_login(path: str, key_files: Sequence[str], proxy: str) -> tuple[str, str] | None:
    """`login` from the vault at `path`; None without a vault."""
    from .store import Store

    try:
        with Store.open(path, read_only=True) as store:
            return login(store, key_files, proxy)
    except TerokError as error:
        if error.code == Exit.NOT_FOUND:
            return None
        raise


def authorization(found: tuple[str, str] | None) -> str:
    """The value of Proxy-Authorization for a login (RFC 7617); empty for none."""
    return "" if found is None else "Basic " + b64encode(":".join(found).encode()).decode("ascii")


def reader(store: Store, key_files: Sequence[str], proxy: str) -> Callable[[], str]:
    """Gives the value of Proxy-Authorization as the vault has it by then. Arguments and errors as of `login`."""
    return lambda: authorization(login(store, key_files, proxy))
