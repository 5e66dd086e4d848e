"""The packet and name audit: reads what the firewall logs and what dnsmasq says, and writes what the operator can read.

It starts when there is something to read and leaves when there was nothing for a while; the supervisor keeps both
descriptors. Packets and names are the container's own words, so this process has no privileges, no network and no
files but the audit log.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from ...kit.audit import Audit
from ...kit.confine import confine
from ...kit.context import Context
from ...kit.reactor import READ, Reactor, Timer
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


class Feed:
    """Reads the sources in the loop and gives the reader its time.

    Args:
        reactor: the loop.
        reader: takes what is read.
        idle_seconds: stop the loop when nothing came for this long; 0: never.
    """

    def __init__(self, reactor: Reactor, reader: Reader, idle_seconds: float) -> None:
        self._reactor, self._reader, self._idle_seconds = reactor, reader, idle_seconds
        self._last = reactor.now
        self._timer: Timer | None = None

    def start(self, sources: dict[int, str]) -> None:
        """Read from now on; `sources` has the kind of each descriptor."""
        for fd, kind in sources.items():
            take = self._reader.on_packets if kind == "nflog" else self._reader.on_log
            self._reactor.watch(fd, READ, self._handler(fd, take))
        self._last = self._reactor.now
        self._arm()

    def _handler(self, fd: int, take: Callable[[bytes, float], None]) -> Callable[[int], None]:
        def ready(_events: int) -> None:
            self._last = self._reactor.now
            try:
                data = os.read(fd, _READ)
            except OSError:
                return  # nothing there after all, or ENOBUFS: the kernel had to drop packets; the next read goes on
            if not data:
                self._reactor.forget(fd)  # its other end is gone
                return
            take(data, self._reactor.now)
            self._arm()

        return ready

    def _arm(self) -> None:
        """Have one timer for the earliest deadline; one that comes too early looks again, so a flood adds none."""
        ends = [self._last + self._idle_seconds] if self._idle_seconds else []
        end = self._reader.next_time()
        if end is not None:
            ends.append(end)
        if ends and (self._timer is None or self._timer.when > min(ends)):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._reactor.later(max(0.0, min(ends) - self._reactor.now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._reader.on_time(self._reactor.now)
        if self._idle_seconds and self._reactor.now - self._last >= self._idle_seconds:
            self._reactor.stop()
        else:
            self._arm()


def main(context: Context) -> int:
    """Read both sources until nothing came for `idle_seconds`; returns the exit code."""
    log = Audit(context.bundle.audit, "shield")
    log.open_old()
    reader = Reader(context.container, log.write)
    reactor = Reactor(strict=True)
    reactor.on_signal(signal.SIGTERM, reactor.stop)
    confine()
    Feed(reactor, reader, context.idle_seconds).start({fd: listener.kind for listener, fd in context.sources})
    reactor.run()
    reader.on_time(float("inf"))
    return 0
