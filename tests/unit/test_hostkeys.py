"""Asking a host for its keys takes no longer than it may, whatever the resolver and the host do."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from terok_host.runtime.kit import hostkeys


def test_a_resolver_that_does_not_answer_is_left_behind() -> None:
    answer = threading.Event()

    def wait(_host: str, _port: int) -> list[hostkeys.Address]:
        answer.wait()
        return []

    began = time.monotonic()
    with pytest.raises(hostkeys.NoKeyError, match="not resolved within"):
        hostkeys.look_up("host.invalid", 22, 0.2, wait)
    assert time.monotonic() - began < 2
    answer.set()


def test_a_name_that_does_not_exist_is_told() -> None:
    with pytest.raises(hostkeys.NoKeyError):
        hostkeys.look_up("a" * 70 + ".invalid", 22, 5)


def test_a_host_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(hostkeys.NoKeyError):
            hostkeys.ask("127.0.0.1", listener.getsockname()[1], seconds=0.5)
        assert time.monotonic() - began < 3
