"""Keeps the names of one container's allowlist resolved: by its dnsmasq, or without one by a program every hour."""

from __future__ import annotations

import os
import sys

from . import strays
from .ground import layout, process
from .ground.errors import TerokError
from .ground.log import say
from .ground.pids import signal_pidfd
from .ground.quick import signal
from .service import Service
from .wall import firewall, resolver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .container.container import Container
    from .ground.loop import Loop
    from .ground.pids import Process
    from .ground.process import Launch
    from .listeners import Opened
    from .schema import Shield, Wiring

PROBE_TIMEOUT = 5.0
KILL_TIMEOUT = 1.0
LOOK_AFTER = 1.0
"""Seconds between a change of the firewall's sets and the look whether dnsmasq still reads the kernel's answers."""


class Names:
    """The resolver of one shielded container.

    Attributes:
        dns: dnsmasq; None where names are resolved by a program.
    """

    def __init__(self, shield: Shield, wiring: Wiring, container: Container) -> None:
        self.dns: Service | None = None
        self._begun: Launch | None = None
        self._shield, self._wiring, self._container = shield, wiring, container
        self._turn = 0
        self._looking = False
        self._loop: Loop | None = None

    def watch_over(self, begun: Launch, opened: Opened, changed: Callable[[], None]) -> Service:
        """The service that keeps dnsmasq, which `resolver.launch` has begun."""
        self._begun = begun
        self.dns = Service(
            strays.DNSMASQ,
            resolver.argv(self._shield),
            [],
            eager=True,
            survives=True,
            namespaces=self._container.network,
            prepare=resolver.confinement(self._shield),
            make_room=self._end_children,
            stderr=opened.dns_log,
            log_path=self._wiring.bundle.log,
            changed=changed,
        )
        self.dns.take(begun.pid)
        return self.dns

    def probe(self, opened: Opened) -> None:
        """Get one answer from dnsmasq; raises TerokError with what it said."""
        if self.dns is None or self._begun is None:
            return
        self._begun.confirm()
        try:
            resolver.probe(opened.probe, self._shield.probe, PROBE_TIMEOUT, server=self.dns.pidfd)
        except TerokError as error:
            said = opened.read_dns_log().strip()
            say(said)
            raise TerokError(f"{error.what} It said: {(said.splitlines() or ['nothing'])[-1][:200]}") from error
        opened.read_dns_log()  # of its own start and our question: nothing that the reader should start for

    def attach(self, loop: Loop) -> None:
        """Begin the hourly work in a new loop."""
        self._loop, self._looking = loop, False
        loop.after(firewall.ROTATE_SECONDS, self._refresh if self.dns is None else self._rotate)

    def reload(self) -> None:
        """Have dnsmasq read its configuration again."""
        if self.dns is not None:
            self.dns.restart()

    def on_change(self) -> None:
        """The firewall's sets have changed, most likely by dnsmasq: look after a while whether it got stuck at that."""
        if self.dns is not None and self._loop is not None and not self._looking:
            self._looking = True
            self._loop.after(LOOK_AFTER, self._look)

    def _look(self, left: int = resolver.LOOKS) -> None:
        assert self.dns is not None and self._loop is not None
        if not resolver.unread(self.dns.pid):
            self._looking = False
        elif left > 1:
            self._loop.after(resolver.LOOK_SECONDS, lambda: self._look(left - 1))
        else:
            self._looking = False
            self.dns.restart(resolver.STUCK)

    def adopt(self) -> None:
        """After a change of supervisor: take over the dnsmasq that runs in the container's network.

        It is found there and not in the record: the supervisor may have died between the fork and the record, or the
        disk may have been full. One of several is kept, the others would fight over the port.
        """
        if self.dns is None:
            return
        running = sorted(strays.resolvers(self._container.net), key=lambda process: process.start_time)
        self.dns.adopt(running[0] if running else None)
        _kill(running[1:])

    def _end_children(self) -> None:
        """End what a dnsmasq that is gone left behind.

        It forks a child for each connection over TCP, which lives as long as the connection, up to 150 s, and keeps
        the port taken that the next dnsmasq needs.
        """
        _kill(strays.resolvers(self._container.net))

    def _rotate(self) -> None:
        assert self._loop is not None
        self._turn += 1
        try:
            firewall.rotate(self._container.network, self._shield, self._turn)
        except (TerokError, OSError, ValueError) as error:
            say(f"shield: learned addresses could not be forgotten: {error}")
        self._loop.after(firewall.ROTATE_SECONDS, self._rotate)

    def _refresh(self) -> None:
        """Without dnsmasq: have the names resolved again, in a process of its own."""
        loop = self._loop
        assert loop is not None
        script = layout.program("sidecars", "shield", "refresh.py")
        argv = [sys.executable, "-I", "-S", script, self._wiring.bundle.root]
        loop.after(firewall.ROTATE_SECONDS, self._refresh)
        try:
            running, fd = process.identify(process.spawn(argv, fds={2: 2}, die_with_parent=True))
        except TerokError as error:
            say(f"shield: names could not be resolved again: {error.what}")
            return

        def ended() -> None:
            loop.forget(fd)
            os.close(fd)
            os.waitpid(running.pid, 0)

        loop.watch(fd, ended)


def _kill(processes: list[Process]) -> None:
    for running in processes:
        fd = running.open()
        if fd is not None:
            signal_pidfd(fd, signal.SIGKILL)
            process.wait_gone(fd, KILL_TIMEOUT)
            os.close(fd)
