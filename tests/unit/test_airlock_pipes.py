"""The relay's pipes: large ones for few transfers, small ones for many, never more than the kernel gives."""

from __future__ import annotations

import fcntl

from terok_host.sidecars.airlock.pipes import LARGE_MAX, SIZE, SMALL, Pipe, Pipes
from terok_host.sidecars.kit.reactor import Reactor

PAGES = 16_384
"""Of one user, in pipes (pipe(7), pipe-user-pages-soft)."""


def size(pipe: Pipe) -> int:
    return fcntl.fcntl(pipe[0], fcntl.F_GETPIPE_SZ)


def test_few_are_large_and_many_small() -> None:
    reactor = Reactor(strict=True)
    pipes = Pipes(reactor)
    taken: list[Pipe] = []
    for _ in range(LARGE_MAX + 8):
        pipe = pipes.take()
        assert pipe is not None
        taken.append(pipe)
    assert [size(pipe) for pipe in taken] == [SIZE] * LARGE_MAX + [SMALL] * 8
    pipes.drop(taken.pop(0))
    again = pipes.take()
    assert again is not None and size(again) == SIZE
    for pipe in (again, *taken):
        pipes.drop(pipe)
    reactor.close()
    assert LARGE_MAX * SIZE <= PAGES * 4096 // 2
