"""Whose connection it is, on the host's loopback interface."""

from __future__ import annotations

import os
import socket

import pytest

from terok_host.sidecars.kit import peers


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


def test_unix_sockets_are_not_asked_about() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peers.Peers(ours).admit(theirs)
