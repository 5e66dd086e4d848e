"""Takes back what a prepare or run made: tokens, state bundle, runtime directory."""

from __future__ import annotations

import os

from ...supervisor.ground.layout import Bundle
from ...supervisor.reap import reap, remove_runtime_dir
from ..kit import files
from ..kit.alive import refuse_if_running
from ..kit.config import Config
from . import services


def tear_down(container: str, *, cfg: Config, force: bool) -> bool:
    """Revoke a container's tokens and delete its state; True when there was something.

    Args:
        container: its name; the container itself is not touched.
        cfg: the configuration.
        force: also under a running container: its services end, its firewall stays.

    Raises:
        TerokError: the name is bad, or the container is running (REFUSED).
    """
    bundle = cfg.layout.bundle(container)
    if not os.path.isdir(cfg.layout.containers):
        return _revoke(container, cfg)
    with files.locked(cfg.layout.containers_lock):
        if not force:
            refuse_if_running(bundle)
        reaped = os.path.isdir(cfg.layout.runtime_dir(container))
        reap(bundle, cfg.layout.runtime_dir(container), even_if_running=force)
        return take_back(container, cfg) or reaped


def forget(container: str, stamp: int, *, cfg: Config) -> bool:
    """`tear_down` for a container that Podman has removed, unless a new one of its name was prepared since.

    Args:
        container: its name.
        stamp: when its sidecar JSON had been written (st_mtime_ns) at the container's end.
        cfg: the configuration.
    """
    bundle = cfg.layout.bundle(container)
    with files.locked(cfg.layout.containers_lock):
        try:
            if os.stat(bundle.sidecar).st_mtime_ns != stamp:
                return False
        except OSError:
            return False  # cleaned up meanwhile
        refuse_if_running(bundle)
        return take_back(container, cfg)


def take_back(container: str, cfg: Config) -> bool:
    """Revoke tokens and authority, and delete bundle and runtime directory of a container that does not run.

    The tokens go first: if what follows fails, they are worth nothing already.
    """
    done = _revoke(container, cfg)
    remove_runtime_dir(cfg.layout.runtime_dir(container))
    return _remove_bundle(cfg.layout.bundle(container)) or done


def _revoke(container: str, cfg: Config) -> bool:
    store = services.open_store(cfg.layout)
    if store is None:
        return False
    with store:
        dropped = store.drop_authority(container)
        return store.revoke(container) > 0 or dropped


def _remove_bundle(bundle: Bundle) -> bool:
    """Delete the bundle, its sidecar JSON first: without it the hook refuses to start the container."""
    try:
        os.unlink(bundle.sidecar)
    except OSError:
        pass
    return _remove_tree(bundle.root)


def _remove_tree(path: str) -> bool:
    if not os.path.lexists(path):
        return False
    import shutil

    shutil.rmtree(path)
    return True
