"""How this operator's upstreams are reached: the configuration's proxy and authorities, checked."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ...sidecars.kit.proxy.egress import Egress, parse_url
from ...sidecars.store import keys, proxy
from ...supervisor.ground.errors import Exit, TerokError

if TYPE_CHECKING:
    from ...supervisor.ground.layout import Layout
    from .config import NetworkConfig


def egress(network: NetworkConfig) -> Egress:
    """The way to upstreams.

    Raises:
        TerokError: `network.upstream_ca` is not a file of certificates that only its owner can change.
    """
    tls, host, port = parse_url(network.upstream_proxy) if network.upstream_proxy else (False, "", 0)
    ca = check_authorities(network.upstream_ca) if network.upstream_ca else ""
    return Egress(tls, host, port, network.no_proxy if host else (), ca)


def check_authorities(path: str) -> str:
    """The path, when it leads to certificates: a regular file that no other user can write."""
    import ssl

    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            problem = "is not a regular file"
        elif status.st_mode & 0o022:
            problem = "can be written by other users"
        else:
            ssl.create_default_context(cafile=path)
            return path
    except ssl.SSLError:
        problem = "holds no certificates"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    raise TerokError(
        f"network.upstream_ca: {path} {problem}.", fix="terok config set network.upstream_ca FILE", code=Exit.USAGE
    )


def authorization(layout: Layout, way: Egress) -> str:
    """The value of Proxy-Authorization for a verb; empty without a proxy, a vault or a credential.

    Raises:
        LockedError: there is a credential, and the vault is locked.
    """
    if not way.host:
        return ""
    return proxy.authorization(proxy.stored_login(layout.vault_db, keys.key_files(layout), way.authority))
