"""The operator's store as programs open it, and the end of a forked program."""

from __future__ import annotations

import os

from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground import process
from terok_host.supervisor.ground.layout import Layout


def unlocked(layout: Layout) -> Store:
    """The store, opened and unlocked by its key file."""
    store = Store.open(layout.vault_db)
    keys.ensure_unlocked(store, keys.key_files(layout))
    return store


def ended(pid: int) -> int:
    """The exit code of a child, within 20 s; negative: the signal."""
    fd = process.pidfd(pid)
    try:
        assert process.wait_gone(fd, 20)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(fd)
