"""Runs a function in a child that has entered the container's namespaces, and brings its answer back.

The caller never enters them: it may be unable to come back (the host's network namespace does not belong to
Podman's user namespace).
"""

from __future__ import annotations

import os
import select
import time

from . import kernel
from .errors import TerokError
from .process import Exhausted, Namespaces, fork
from .quick import dumps, loads, signal
from .sockets import receive_fds, send_fds, socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Body = Callable[[], tuple[bytes, list[int]]]

_PACKET_MAX = 48 << 10
"""What goes through a socket in one packet, safely below its buffer; more goes through memory (memfd_create(2))."""


class Call:
    """A function at work in a child; `finish` is to be called once."""

    def __init__(self, pid: int, link: int, timeout: float) -> None:
        self._pid, self._link = pid, link
        self._timeout, self._deadline = timeout, time.monotonic() + timeout

    def finish(self) -> tuple[bytes, list[int]]:
        """Wait for the answer and reap the child.

        Raises:
            TerokError: the function raised (with its message), died, or took too long and was killed.
        """
        answered = False
        try:
            waiting = select.poll()
            waiting.register(self._link, select.POLLIN)
            if not waiting.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
                raise TerokError(f"A helper in the container's namespaces did not answer within {self._timeout:g} s.")
            answer, fds = receive_fds(self._link)
            answered = True
        finally:
            os.close(self._link)
            if not answered:
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        if answer[:1] == b"*":
            return _take(fds[0]), fds[1:]
        if answer[:1] == b"+":
            return answer[1:], fds
        if answer[:1] == b"-":
            what, fix = loads(answer[1:])
            raise TerokError(what, fix=fix)
        raise TerokError("A helper in the container's namespaces died.")


def begin(namespaces: Namespaces, body: Body, *, timeout: float) -> Call:
    """Start `body` in a child inside the given namespaces, so that other work goes on meanwhile.

    Args:
        body: returns bytes and descriptors.
        timeout: seconds from now until `Call.finish` kills the child.
    """
    try:
        ours, theirs = socketpair()
    except OSError as error:
        raise Exhausted("a helper", error) from error
    parent = os.getpid()

    def child() -> int:
        try:
            kernel.die_with_parent(parent, signal.SIGKILL)
            namespaces.enter()
            data, fds = body()
            if len(data) > _PACKET_MAX:
                send_fds(theirs, b"*", [_keep(data), *fds])
            else:
                send_fds(theirs, b"+" + data, fds)
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            known = (error.what, error.fix) if isinstance(error, TerokError) else (str(error), "")
            send_fds(theirs, b"-" + dumps([text[:1000] for text in known]).encode(), [])
        return 0

    try:
        pid = fork(child)
    except Exhausted:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return Call(pid, ours, timeout)


def call_in(namespaces: Namespaces, body: Body, *, timeout: float) -> tuple[bytes, list[int]]:
    """Run `body` in a child inside the given namespaces; arguments and errors as in `begin` and `Call.finish`."""
    return begin(namespaces, body, timeout=timeout).finish()


def _keep(data: bytes) -> int:
    fd = os.memfd_create("answer", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd


def _take(fd: int) -> bytes:
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()
