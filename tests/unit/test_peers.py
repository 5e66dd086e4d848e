"""Whose connection it is, on the host's loopback interface."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from terok_host.sidecars.kit import peers
from terok_host.supervisor.ground import kernel, process, within
from tests.lab.world import Box


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ones_own_connection_is_told_and_a_closed_one_is_not(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        with accepted:
            assert peers.owner(accepted) == os.geteuid()
            assert peers.Peers(listener).admit(accepted)
            client.close()
            with pytest.raises(OSError, match=r"closed|no such connection"):
                peers.owner(accepted)
            assert not peers.Peers(listener).admit(accepted)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_is_told_apart_from_one_with_its_address_in_another_namespace(host: str) -> None:
    """What kernels without SO_NETNS_COOKIE are asked; the port says nothing about where a listener is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        assert peers.listens_here(listener)
        with elsewhere(listener.getsockname()[:2], family) as other:
            assert not peers.listens_here(other)
            listener.close()
            assert not peers.listens_here(other)


@contextmanager
def elsewhere(place: tuple[str, int], family: int) -> Iterator[socket.socket]:
    """A listener in a new network namespace."""
    ours, theirs = socket.socketpair()

    def listen() -> int:
        kernel.unshare(kernel.CLONE_NEWNET if os.geteuid() == 0 else kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
        with socket.socket(family) as listener:
            level, free = (socket.IPPROTO_IPV6, 78) if family == socket.AF_INET6 else (socket.SOL_IP, 15)
            listener.setsockopt(level, free, 1)  # IP_FREEBIND, IPV6_FREEBIND: the loopback interface is down there
            listener.bind(place)
            listener.listen()
            socket.send_fds(theirs, [b"x"], [listener.fileno()])
        return 0

    with ours, theirs:
        pid = process.fork(listen)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        os.waitpid(pid, 0)
    with socket.socket(fileno=fds[0]) as listener:
        yield listener


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_of_another_user_is_not_admitted(host: str) -> None:
    """A user namespace with two uids stands for two users; sock_diag(7) tells the uid of a socket's maker."""
    if os.geteuid() == 0:
        assert other_is_admitted(host) == b"no"
        return
    box = Box()
    try:
        box.run("ip", "link", "set", "lo", "up")
        answer, _ = within.call_in(box.namespaces, lambda: (other_is_admitted(host), []), timeout=10)
    finally:
        box.close()
    assert answer == b"no"


def other_is_admitted(host: str) -> bytes:
    """Connect to a listener of our own from a child with another uid."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        ours, theirs = socket.socketpair()

        def connect() -> int:
            os.setresuid(7, 7, 7)
            with socket.create_connection(listener.getsockname()[:2]):
                theirs.recv(1)
            return 0

        with ours, theirs:
            pid = process.fork(connect)
            accepted, _ = listener.accept()
            with accepted:
                answer = b"yes" if peers.Peers(listener).admit(accepted) else b"no"
            ours.send(b"x")
            os.waitpid(pid, 0)
    return answer


def test_unix_sockets_are_not_asked_about() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peers.Peers(ours).admit(theirs)
