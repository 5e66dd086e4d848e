"""Between the two halves of a gate: the front, which reads the container's bytes, and the keeper, which owns the refs.

One SOCK_SEQPACKET pair is shared by every connection's process. A job is one message that carries one end of a fresh
stream: the request goes through it as a line of JSON, then answers come back, one line each, until it closes.
So jobs never mix, and a job whose asker has gone is noticed.
"""

from __future__ import annotations

import json
import socket
import time

from ....supervisor.ground import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LINE_MAX = 4 << 20
"""Bytes of one request or answer: two hundred refs with long names fit."""


class ChannelError(Exception):
    """The other half did not answer."""


def ask(channel: int, request: dict[str, Any], *, seconds: float) -> Iterator[dict[str, Any]]:
    """Send a job to the keeper and give its answers as they come.

    Args:
        channel: the shared descriptor.
        request: `op` and what belongs to it.
        seconds: bound of the whole job.

    Raises:
        ChannelError: the keeper has gone, or takes longer.
    """
    deadline = time.monotonic() + seconds
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        try:
            with theirs:
                sockets.send_fds(channel, b"job", [theirs.fileno()])
            ours.settimeout(seconds)
            ours.sendall(json.dumps(request).encode() + b"\n")
            ours.shutdown(socket.SHUT_WR)
            buffer = b""
            while True:
                ours.settimeout(max(0.001, deadline - time.monotonic()))
                data = ours.recv(65536)
                if not data:
                    return
                *lines, buffer = (buffer + data).split(b"\n")
                yield from (json.loads(line) for line in lines)
        except OSError as error:
            raise ChannelError(str(error)) from error


class Job:
    """The keeper's end of one job.

    Args:
        fd: the stream that came with the message; this object owns it.
    """

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(fileno=fd)
        self._sock.settimeout(5.0)

    def request(self) -> dict[str, object]:
        """Read the request.

        Raises:
            ChannelError: it is not one JSON object, too long, or does not come.
        """
        data = bytearray()
        try:
            while piece := self._sock.recv(65536):
                data += piece
                if len(data) > LINE_MAX:
                    raise ChannelError("the request is too long")
            request = json.loads(data)
        except (OSError, ValueError, RecursionError) as error:
            raise ChannelError(str(error)) from error
        if not isinstance(request, dict):
            raise ChannelError("the request is not an object")
        return request

    def answer(self, answer: dict[str, object]) -> None:
        """Send one answer; an asker that has gone is no error: the job is finished for its own sake."""
        try:
            self._sock.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass

    def close(self) -> None:
        """End the answers."""
        self._sock.close()
