"""dnsmasq as the container's resolver: how it is started, and whether it answers."""

from __future__ import annotations

import os
import select
import time

from .errors import TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .schema import Shield

_RETRY = 0.002
"""Seconds between two queries while dnsmasq has not bound its port yet (it gives no other sign)."""


def argv(shield: Shield) -> list[str]:
    """The command line of a dnsmasq in the foreground that keeps the caller's identity."""
    return ["dnsmasq", "--keep-in-foreground", "--user=root", "--group=root", f"--conf-file={shield.dnsmasq_conf}"]


def probe(fd: int, name: str, timeout: float) -> None:
    """Ask for `name` (type A, RFC 1035) until any answer comes.

    Args:
        fd: a UDP socket connected to the resolver.
        timeout: seconds.

    Raises:
        TerokError: no answer in time.
    """
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = b"\x74\x6b\x01\x00\x00\x01" + bytes(6) + labels + b"\x00\x00\x01\x00\x01"
    deadline = time.monotonic() + timeout
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    while time.monotonic() < deadline:
        try:
            os.write(fd, query)
            if waiting.poll(200) and os.read(fd, 512)[:2] == query[:2]:
                return
        except ConnectionRefusedError:
            time.sleep(_RETRY)
    raise TerokError(f"no answer from 127.0.0.1:53 in the container within {timeout:g} s.")
