"""What a container hears when its vault cannot open: one sentence as 503, instead of a connection that never answers.

The process then leaves, and the next connection tries again; so a vault that is created meanwhile works at once.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Sequence

from ...supervisor.ground.errors import TerokError

READ_SECONDS = 1.0
"""How long the head of a request is waited for, so that the answer is not lost in a reset."""
LEAVE_SECONDS = 0.5
_HEAD_MAX = 64 << 10


def answer(error: TerokError) -> bytes:
    """The response that says why, in the shape of every other refusal of the vault; it closes the connection."""
    message = f"terok vault: {error.what}"
    body = json.dumps({"type": "error", "error": {"type": "terok_vault_error", "message": message}, "allow": error.fix})
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nX-Terok-Reason: no-vault\r\n"
        f"Retry-After: 1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return (head + body).encode()


def serve(listeners: Sequence[socket.socket], error: TerokError) -> None:
    """Give the answer to whoever connects, until nobody has for half a second."""
    response = answer(error)
    waiting = select.poll()
    by_fd = {listener.fileno(): listener for listener in listeners}
    for fd in by_fd:
        waiting.register(fd, select.POLLIN)
    while ready := waiting.poll(LEAVE_SECONDS * 1000):
        for fd, _ in ready:
            try:
                client, _ = by_fd[fd].accept()
            except OSError:
                continue
            with client:
                _tell(client, response)


def _tell(client: socket.socket, response: bytes) -> None:
    deadline = time.monotonic() + READ_SECONDS
    seen = b""
    try:
        while b"\r\n\r\n" not in seen and len(seen) < _HEAD_MAX:
            client.settimeout(max(0.01, deadline - time.monotonic()))
            data = client.recv(4096)
            if not data or time.monotonic() > deadline:
                break
            seen += data
        client.settimeout(READ_SECONDS)
        client.sendall(response)
    except OSError:
        pass  # it went away, or said nothing in time
