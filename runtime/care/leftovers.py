"""Runtime directories that no start and no end will use again, as a hook leaves one that was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_NB, flock

from ...supervisor import record
from ...supervisor.ground.layout import Bundle, Layout
from ...supervisor.reap import remove_runtime_dir
from ..kit.check import OK, WARN, Check
from ..kit.env import Env


def runtime_directories(env: Env) -> Iterator[Check]:
    """Whether a runtime directory was left by a start that was killed."""
    left = leftovers(env.layout)
    if left:
        yield Check("containers", "runtime directories", WARN, f"left behind: {', '.join(left)}", "terok doctor --fix")
    else:
        yield Check("containers", "runtime directories", OK, "none is left behind")


def remove(env: Env) -> list[str]:
    """Remove each; returns a sentence for it."""
    left = leftovers(env.layout)
    for path in left:
        remove_runtime_dir(path)
    return [f"Removed {path}" for path in left]


def leftovers(layout: Layout) -> list[str]:
    """Runtime directories of containers that do not run, and that were not just prepared.

    A prepared container has its directory before its first start, and no record. A start that is under way holds the
    bundle's lock.
    """
    try:
        names = [entry.name for entry in os.scandir(layout.runtime) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return [
        layout.runtime_dir(name) for name in sorted(names) if not name.startswith(".") and _is_over(layout.bundle(name))
    ]


def _is_over(bundle: Bundle) -> bool:
    if not os.path.isdir(bundle.root):
        return True
    known = record.read(bundle.record)
    return known is not None and not known.alive() and _is_free(bundle)


def _is_free(bundle: Bundle) -> bool:
    try:
        fd = os.open(bundle.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        flock(fd, LOCK_EX | LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
