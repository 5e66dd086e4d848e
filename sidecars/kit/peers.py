"""Who is at the other end of a TCP connection on the host: only the operator's own processes are served there.

In `services.mode: tcp` a service listens on the host's loopback interface, where every local user can connect. The
container's connection arrives from its network program, which runs as the operator. Listeners inside the container's
network namespace are the container's own, whatever its users are called.
"""

from __future__ import annotations

import os
import socket
import struct

from ...supervisor.ground.layout import GATE_PORT, VAULT_PORT

SO_NETNS_COOKIE = 71
"""socket(7), Linux 5.14: a number for the network namespace that a socket belongs to."""
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NLMSG_ERROR = 20, 0x1, 2
_ANY_STATE, _NO_COOKIE = 0xFFFFFFFF, b"\xff" * 8
_SECONDS = 2.0


class Peers:
    """Decides about the clients of one listening socket.

    Args:
        listener: a listening socket of any family.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._checked = listener.family != socket.AF_UNIX and _is_on_the_host(listener)

    def admit(self, client: socket.socket) -> bool:
        """True for a client that may be served; another user's is refused, and one whose owner cannot be told."""
        if not self._checked:
            return True
        try:
            return owner(client) == os.geteuid()
        except OSError:
            return False


def _is_on_the_host(listener: socket.socket) -> bool:
    """Whether a listener belongs to this process's network namespace."""
    try:
        with socket.socket(listener.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as own:
            cookies = [part.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8) for part in (listener, own)]
        return cookies[0] == cookies[1]
    except OSError:  # an older kernel: in a container the ports are always these
        return listener.getsockname()[1] not in (VAULT_PORT, GATE_PORT)


def owner(client: socket.socket) -> int:
    """The uid, in this process's user namespace, that the other end of a loopback connection belongs to.

    Raises:
        OSError: the other end is not on this host, or is closed already.
    """
    here, there = client.getsockname(), client.getpeername()
    pack = struct.Struct("!HH16s16s")
    tuple_ = pack.pack(there[1], here[1], _address(client.family, there[0]), _address(client.family, here[0]))
    wanted = struct.pack("=BBBxI", client.family, socket.IPPROTO_TCP, 0, _ANY_STATE) + tuple_ + bytes(4) + _NO_COOKIE
    header = struct.pack("=IHHII", 16 + len(wanted), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_SECONDS)
        kernel.send(header + wanted)
        answer = kernel.recv(4096)
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind != _SOCK_DIAG_BY_FAMILY:
        code = -struct.unpack_from("=i", answer, 16)[0] if kind == _NLMSG_ERROR else 0
        raise OSError(code, "the kernel knows no such connection")
    # inet_diag_msg (inet_diag.h): 4 bytes, a 48-byte inet_diag_sockid, expires, rqueue, wqueue, uid, inode
    uid, inode = struct.unpack_from("=II", answer, 16 + 4 + 48 + 12)
    if not inode:  # closed by its process: nobody owns it any more
        raise OSError(0, "the other end is closed")
    return int(uid)


def _address(family: int, text: str) -> bytes:
    return socket.inet_pton(family, text.partition("%")[0]).ljust(16, b"\0")
