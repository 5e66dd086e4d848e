"""Accepting: bursts, a pause by the owner, and running out of descriptors."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.sidecars.kit import limits
from terok_host.sidecars.kit.accept import Acceptor
from terok_host.sidecars.kit.reactor import Reactor


class Door:
    """A listening socket in a loop, and who came in."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(300)
        self.listener.setblocking(False)
        self.reactor = Reactor(strict=True)
        self.most = 1000
        self.inside: list[socket.socket] = []
        self.waiting: list[socket.socket] = []
        self.acceptor = Acceptor(self.reactor, [self.listener], self._accepted)

    def _accepted(self, sock: socket.socket) -> None:
        assert sock.gettimeout() == 0
        self.inside.append(sock)
        if len(self.inside) >= self.most:
            self.acceptor.stop()

    def knock(self, count: int) -> None:
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX)
            client.connect(self.path)
            self.waiting.append(client)

    def close(self) -> None:
        self.acceptor.stop()
        for sock in (*self.inside, *self.waiting, self.listener):
            sock.close()
        self.reactor.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path / "s")
    yield opened
    opened.close()


def test_a_queue_is_emptied_in_few_turns(door: Door) -> None:
    door.knock(200)
    door.acceptor.start()
    door.reactor.wait(0.05)
    assert len(door.inside) == 200
    assert door.reactor.turn < 200 / limits.ACCEPTS_A_TURN + 6


def test_the_owner_pauses_in_the_middle_of_a_burst(door: Door) -> None:
    door.most = 20
    door.knock(40)
    door.acceptor.start()
    door.reactor.wait(0.05)
    assert len(door.inside) == 20
    door.most = 1000
    door.acceptor.start()
    door.reactor.wait(0.05)
    assert len(door.inside) == 40


def test_out_of_descriptors(door: Door) -> None:
    door.knock(3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    door.acceptor.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    plugs = []
    try:
        while True:
            try:
                plugs.append(os.dup(0))
            except OSError:
                break
        turns = door.reactor.turn
        door.reactor.wait(limits.ACCEPT_RETRY_SECONDS / 2)
        assert not door.inside and door.reactor.turn - turns < 5  # it waits, and does not spin
        for plug in plugs:
            os.close(plug)
        plugs.clear()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for plug in plugs:
            os.close(plug)
    door.reactor.wait(limits.ACCEPT_RETRY_SECONDS * 2)
    assert len(door.inside) == 3
