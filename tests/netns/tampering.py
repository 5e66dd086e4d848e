"""Changes from outside that the supervisor must notice and undo."""

from __future__ import annotations

import select
from collections.abc import Sequence

import pytest

from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.schema import Shield
from terok_host.supervisor.wall import firewall, guard
from tests.lab.world import World


def noticed_and_undone(
    world: World, monitors: Sequence[int], shield: Shield, command: str, *, at_once: bool = True
) -> None:
    """Run a command in the container's network: the kernel tells of it, the comparison fails, and it is undone.

    Args:
        monitors: descriptors of the kernel's news, as the supervisor has them.
        at_once: the news makes the supervisor compare; elements come and go with every answer, so theirs do not.
    """
    guard.drain(monitors)
    world.box.run(*command.split())
    waiting = select.poll()
    for fd in monitors:
        waiting.register(fd, select.POLLIN)
    assert waiting.poll(2000), command
    if at_once:
        assert guard.drain(monitors)
    with pytest.raises(TerokError):
        firewall.verify(world.box.namespaces, shield)
    firewall.restore(world.box.namespaces, shield)
    firewall.verify(world.box.namespaces, shield)
