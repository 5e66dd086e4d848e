"""Notices when another program changes a container's firewall or its loopback network, and restores it.

The kernel reports every change of nftables (NFNLGRP_NFTABLES), and in the airlock every change of addresses and routes,
over netlink. Only the type of each message is looked at: elements come and go with every DNS answer and say nothing,
anything else leads to a comparison with what should be in force. Idle, this costs one or two descriptors.
"""

from __future__ import annotations

import os
import struct
from _socket import SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, socket

from ..ground import audit
from ..ground.errors import TerokError
from ..ground.log import say
from . import firewall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..container.container import Container
    from ..schema import Wiring

_AF_NETLINK, _NETLINK_NETFILTER = 16, 12
_NFNLGRP_NFTABLES = 7
_SUBSYS_ROUTES, _SUBSYS_NFTABLES = 0, 10
_FIRST_ROUTE_MESSAGE = 16
_ELEMENTS = {12, 13, 14, 15, 16}  # NEW-, GET-, DELSETELEM, NEW-, GETGEN (linux/netfilter/nf_tables.h)
_HEADER = struct.Struct("=IHHII")
_AGAIN = 0.1
"""Seconds until the next try when the firewall is just being changed."""


def listen() -> int:
    """A non-blocking netlink socket that hears of changes of nftables in the current network namespace."""
    made = socket(_AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, _NETLINK_NETFILTER)
    made.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
    return made.detach()


def matters(data: bytes) -> bool:
    """True when a batch of netlink messages (netlink(7)) has one about rules, sets, links, addresses or routes."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind >> 8 == _SUBSYS_NFTABLES and kind & 0xFF not in _ELEMENTS:
            return True
        if kind >> 8 == _SUBSYS_ROUTES and kind >= _FIRST_ROUTE_MESSAGE:
            return True
        at += max(_HEADER.size, (length + 3) & ~3)
    return False


def drain(fds: Sequence[int]) -> bool:
    """Take in what the kernel has reported so far on these netlink sockets; True when something relevant changed."""
    return sum(_drain(fd) for fd in fds) > 0  # each is read, whatever another one said


def _drain(fd: int) -> bool:
    changed = False
    for _ in range(64):  # the rest waits for the next round: a flood must not keep the loop
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return changed
        except OSError:
            return True  # ENOBUFS: messages were lost, so anything may have happened
        changed = matters(data) or changed
    return changed


class Guard:
    """Keeps the firewall of one container as it should be.

    Args:
        fds: what `listen` returned in the container's network namespace, and in the airlock `netlink.listen` too.

    Attributes:
        checking: `check`, with its failures handled.
        heard: called after the kernel reported anything, such as an address that dnsmasq put into a set.
        lost: True when the kernel's messages of some time went to a process that is gone.
    """

    def __init__(self, fds: Sequence[int], container: Container, wiring: Wiring) -> None:
        self.fds, self._container, self._wiring = fds, container, wiring
        self.checking: Callable[[], None] = self.check
        self.heard: Callable[[], None] = lambda: None
        self.later: Callable[[float, Callable[[], None]], None] = lambda _seconds, _check: None
        self.lost = False
        self._told = ""

    def on_news(self) -> None:
        """Read what the kernel reports; compare and restore when it matters."""
        if drain(self.fds):
            self.checking()
        self.heard()

    def check(self) -> None:
        """Compare the firewall in force with the expected one; restore it when it differs, and write it down.

        While `terok shield` changes both, which it does under a lock, the comparison waits.

        Raises:
            TerokError: it could not be restored; `checking` tries again.
        """
        shield = self._wiring.shield
        assert shield is not None
        self.lost = False
        # A live change loads rules and writes the file that says what they are: between the two they differ by right.
        if self._being_changed():
            self.later(_AGAIN, self.checking)
            return
        try:
            firewall.verify(self._container.network, shield)
            return
        except TerokError as error:
            reason = error.what
        try:
            firewall.restore(self._container.network, shield)
        except TerokError as error:
            self._tell("restore_failed", f"{reason} {error.what}")
            raise
        self._tell("restored", reason)
        self._told = ""

    def _being_changed(self) -> bool:
        from fcntl import LOCK_NB, LOCK_SH, flock

        try:
            # a shared lock: two supervisors' checks do not wait for each other, a verb's exclusive lock is seen
            fd = os.open(self._wiring.bundle.shield_lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False  # never changed so far
        try:
            flock(fd, LOCK_SH | LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)

    def _tell(self, event: str, reason: str) -> None:
        if self._told == reason:
            return  # the same failure again
        self._told = reason
        say(f"shield: {event}: {reason}")
        try:
            audit.append(self._wiring.bundle.audit, "shield", event, reason=reason)
        except OSError as error:
            say(f"shield: the audit line could not be written: {error.strerror}")
