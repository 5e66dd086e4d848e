"""Taking a push's objects over into the mirror: renames inside one file system, so any size takes no time.

The scratch repository was written by processes that read the container's bytes: only files whose names say that they
are objects or packs are taken, and only regular ones. A pack's index goes last: git sees a pack when it sees the index.
"""

from __future__ import annotations

import os
import re
import stat

from ...supervisor.ground.errors import TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...supervisor.ground.layout import GateHome

_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_LOOSE = re.compile(r"[0-9a-f]{38}(?:[0-9a-f]{24})?")
_PACK = re.compile(r"pack-[0-9a-f]{40}(?:[0-9a-f]{24})?\.(pack|rev|idx)")
_ORDER = ("pack", "rev", "idx")


def take_over(home: GateHome, source: str) -> int:
    """Move every object below `source` (an `objects` directory) into the mirror.

    Returns:
        How many files were moved.

    Raises:
        TerokError: something there is not a regular file, or it could not be moved.
    """
    moved = 0
    try:
        for directory in sorted(os.listdir(source)):
            if _FAN_OUT.fullmatch(directory):
                names = [name for name in os.listdir(f"{source}/{directory}") if _LOOSE.fullmatch(name)]
                moved += _move(f"{source}/{directory}", f"{home.objects}/{directory}", names)
        packs = [name for name in os.listdir(f"{source}/pack") if _PACK.fullmatch(name)]
        packs.sort(key=lambda name: _ORDER.index(name.rpartition(".")[2]))
        moved += _move(f"{source}/pack", f"{home.objects}/pack", packs)
    except OSError as error:
        raise TerokError(f"Could not take over the objects of a push: {error.strerror}.") from error
    return moved


def _move(source: str, target: str, names: list[str]) -> int:
    if not names:
        return 0
    if os.path.islink(source):
        raise TerokError("A push's object directory is a link.")
    os.makedirs(target, mode=0o700, exist_ok=True)
    for name in names:
        path = f"{source}/{name}"
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise TerokError("A push's object is not a regular file.")
        if os.path.exists(f"{target}/{name}"):
            os.unlink(path)  # same name, same content: objects are named by their hash
        else:
            os.rename(path, f"{target}/{name}")
    return len(names)


def size(home: GateHome) -> int:
    """Bytes of the mirror's packs and loose objects."""
    total = 0
    for directory, _, files in os.walk(home.objects):
        for name in files:
            try:
                total += os.lstat(f"{directory}/{name}").st_size
            except FileNotFoundError:
                pass  # a temporary file that its writer has renamed meanwhile
    return total
