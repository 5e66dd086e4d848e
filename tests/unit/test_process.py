"""The one module that spawns, with real programs."""

from __future__ import annotations

import os
import signal
import time

import pytest

from terok_host.supervisor.ground import process
from terok_host.supervisor.ground.errors import TerokError


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_run_gives_input_output_and_code() -> None:
    result = process.run(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin=b"x" * 200_000, timeout=10)
    assert (result.code, len(result.out), result.error) == (3, 200_000, "oops")


def test_a_child_starts_clean() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        secret, other = os.pipe()
        os.set_inheritable(secret, True)
        script = "ls /proc/self/fd; env; umask; grep SigBlk /proc/self/status"
        out = process.run(["sh", "-c", script], timeout=10).out.decode().split("\n")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.close(secret)
        os.close(other)
    assert out[:4] == ["0", "1", "2", "3"]  # 3 is ls reading the directory
    assert {line.split("=")[0] for line in out if "=" in line} <= {"PATH", "LANG", "PWD", "SHLVL", "_", "OLDPWD"}
    assert "0077" in out
    assert "SigBlk:\t0000000000000000" in out


def test_descriptors_arrive_where_they_were_sent_even_when_their_numbers_cross() -> None:
    first, first_write = os.pipe()
    second, second_write = os.pipe()
    os.write(first_write, b"first")
    os.write(second_write, b"second")
    for fd in (first_write, second_write):
        os.close(fd)
    result = process.run(
        ["sh", "-c", f"cat /dev/fd/{second} /dev/fd/{first}"], timeout=10, fds={first: second, second: first}
    )
    assert result.out == b"firstsecond"
    os.close(first)
    os.close(second)


def test_a_program_that_does_not_end_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(TerokError, match="did not end within"):
        process.run(["sleep", "60"], timeout=0.2)
    assert time.monotonic() - began < 5


def test_a_program_that_prints_for_ever_is_killed() -> None:
    with pytest.raises(TerokError, match="printed more than"):
        process.run(["yes"], timeout=30)


def test_a_missing_program_is_named_and_leaks_nothing() -> None:
    before = open_fds()
    with pytest.raises(TerokError, match="no-such-program-here is not installed"):
        process.run(["no-such-program-here"], timeout=1)
    with pytest.raises(TerokError, match="Could not start /dev/null"):
        process.run(["/dev/null"], timeout=1)
    assert open_fds() == before


def test_run_leaks_no_descriptor() -> None:
    before = open_fds()
    process.run(["true"], timeout=10)
    assert open_fds() == before


def test_a_process_is_known_by_its_start_time() -> None:
    pid = process.spawn(["sleep", "60"])
    try:
        started = process.start_time(pid)
        fd = process.open_same(pid, started)
        assert fd is not None
        os.close(fd)
        assert process.open_same(pid, started + 1) is None
        assert process.open_same(0, 0) is None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert process.open_same(pid, started) is None


def test_a_child_dies_with_its_parent() -> None:
    read, write = os.pipe()

    def parent() -> int:
        pid = process.spawn(["sleep", "60"], die_with_parent=True)
        os.write(write, str(pid).encode())
        return 0

    os.waitpid(process.fork(parent), 0)
    grandchild = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    try:
        fd = os.pidfd_open(grandchild)
    except ProcessLookupError:
        return
    assert process.wait_gone(fd, 5)
    os.close(fd)
