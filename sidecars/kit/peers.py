"""Who is at the other end of a TCP connection on the host: only the operator's own processes are served there.

In `services.mode: tcp` a service listens on the host's loopback interface, where every local user can connect. The
container's connection arrives from its network program, which runs as the operator. Listeners inside the container's
network namespace are the container's own, whatever its users are called.
"""

from __future__ import annotations

import os
import socket
import struct

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
    except OSError:
        return listens_here(listener)


def listens_here(listener: socket.socket) -> bool:
    """Whether the kernel lists a TCP listener in this process's network namespace; before Linux 5.14 too.

    The answer is True when the kernel does not tell, so that clients are checked.
    """
    any_address = "::" if listener.family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - the peer of a listener
    try:
        _, inode = _diagnose(listener.family, listener.getsockname(), (any_address, 0))
    except FileNotFoundError:  # no such socket in this namespace
        return False
    except OSError:
        return True
    # inode numbers of sockets are unique on the host; sock_diag(7) gives 32 bits of them
    return inode == os.fstat(listener.fileno()).st_ino & 0xFFFFFFFF


def owner(client: socket.socket) -> int:
    """The uid, in this process's user namespace, that the other end of a loopback connection belongs to.

    Raises:
        OSError: the other end is not on this host, or is closed already.
    """
    uid, inode = _diagnose(client.family, client.getpeername(), client.getsockname())
    if not inode:  # its process has closed it
        raise OSError(0, "the other end is closed")
    return uid


def _diagnose(family: int, local: tuple[str, int], remote: tuple[str, int]) -> tuple[int, int]:
    """The uid and the inode of one TCP socket in this process's network namespace (sock_diag(7)).

    Raises:
        FileNotFoundError: there is no such socket.
        OSError: the kernel does not tell.
    """
    pack = struct.Struct("!HH16s16s")
    addresses = pack.pack(local[1], remote[1], _address(family, local[0]), _address(family, remote[0]))
    wanted = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, _ANY_STATE) + addresses + bytes(4) + _NO_COOKIE
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
    return int(uid), int(inode)


def _address(family: int, text: str) -> bytes:
    return socket.inet_pton(family, text.partition("%")[0]).ljust(16, b"\0")
