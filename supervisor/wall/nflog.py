"""A socket on which the kernel delivers the packets that the firewall logs (NFLOG).

The binding needs CAP_NET_ADMIN in the user namespace that owns the network namespace, and one group has one reader:
so the supervisor makes it once and holds it, and the confined process that parses packets only reads.
"""

from __future__ import annotations

import os
import struct
from _socket import SO_RCVBUF, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket

_AF_NETLINK, _AF_UNSPEC, _NETLINK_NETFILTER = 16, 0, 12
_SUBSYS_ULOG, _MSG_CONFIG = 4, 1
_NLM_F_REQUEST, _NLM_F_ACK, _NLMSG_ERROR = 1, 4, 2
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_QTHRESH = 1, 2, 4, 5
_CMD_BIND, _COPY_PACKET = 1, 2
_RECEIVE_BUFFER = 512 << 10
"""Bytes that may wait while the reader starts; more is lost and counted, never a reason to wait for."""


def listen(group: int, copy_bytes: int) -> int:
    """Bind `group` in the current network namespace; returns a non-blocking descriptor.

    Args:
        group: 1 to 65535, as in the rules' `log group`.
        copy_bytes: how much of each packet is delivered.

    Raises:
        OSError: another process reads the group (EBUSY, EPERM), or the kernel has no NFLOG.
    """
    made = socket(_AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, _NETLINK_NETFILTER)
    try:
        made.setsockopt(SOL_SOCKET, SO_RCVBUF, _RECEIVE_BUFFER)
        # a threshold of 1 delivers each packet at once; the default holds them back for a second
        settings = [
            (_CFG_CMD, struct.pack("B", _CMD_BIND)),
            (_CFG_MODE, struct.pack("!IBB", copy_bytes, _COPY_PACKET, 0)),
            (_CFG_QTHRESH, struct.pack("!I", 1)),
            (_CFG_TIMEOUT, struct.pack("!I", 10)),
        ]
        for kind, value in settings:
            made.send(_message(group, kind, value))
            _acknowledged(made.recv(4096))
    except OSError:
        os.close(made.detach())
        raise
    fd = made.detach()
    os.set_blocking(fd, False)
    return fd


def _message(group: int, kind: int, value: bytes) -> bytes:
    """One configuration message: netlink header, nfgenmsg, one attribute (linux/netfilter/nfnetlink_log.h)."""
    attribute = struct.pack("=HH", 4 + len(value), kind) + value
    attribute += bytes(-len(attribute) % 4)
    body = struct.pack("=BB", _AF_UNSPEC, 0) + struct.pack("!H", group) + attribute
    header = struct.pack("=IHHII", 16 + len(body), _SUBSYS_ULOG << 8 | _MSG_CONFIG, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
    return header + body


def _acknowledged(answer: bytes) -> None:
    """Raise the error that the kernel's answer carries (netlink(7), NLMSG_ERROR)."""
    kind, code = struct.unpack_from("=4xH10xi", answer)
    if kind == _NLMSG_ERROR and code:
        raise OSError(-code, os.strerror(-code))
