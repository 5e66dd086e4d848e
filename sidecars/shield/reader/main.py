"""The packet and name audit: reads what the firewall logs and what dnsmasq says, and writes what the operator can read.

It starts when there is something to read and leaves when there was nothing for a while; the supervisor keeps both
descriptors. Packets and names are the container's own words, so this process has no privileges, no network and no
files but the audit log.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable

from ...kit.audit import Audit
from ...kit.confine import confine
from ...kit.context import Context
from .. import hints
from . import names, packets
from .window import Window

_READ = 1 << 16


class Reader:
    """Turns what arrives into audit lines.

    Args:
        container: its name, for the command that would allow something.
        write: appends an audit line: event, fields.
    """

    def __init__(self, container: str, write: Callable[..., None]) -> None:
        self._container, self._write = container, write
        self._names = names.Names()
        self._packets: Window[packets.Packet] = Window()
        self._refused: Window[names.Refused] = Window()

    def on_packets(self, data: bytes, now: float) -> None:
        """A datagram from the kernel."""
        for packet in packets.packets(data):
            if self._packets.add(packet, now):
                self._packet(packet, 1)

    def on_log(self, data: bytes, now: float) -> None:
        """Bytes of dnsmasq's log."""
        refused, other = self._names.feed(data)
        for event in refused:
            if hints.asks_for_itself(event.name, self._container):
                continue
            if self._refused.add(event, now):
                self._name(event, 1)
        for line in other:
            print(f"dnsmasq: {line}", file=sys.stderr)

    def on_time(self, now: float) -> None:
        """Write what was counted and is due."""
        for packet, count in self._packets.due(now):
            self._packet(packet, count)
        for name, count in self._refused.due(now):
            self._name(name, count)
        missed = self._packets.take_overflow() + self._refused.take_overflow()
        if missed:
            self._write("overflow", count=missed, reason="more different events at once than are told apart")

    def next_time(self) -> float | None:
        """When `on_time` is to be called next; None: not before something arrives."""
        ends = [end for end in (self._packets.next_end(), self._refused.next_end()) if end is not None]
        return min(ends) if ends else None

    def _packet(self, packet: packets.Packet, count: int) -> None:
        name = self._names.name_of(packet.address)
        refused = packet.prefix == "refused"
        target = hints.packet_target(name, packet.address, packet.port, packet.protocol) if refused else None
        self._write(
            "packet",
            verdict=packet.prefix or "refused",
            name=name,
            address=packet.address,
            port=packet.port,
            proto=packet.protocol,
            count=count,
            **hints.allow(self._container, target),
        )

    def _name(self, event: names.Refused, count: int) -> None:
        allow = hints.allow(self._container, hints.name_target(event.name))
        self._write("dns", verdict="refused", name=event.name, type=event.kind, count=count, **allow)


def main(context: Context) -> int:
    """Read both sources until nothing came for `idle_seconds`; returns the exit code."""
    log = Audit(context.bundle.audit, "shield")
    log.open_old()
    reader = Reader(context.container, log.write)
    kinds = {fd: listener.kind for listener, fd in context.sources}
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    wakeup, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_write)
    confine()
    waiting = select.poll()
    for fd in (*kinds, wakeup):
        waiting.register(fd, select.POLLIN)
    last = time.monotonic()
    while not stopping:
        end = reader.next_time()
        leave = last + context.idle_seconds if context.idle_seconds else None
        wait = min(each for each in (end, leave, float("inf")) if each is not None) - time.monotonic()
        ready = waiting.poll(None if wait == float("inf") else max(0.0, wait) * 1000 + 1)
        now = time.monotonic()
        for fd, _ in ready:
            if fd in kinds:
                last = now
                _read(fd, kinds[fd], reader, now)
        reader.on_time(now)
        if not ready and leave is not None and now >= leave:
            break
    reader.on_time(float("inf"))
    return 0


def _read(fd: int, kind: str, reader: Reader, now: float) -> None:
    try:
        data = os.read(fd, _READ)
    except BlockingIOError:
        return
    except OSError:
        return  # ENOBUFS: the kernel had to drop packets; the next read goes on
    if kind == "nflog":
        reader.on_packets(data, now)
    else:
        reader.on_log(data, now)
