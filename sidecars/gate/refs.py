"""The mirror's refs: read all at once, changed in transactions, no tip ever lost.

What is where (all below the mirror; containers see the first line only):

    refs/heads/ refs/tags/            the view: what a clone gets
    refs/terok/upstream/heads/ tags/  what upstream had when it was last asked
    refs/terok/proposals/NUMBER       the tip of an open proposal
    refs/terok/kept/TIME-NONCE/heads/ tips that were overwritten or deleted, until TIME + 30 days
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ...supervisor.ground.errors import Exit, TerokError
from . import git

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...supervisor.ground.layout import GateHome

UPSTREAM = git.HIDDEN + "upstream/"
PROPOSALS = git.HIDDEN + "proposals/"
KEPT = git.HIDDEN + "kept/"


def shown(ref: str) -> str:
    """A ref as valid UTF-8: its bytes that are none are written as `\\xNN`."""
    return ref.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def upstream_name(ref: str) -> str:
    """Where the mirror notes upstream's value of a branch or tag."""
    return UPSTREAM + ref.removeprefix("refs/")


def read(home: GateHome) -> dict[str, str]:
    """Every ref of the mirror, hidden ones too: full name -> object name."""
    out = git.check(home, "for-each-ref", "--format=%(objectname) %(refname)")
    lines = out.decode("utf-8", "surrogateescape").split("\n")
    return {line[line.index(" ") + 1 :]: line[: line.index(" ")] for line in lines if line}


def visible(refs: dict[str, str]) -> dict[str, str]:
    """The branches and tags of the view."""
    return {ref: oid for ref, oid in refs.items() if ref.startswith(("refs/heads/", "refs/tags/"))}


def zeros(like: str) -> str:
    """The null object name of the same length."""
    return "0" * len(like)


def is_zero(oid: str) -> bool:
    """Whether this is the null object name."""
    return not oid.strip("0")


class Change:
    """A transaction on the mirror's refs: all of it happens, or nothing.

    Args:
        home: the mirror.
    """

    def __init__(self, home: GateHome) -> None:
        self._home = home
        self._lines: list[str] = []

    def set(self, ref: str, new: str, old: str | None = None) -> None:
        """`ref` becomes `new` (zeros delete it), if it is `old` now (zeros: does not exist; None: whatever it is)."""
        if is_zero(new):
            self._lines.append(f"delete {ref}\0{'' if old is None else old}\0")
        else:
            self._lines.append(f"update {ref}\0{new}\0{'' if old is None else old}\0")

    def keep(self, ref: str, tip: str) -> None:
        """Remember a tip that `ref` is about to lose."""
        name = f"{KEPT}{int(time.time())}-{os.urandom(4).hex()}/{ref.removeprefix('refs/')}"
        self._lines.append(f"create {name}\0{tip}\0")

    def commit(self) -> str:
        """Do it; "" or why nothing was changed."""
        if not self._lines:
            return ""
        result = git.run(
            self._home, "update-ref", "--stdin", "-z", stdin="".join(self._lines).encode("utf-8", "surrogateescape")
        )
        return result.error.removeprefix("fatal: ") if result.code else ""


def is_ancestor(home: GateHome, old: str, new: str) -> bool:
    """Whether `new` is a fast-forward of `old`; False when either is no commit."""
    return git.run(home, "merge-base", "--is-ancestor", old, new).code == 0


def kinds(home: GateHome, oids: list[str]) -> dict[str, str]:
    """The type of each object (commit, tag, tree, blob), or "missing"."""
    if not oids:
        return {}
    out = git.check(home, "cat-file", "--batch-check=%(objecttype)", stdin="".join(f"{oid}\n" for oid in oids).encode())
    types = [line.split()[-1] for line in out.decode().splitlines()]
    return dict(zip(oids, types, strict=True))


class Kept(NamedTuple):
    """A tip that can be restored.

    identity: what the operator calls it.
    ref: where it was.
    tip: object name.
    lost: when, seconds since the epoch.
    """

    identity: str
    ref: str
    tip: str
    lost: int


def kept(refs: dict[str, str]) -> list[Kept]:
    """Every tip that was overwritten or deleted, oldest first."""
    tips = []
    for name, tip in refs.items():
        if name.startswith(KEPT):
            identity, _, rest = name.removeprefix(KEPT).partition("/")
            moment = identity.split("-")[0]
            if moment.isdigit():
                tips.append(Kept(identity, f"refs/{rest}", tip, int(moment)))
    return sorted(tips, key=lambda tip: (tip.lost, tip.identity))


def forget_old(home: GateHome, refs: dict[str, str], days: int) -> int:
    """Drop kept tips that are older than `days`; returns how many."""
    limit = time.time() - days * 86400
    old = [tip for tip in kept(refs) if tip.lost < limit]
    change = Change(home)
    for tip in old:
        change.set(f"{KEPT}{tip.identity}/{tip.ref.removeprefix('refs/')}", zeros(tip.tip), tip.tip)
    problem = change.commit()
    if problem:
        raise TerokError(f"Could not drop old tips of {home.scope}: {problem}.", code=Exit.FAILURE)
    return len(old)
