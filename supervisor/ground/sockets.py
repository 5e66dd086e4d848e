"""Listening sockets and descriptor passing, on `_socket` alone: the `socket` module costs the hook 4 ms.

Sockets are handed around as plain descriptors. The process that serves one builds its own object from it.
"""

from __future__ import annotations

import os
import struct
from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SHUT_WR,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from _socket import socketpair as _socketpair

BACKLOG = 1024
_FDS_MAX = 64


def _close_on_failure(made: socket) -> None:
    os.close(made.detach())


def listen_unix(path: str, mode: int = 0o666, *, messages: bool = False) -> int:
    """A listening Unix socket at `path`, replacing a socket that was there; returns its descriptor.

    Access is decided by the directory above (0700 on the host): inside the container any user may connect.
    `messages`: its connections keep message boundaries (unix(7), SOCK_SEQPACKET).
    """
    kind = SOCK_SEQPACKET if messages else SOCK_STREAM
    made = socket(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
    try:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        made.bind(path)
        os.chmod(path, mode)
        made.listen(BACKLOG)
    except OSError:
        _close_on_failure(made)
        raise
    return made.detach()


def listen_tcp(host: str, port: int) -> int:
    """A listening TCP socket in the current network namespace, IPv4 or IPv6 alone; returns its descriptor."""
    made = socket(AF_INET6 if ":" in host else AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
    try:
        made.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if ":" in host:
            made.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)  # `::` would take the port of `0.0.0.0` as well
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError:
        _close_on_failure(made)
        raise
    return made.detach()


def accept(listener: int) -> int | None:
    """A client of a non-blocking listening socket, non-blocking too; None when none waits or none can be taken.

    accept(2) also fails for what befell the client (ECONNABORTED) and for want of descriptors (EMFILE).
    """
    link = socket(fileno=listener)
    try:
        client: int = link._accept()[0]  # type: ignore[attr-defined]  # what socket.accept is made of
    except OSError:
        return None
    finally:
        link.detach()
    os.set_blocking(client, False)
    os.set_inheritable(client, False)
    return client


def send_last(client: int, data: bytes) -> None:
    """Send a few bytes and the end of the stream; a client that does not take them loses them."""
    link = socket(fileno=client)
    try:
        link.send(data, MSG_NOSIGNAL)
        link.shutdown(SHUT_WR)
    except OSError:
        pass
    finally:
        link.detach()


def connect_udp(host: str, port: int) -> int:
    """A UDP socket in the current network namespace, connected to `host`; returns its descriptor."""
    made = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    try:
        made.connect((host, port))
    except OSError:
        _close_on_failure(made)
        raise
    return made.detach()


def socketpair() -> tuple[int, int]:
    """Two connected descriptors that keep message boundaries (unix(7), SOCK_SEQPACKET)."""
    one, other = _socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    return one.detach(), other.detach()


def send_fds(fd: int, data: bytes, fds: list[int]) -> None:
    """Send one message with descriptors attached (SCM_RIGHTS, unix(7))."""
    link = socket(fileno=fd)
    try:
        link.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else [])
    finally:
        link.detach()


def receive_fds(fd: int) -> tuple[bytes, list[int]]:
    """Receive one message of at most 64 KiB and its descriptors; empty bytes when the other side has gone."""
    link = socket(fileno=fd)
    received: list[int] = []
    try:
        data, ancillary, _, _ = link.recvmsg(65536, 4 * _FDS_MAX + 64)
    finally:
        link.detach()
    for level, kind, content in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            received.extend(struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4]))
    for descriptor in received:
        os.set_inheritable(descriptor, False)
    return data, received
