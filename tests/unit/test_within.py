"""A function in a child: what comes back, whatever its size, and what is left when it fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor.ground import process, within
from terok_host.supervisor.ground.errors import TerokError


def test_call_in_returns_bytes_and_descriptors() -> None:
    def body() -> tuple[bytes, list[int]]:
        read, write = os.pipe()
        os.write(write, b"through the pipe")
        return b"answer", [read]

    data, fds = within.call_in(process.Namespaces(), body, timeout=5)
    assert (data, os.read(fds[0], 100)) == (b"answer", b"through the pipe")
    os.close(fds[0])


def test_call_in_hands_on_the_failure() -> None:
    def body() -> tuple[bytes, list[int]]:
        raise OSError(99, "nothing there")

    with pytest.raises(TerokError, match="nothing there"):
        within.call_in(process.Namespaces(), body, timeout=5)


def test_call_in_is_bounded() -> None:
    def body() -> tuple[bytes, list[int]]:
        signal.pause()
        return b"", []

    with pytest.raises(TerokError, match="did not answer within"):
        within.call_in(process.Namespaces(), body, timeout=0.2)


def test_an_answer_may_be_larger_than_a_packet() -> None:
    large = os.urandom(3 << 20)
    read, write = os.pipe()
    os.close(write)
    data, fds = within.call_in(process.Namespaces(), lambda: (large, [read]), timeout=5)
    assert data == large
    assert os.read(fds[0], 1) == b""
    os.close(fds[0])
    os.close(read)


def test_other_work_goes_on_meanwhile() -> None:
    read, write = os.pipe()
    call = within.begin(process.Namespaces(), lambda: (os.read(read, 10), []), timeout=5)
    os.write(write, b"from here")
    assert call.finish() == (b"from here", [])
    os.close(read)
    os.close(write)


def test_no_child_and_no_descriptor_is_left() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = len(os.listdir("/proc/self/fd")), children.read_text()
    bodies: list[Any] = [lambda: (b"x" * 100_000, []), lambda: (b"", []), lambda: os._exit(3), signal.pause]
    for body in bodies:
        try:
            within.call_in(process.Namespaces(), body, timeout=0.3)
        except TerokError:
            pass
    assert (len(os.listdir("/proc/self/fd")), children.read_text()) == before


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def child() -> tuple[bytes, list[int]]:
        note.write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
        return b"", []

    pid = process.fork(lambda: len(within.call_in(process.Namespaces(), child, timeout=30)))
    os.waitpid(pid, 0)
    try:
        grandchild = os.pidfd_open(int(note.read_text()))
    except ProcessLookupError:
        return
    assert process.wait_gone(grandchild, 5.0)
    os.close(grandchild)
