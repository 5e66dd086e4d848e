"""The gate's process: splits in two before the first byte arrives, see `front` and `keeper`.

This process stays the keeper. The front is forked from it while no secret has been read, into a pid namespace of its
own where that is possible: when it ends, the kernel ends every git process below it.
"""

from __future__ import annotations

import os

from ...supervisor.ground import kernel
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import GateHome
from ..kit.halves.keeper import fork_front
from .config import read_settings
from .keeper import Keeper
from .serving import front
from .site import Site, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kit.context import Context


def main(context: Context) -> int:
    """Serve `context`'s listeners; returns 0 when idle."""
    site = _site(context)
    # what an earlier process of this container left behind when it was killed; no other writes there
    remove_tree(site.incoming)
    if os.path.exists(site.home.config):
        os.makedirs(site.incoming, mode=0o700)
    kernel.forbid_dumps()
    own_pids = _separate_pids()
    parent = 0 if own_pids else os.getpid()
    link, pid = fork_front(context, lambda theirs: front.main(context, site, theirs), parent=parent)
    keeper = Keeper(site, context.audit, link, pid)
    try:
        return keeper.run()
    finally:
        keeper.end_front()  # at once: half a push's files may be large
        remove_tree(site.incoming)


def _site(context: Context) -> Site:
    if context.scope is None:
        raise TerokError("A gate needs a scope.", code=Exit.USAGE)
    settings = read_settings(context.settings)
    home = GateHome.of(settings.root, context.scope)
    return Site(
        container=context.container,
        scope=context.scope,
        home=home,
        incoming=home.incoming(context.container),
        store=settings.store,
        key_files=settings.key_files,
        egress=settings.egress,
    )


def _separate_pids() -> bool:
    """Put the children that come into a new pid namespace (pid_namespaces(7)); False where that is not allowed."""
    try:
        kernel.unshare(kernel.CLONE_NEWPID)
    except OSError:
        return False
    return True
