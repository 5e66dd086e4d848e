"""A relay that passes nonsense harms nothing: the vault's side of the hand-over."""

from __future__ import annotations

import os
import select
import socket
import struct

import pytest

from tests.standins.tls import Place, tcp_pair
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault


@pytest.fixture
def place(vault: Vault, upstream: Upstream) -> Place:
    return Place(vault, upstream)


def test_messages_that_are_nonsense(place: Place) -> None:
    """What came along is closed again: the other ends see it."""
    place.works()
    one, other = tcp_pair()
    pipe = os.pipe()
    unconnected, unix = socket.socket(), socket.socketpair()
    target = place.target.encode()
    good = other.fileno()
    with one, unconnected, unix[0], unix[1]:
        for message, fds in (
            (target, []),
            (target, [good, good]),
            (target, [pipe[0]]),
            (target, [pipe[0], pipe[1], good]),
            (target, [unconnected.fileno()]),
            (target, [unix[0].fileno()]),
            (target, [os.open("/dev/null", os.O_RDONLY)]),
            (b"localhost", [good]),
            (b"other.example:443", [good]),
            (b"localhost:1", [good]),
            (b"\xff\xfe", [good]),
            (b"localhost:" + b"9" * 400, [good]),
            (b"x" * 60000, [good]),
            (b"x", [good] * 60),
        ):
            assert place.broker.give(message, *fds).startswith(b"-"), message
        other.close()
        os.close(pipe[1])
        one.settimeout(5)
        assert one.recv(1) == b""
        assert select.select([pipe[0]], [], [], 5)[0] and os.read(pipe[0], 1) == b""
        os.close(pipe[0])
    place.works()


def test_links_that_say_nothing(place: Place) -> None:
    place.works()
    links = [place.broker.link() for _ in range(40)]
    place.works()
    for link in links[:20]:
        link.close()
    assert all(link.recv(10) == b"" for link in links[20:])  # after a while
    for link in links[20:]:
        link.close()
    place.works()


def test_a_client_that_was_gone_before(place: Place) -> None:
    one, other = tcp_pair()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    assert place.broker.give(place.target.encode(), other.fileno())[:1] in (b"+", b"-")
    other.close()
    place.works()
