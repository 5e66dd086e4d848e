"""The supervisor: brings one container's services up, holds them while it lives, and takes everything away after it.

Two processes share the work. The main one acts; its standby, forked from it with the same descriptors, only waits
for it to die and then takes its place, so that listening sockets survive even SIGKILL. Neither reads a byte that
the container wrote.

Neither ends for want of a resource: what cannot be done now is held as a trouble, shown by `terok status`, and tried
again. A sidecar that dies while no process can be forked is brought back all the same: the standby is a process that
exists already, and becomes that sidecar.
"""

from __future__ import annotations

import gc
import os
import select
import time

from . import listeners, record
from .container import selinux
from .ground import kernel, log, process
from .ground.errors import TerokError
from .ground.log import mark, say
from .ground.loop import Loop
from .ground.pids import signal_pidfd
from .ground.quick import signal
from .names import Names
from .reap import TAKE_DOWN, remove_runtime_dir
from .record import Process, Record
from .schema import INSIDE, SOURCES
from .service import Service
from .troubles import Attempt, Troubles, reason
from .wall.guard import Guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container.container import Container
    from .ground.process import Launch
    from .ground.within import Call
    from .listeners import Opened
    from .schema import Wiring

STOP_GRACE = 0.3
"""Seconds that a service has to end by itself after SIGTERM."""
STANDBY_PAUSE = 0.05
"""Seconds before a standby that ended is replaced, so that one that cannot live does not keep the machine busy."""
REBUILD_PAUSE = 0.5
"""Seconds before the loop is built again, after something in it failed that nothing else was prepared for."""


class _BecomeStandby(BaseException):
    """Unwinds the child of a fork back to `Supervisor.live`, where it stands by. Not an error."""


class Supervisor:
    """The services of one container.

    Args:
        wiring: its checked sidecar JSON.
        container: its kernel objects.
    """

    def __init__(self, wiring: Wiring, container: Container) -> None:
        self.wiring, self.container = wiring, container
        self.phase = "starting"
        self.error: str | None = None
        self.started = time.time()
        self.services: list[Service] = []
        self.troubles = Troubles(self.write_record)
        self._names: Names | None = None
        self._guard: Guard | None = None
        self._loop: Loop | None = None
        self._main_pidfd = self._standby_pidfd = -1
        self._standby: Process | None = None
        self._orders = self._order = -1
        self._writing: Attempt | None = None
        self._standing: Attempt | None = None

    # --- start -------------------------------------------------------------------------------------------

    def bring_up(self, opened: Opened, begun: Launch | None, inside: Call, attaching: Call | None) -> None:
        """Open the rest, and wait for what is at work; raises TerokError, and `take_down` undoes what was done.

        Three things take their time, and go on side by side: what a child does inside the container's network
        (its firewall above all), the start of dnsmasq, and the mounts.

        Args:
            opened: with nothing opened yet but dnsmasq's log.
            begun: dnsmasq's start; None without dnsmasq.
            inside: the child of `listeners.begin_inside`.
            attaching: the child of `mounts.begin`; None when there is nothing to mount.
        """
        if self.wiring.shield is not None:
            self._names = Names(self.wiring.shield, self.wiring, self.container)
            if begun is not None:
                self.services.append(self._names.watch_over(begun, opened, self.write_record))
        self.write_record()
        listeners.open_here(opened, self.container, self.wiring)
        selinux.relabel(self.container.file_label, selinux.own_files(self.wiring))
        mark("sockets opened")
        if attaching is not None:
            attaching.finish()
        mark("mounts awaited")
        os.close(self.container.mount)
        listeners.add_inside(opened, self.wiring, inside)
        mark("network awaited")
        self.services[:0] = [
            Service.of_sidecar(
                sidecar,
                self.wiring,
                [opened.fds[listener] for listener in sidecar.listeners],
                self.write_record,
                namespaces=self.container.network if sidecar.name in INSIDE else None,
            )
            for sidecar in self.wiring.sidecars
        ]
        for service in self.services:
            service.lend = self._lend_standby
        if self._names is None:
            for monitor in opened.monitors:
                os.close(monitor)
        else:
            self._guard = Guard(opened.monitors, self.container, self.wiring)
            self._names.probe(opened)
            mark("dnsmasq answered")
        os.close(opened.probe)

    # --- life --------------------------------------------------------------------------------------------

    def live(self) -> int:
        """Serve until the container ends; returns the exit code. A standby comes back here when its main one dies."""
        took_over = False
        while True:
            try:
                if took_over:
                    self._take_over()
                    took_over = False
                self._serve()
                self.take_down(record.ENDED)
                return 0
            except _BecomeStandby:
                if not self._stand_by():
                    return 0
                took_over = True
            except (OSError, TerokError, MemoryError) as error:
                self._leave_loop()
                self.troubles.hold("supervisor", reason(error))
                process.wait_gone(self.container.pidfd, REBUILD_PAUSE)

    def _serve(self) -> None:
        self._main_pidfd = os.pidfd_open(os.getpid())
        loop = self._loop = Loop()
        loop.watch(self.container.pidfd, loop.stop)
        loop.on_signal(signal.SIGTERM, self._hand_over)
        loop.on_signal(TAKE_DOWN, loop.stop)
        loop.on_signal(signal.SIGHUP, self._reload)
        self.phase = record.READY
        self._writing = Attempt("record", self._write, self.troubles, loop.after)
        self._standing = Attempt("standby", self._fork_standby, self.troubles, loop.after)
        if self._standby is None:
            self._standing.now()
        else:
            loop.watch(self._standby_pidfd, self._on_standby_end)
        for service in self.services:
            service.attach(loop)
        if self._guard is not None:
            self._guard.checking = Attempt("firewall", self._guard.check, self.troubles, loop.after).now
            self._guard.later = loop.after
            for monitor in self._guard.fds:
                loop.watch(monitor, self._guard.on_news)
            if self._guard.lost:
                self._guard.checking()
        if self._names is not None:
            self._names.attach(loop)
            if self._guard is not None:
                self._guard.heard = self._names.on_change
        self.write_record()
        gc.freeze()
        gc.enable()
        self.troubles.clear("supervisor")
        loop.run()

    def _leave_loop(self) -> None:
        """Give up a loop in which something failed; processes and sockets stay for the next one."""
        self._writing = self._standing = None
        if self._loop is not None:
            self._loop.close()
            self._loop = None
        if self._main_pidfd >= 0:
            os.close(self._main_pidfd)
            self._main_pidfd = -1

    def _reload(self) -> None:
        if self._names is not None:
            self._names.reload()

    def _hand_over(self) -> None:
        """At SIGTERM: a supervisor whose container lives is replaced and does not take the services away."""
        assert self._loop is not None
        if process.wait_gone(self.container.pidfd, 0):
            self._loop.stop()
        elif self._standby is None:
            say("supervisor: was asked to end while its container runs; it stays, since it has no standby now")
        else:
            say("supervisor: was asked to end while its container runs; its standby takes over")
            os._exit(0)

    # --- the standby -------------------------------------------------------------------------------------

    def _fork_standby(self) -> None:
        gc.freeze()  # keeps the collector off the shared pages
        orders, order = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            pid = process.split()
            if pid == 0:
                os.close(order)
                self._orders = orders
                raise _BecomeStandby
            self._standby, self._standby_pidfd = process.identify(pid)
        except TerokError:
            os.close(order)
            raise
        finally:
            if self._orders != orders:
                os.close(orders)
        self._order = order
        assert self._loop is not None
        self._loop.watch(self._standby_pidfd, self._on_standby_end)
        self.write_record()

    def _on_standby_end(self) -> None:
        assert self._loop is not None and self._standby is not None
        self._loop.forget(self._standby_pidfd)
        os.close(self._standby_pidfd)
        try:
            os.waitpid(self._standby.pid, 0)
        except ChildProcessError:
            pass
        self._miss_standby()

    def _miss_standby(self) -> None:
        assert self._loop is not None and self._standing is not None
        os.close(self._order)
        self._standby, self._standby_pidfd, self._order = None, -1, -1
        self._loop.after(STANDBY_PAUSE, self._standing.now)

    def _lend_standby(self, service: Service) -> tuple[Process, int] | None:
        """Have the standby, which has the same listening sockets, become a service's process; None without one."""
        if self._standby is None or self._loop is None:
            return None
        try:
            os.write(self._order, bytes([self.services.index(service)]))
        except OSError:
            return None
        say(f"{service.name}: no process could be started; the standby becomes it")
        lent = self._standby, self._standby_pidfd
        self._loop.forget(self._standby_pidfd)
        self._miss_standby()
        return lent

    def _stand_by(self) -> bool:
        """Wait in the standby; True when the main supervisor died while the container lives on."""
        main = os.getppid()
        assert self._loop is not None
        self._loop.close()
        self._loop = None
        kernel.set_name("terok-standby")
        for number in (signal.SIGTERM, signal.SIGHUP, TAKE_DOWN):
            signal.signal(number, signal.SIG_IGN)
        waiting = select.poll()
        for fd in (self._main_pidfd, self.container.pidfd, self._orders):
            waiting.register(fd, select.POLLIN)
        ready = [fd for fd, _ in waiting.poll()]
        if self._orders in ready and (order := os.read(self._orders, 1)):
            self.services[order[0]].become(main)
        process.wait_gone(self._main_pidfd, 5.0 if process.wait_gone(self.container.pidfd, 0) else -1)
        if process.wait_gone(self.container.pidfd, 0):
            # the main one takes everything away; should it die over that, this one does
            if process.wait_gone(self._main_pidfd, 5.0):
                self._forget_services()
                self.take_down(record.ENDED)
            return False
        return True

    def _take_over(self) -> None:
        kernel.set_name("terok-superv")
        say("supervisor: was killed, its standby took over")
        for fd in (self._main_pidfd, self._orders):
            if fd >= 0:
                os.close(fd)
        self._main_pidfd = self._orders = -1
        self.error = "the supervisor was killed and replaced by its standby"
        self._forget_services()
        if self._guard is not None:
            self._guard.lost = True  # what the kernel said meanwhile went to a process that is gone

    def _forget_services(self) -> None:
        """The sidecars died with the main supervisor (PDEATHSIG); dnsmasq did not and is found by its network."""
        known = record.read(self.wiring.bundle.record)
        for service in self.services:
            service.forget_process()
            if known is not None:
                service.remember(known.service(service.name))
        if self._names is not None:
            self._names.adopt()

    # --- end ---------------------------------------------------------------------------------------------

    def take_down(self, phase: str) -> None:
        """Stop the services, remove the runtime directory, write the last record. Harmless when repeated."""
        self.phase = "ending" if phase == record.ENDED else phase
        self._writing = None
        if self._standby is not None:
            signal_pidfd(self._standby_pidfd, signal.SIGKILL)
        running = [service for service in self.services if service.pidfd >= 0]
        for service in running:
            signal_pidfd(service.pidfd, signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE
        for service in running:
            if not process.wait_gone(service.pidfd, max(0.0, deadline - time.monotonic())):
                service.kill()
                process.wait_gone(service.pidfd, 1.0)
            service.forget_process()
        remove_runtime_dir(self.wiring.runtime_dir)
        self.phase, self._standby = phase, None
        self.write_record()

    def write_record(self) -> None:
        """Write the record as it is now; when it cannot be written, again later while the container lives."""
        if self._writing is not None:
            self._writing.now()
            return
        try:
            self._write()
        except OSError as error:
            say(f"supervisor: the record could not be written: {error.strerror}")

    def _write(self) -> None:
        log.trim()
        record.write(self.wiring.bundle.record, self.describe())

    def describe(self) -> Record:
        """The record's content."""
        ended = self.phase in (record.ENDED, record.FAILED)
        return Record(
            name=self.wiring.container,
            identity=self.container.identity,
            container=self.container.init,
            supervisor=None if ended else Process(os.getpid(), process.start_time(os.getpid())),
            standby=self._standby,
            phase=self.phase,
            started=self.started,
            error=self.error,
            troubles=self.troubles.lines,
            asked=tuple(self.container.asked.items()),
            sockets=tuple(
                str(listener)
                for sidecar in self.wiring.sidecars
                for listener in sidecar.listeners
                if listener.kind not in SOURCES
            ),
            services=tuple((service.name, service.describe()) for service in self.services),
        )
