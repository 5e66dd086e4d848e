"""Whether processes sleep: strace sees every system call, and no process wakes up without making one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

WAITING = re.compile(r"(epoll_wait|p?poll|p?select6?|restart_syscall|futex|wait4)\(.*unfinished")


def woken(pids: Sequence[int], *, seconds: float, log: Path) -> list[str]:
    """The system calls that the processes (and their threads) made meanwhile, one line each; empty: they slept.

    Args:
        pids: processes of the caller's.
        seconds: how long they are watched.
        log: where strace may write; removed afterwards.

    Raises:
        AssertionError: strace could not attach, or one of the processes ended.
    """
    argv = ["strace", "-f", "-o", str(log), *(f"-p{pid}" for pid in pids)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        attached = [tracer.stderr.readline() for _ in pids]
        assert all("attached" in line for line in attached), attached
        try:
            tracer.wait(seconds)
            raise AssertionError("what was to be watched has ended")
        except subprocess.TimeoutExpired:
            pass
        tracer.terminate()
        tracer.communicate(timeout=10)
    lines = log.read_text().splitlines()
    log.unlink()
    # the one call that each was in when strace came is shown cut off when strace leaves
    return [line for line in lines if "detached" not in line and not WAITING.search(line)]
