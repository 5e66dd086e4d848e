"""What both halves of a gate know about the container and the scope they serve."""

from __future__ import annotations

import os
from typing import NamedTuple

from ...supervisor.ground.layout import GateHome
from ..kit.proxy.egress import NO_PROXY, Egress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import GateConfig


class Site(NamedTuple):
    """One container's gate.

    container, scope: the two it serves.
    home: the scope's mirror.
    incoming: the only directory that the front may write.
    store: path of the vault's database.
    key_files: where the vault's key may be.
    egress: how upstream is reached.
    """

    container: str
    scope: str
    home: GateHome
    incoming: str
    store: str
    key_files: tuple[str, ...]
    egress: Egress = NO_PROXY

    def scratch(self, name: str) -> str:
        """The directory of one request's repository; its objects are in `objects`."""
        return os.path.join(self.incoming, name)


STAGED = "refs/in/"
"""What a push's refs are called in its scratch repository."""


def make_scratch(
    site: Site, config: GateConfig, name: str, refs: Mapping[str, str] | None = None, head: str = "refs/in/none"
) -> str:
    """A repository for one request, which borrows the mirror's objects (gitrepository-layout(5)).

    Args:
        name: of its directory.
        refs: what it has; names and object names.
        head: where its HEAD points.

    Returns:
        Its absolute path.
    """
    path = site.scratch(name)
    for directory in ("", "refs", "objects", "objects/info", "objects/pack"):
        os.mkdir(os.path.join(path, directory), 0o700)
    files = {
        "HEAD": f"ref: {head}\n",
        "config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
        "objects/info/alternates": f"{site.home.objects}\n",
    }
    if refs:
        # git searches the file by bisection: in the order of bytes
        order = sorted(refs, key=lambda ref: ref.encode("utf-8", "surrogateescape"))
        files["packed-refs"] = "".join(["# pack-refs with: sorted \n", *(f"{refs[ref]} {ref}\n" for ref in order)])
    if config.object_format == "sha256":
        files["config"] = (
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
        )
    for file, content in files.items():
        with open(os.path.join(path, file), "x", encoding="utf-8", errors="surrogateescape") as out:
            out.write(content)
    return path


def remove_tree(path: str) -> None:
    """Delete a directory with everything in it; links are deleted, not followed. Missing is fine."""
    for directory, names, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
        for name in names:
            link = os.path.join(directory, name)
            os.unlink(link) if os.path.islink(link) else os.rmdir(link)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
