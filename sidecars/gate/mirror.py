"""A scope's mirror as a thing on disk: made, filled, kept in shape, removed."""

from __future__ import annotations

import fcntl
import os

from ...supervisor.ground import paste, process
from ...supervisor.ground.errors import Exit, TerokError
from . import config, git, refs
from .site import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...supervisor.ground.layout import GateHome
    from .config import GateConfig

PACKS_MAX = 40
"""More packs than this make every lookup slow: then they are put together."""

REPACK_SECONDS = 3600.0


def create(home: GateHome, settings: GateConfig) -> None:
    """Make an empty mirror and write gate.json last, so that an interrupted `add` is no gate.

    Raises:
        TerokError: the scope has a gate already, or git failed.
    """
    if os.path.exists(home.config):
        raise TerokError(
            f"The scope {home.scope} has a gate already.",
            fix=f"terok gate remove {paste.quoted(home.scope)}, or terok gate set {paste.quoted(home.scope)} ...",
            code=Exit.REFUSED,
        )
    remove_tree(home.repo)
    os.makedirs(home.root, mode=0o700, exist_ok=True)
    result = process.run(
        [
            git.program(),
            "init",
            "--quiet",
            "--bare",
            "--template=",
            f"--object-format={settings.object_format}",
            home.repo,
        ],
        timeout=30,
        env=git.environment(),
    )
    if result.code:
        raise TerokError(f"Could not make the mirror {home.repo}: {result.error}.")
    point_head(home, settings.default_branch)
    config.save(home, settings)


def point_head(home: GateHome, branch: str) -> None:
    """Let a clone check out `branch` (a full ref name)."""
    git.check(home, "symbolic-ref", "HEAD", branch)


def remove(home: GateHome) -> None:
    """Delete the mirror with everything about it; gate.json first, so that it is no gate from then on."""
    for path in (home.config, home.state):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    remove_tree(home.root)


def tidy(home: GateHome) -> bool:
    """Put many packs together into one with a bitmap, which makes clones fast; True when that was done.

    Only objects that no ref reaches for two weeks are dropped: a push that is just arriving has none yet. One process
    at a time does it; killed in the middle it leaves the mirror as it was.
    """
    fd = os.open(home.repo, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _tidy(home)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _tidy(home: GateHome) -> bool:
    packs = [name for name in os.listdir(home.packs) if name.endswith(".idx")]
    loose = len(os.listdir(home.loose_sample)) if os.path.isdir(home.loose_sample) else 0
    bitmaps = [name for name in os.listdir(home.packs) if name.endswith(".bitmap")]
    # loose objects are spread evenly: one of 256 directories tells how many there are (as git gc --auto does)
    if len(packs) <= PACKS_MAX and loose <= 27 and (bitmaps or not packs):
        return False
    settings = [("repack.writeBitmaps", "true"), ("pack.threads", "0"), ("safe.directory", home.repo)]
    env = git.environment(settings, GIT_DIR=home.repo)
    for arguments in (
        ["repack", "-q", "-d", "-A", "--unpack-unreachable=2.weeks.ago", "--write-bitmap-index"],
        ["prune-packed", "-q"],
        ["prune", "--expire=2.weeks.ago"],
        ["pack-refs", "--all"],
        ["commit-graph", "write", "--reachable", "--no-progress"],
    ):
        result = process.run(
            [git.program(), *arguments], timeout=REPACK_SECONDS, env=env, prepare=lambda: git.confine(home)
        )
        if result.code:
            raise TerokError(f"git {arguments[0]} failed in the mirror of {home.scope}: {result.error}.")
    return True


def count(home: GateHome) -> int:
    """How many branches and tags a clone gets."""
    return len(refs.visible(refs.read(home)))
