"""The supervisor: brings one container's services up, holds them while it lives, and takes everything away after it.

Two processes share the work. The main one acts; its standby, forked from it with the same descriptors, only waits
for it to die and then takes its place, so that listening sockets survive even SIGKILL. Neither reads a byte that
the container wrote.
"""

from __future__ import annotations

import gc
import os
import select
import sys
import time

from . import listeners, record
from .container import selinux
from .ground import kernel, layout, process
from .ground.errors import TerokError
from .ground.loop import Loop
from .ground.pids import signal_pidfd
from .ground.quick import signal
from .reap import remove_runtime_dir
from .record import Process, Record
from .schema import SOURCES
from .service import Service
from .wall import firewall, resolver
from .wall.guard import Guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container.container import Container
    from .ground.within import Call
    from .listeners import Opened
    from .schema import Shield, Wiring

STOP_GRACE = 0.3
"""Seconds that a service has to end by itself after SIGTERM."""
PROBE_TIMEOUT = 5.0
LOG_MAX = 4 << 20


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
        self._dns: Service | None = None
        self._guard: Guard | None = None
        self._turn = 0
        self._loop: Loop | None = None
        self._main_pidfd = self._standby_pidfd = -1
        self._standby: Process | None = None

    # --- start -------------------------------------------------------------------------------------------

    def bring_up(self, inside: Call, attaching: Call | None) -> None:
        """Open, mount, apply and start everything; raises TerokError, and `take_down` undoes what was done.

        Three things take their time, and go on side by side: what a child does inside the container's network
        (its firewall above all), the start of dnsmasq, and the mounts.

        Args:
            inside: the child of `listeners.begin_inside`.
            attaching: the child of `mounts.begin`; None when there is nothing to mount.
        """
        shield, opened = self.wiring.shield, listeners.Opened(self.wiring)
        if shield is not None and shield.dnsmasq_conf is not None:
            self._start_dns(shield, opened)
        self.write_record()
        listeners.open_here(opened, self.container, self.wiring)
        selinux.relabel(self.container.file_label, selinux.own_files(self.wiring))
        if attaching is not None:
            attaching.finish()
        os.close(self.container.mount)
        listeners.add_inside(opened, self.wiring, inside)
        self.services[:0] = [
            Service.of_sidecar(
                sidecar,
                self.wiring.bundle.sidecar,
                [opened.fds[listener] for listener in sidecar.listeners],
                self.write_record,
            )
            for sidecar in self.wiring.sidecars
        ]
        if shield is None:
            for monitor in opened.monitors:
                os.close(monitor)
        else:
            self._guard = Guard(opened.monitors, self.container, self.wiring)
            self._probe_dns(shield, opened)
        os.close(opened.probe)

    def _start_dns(self, shield: Shield, opened: Opened) -> None:
        """Start dnsmasq; it asks nobody and writes nothing before it is asked, so it may start before the firewall."""
        self._dns = Service(
            "dnsmasq",
            resolver.argv(shield),
            [],
            eager=True,
            survives=True,
            namespaces=self.container.network,
            prepare=resolver.confinement(shield),
            stderr=opened.dns_log,
            changed=self.write_record,
        )
        self.services.append(self._dns)
        self._dns.start()

    def _probe_dns(self, shield: Shield, opened: Opened) -> None:
        """Get one answer from dnsmasq."""
        if self._dns is None:
            return
        try:
            resolver.probe(opened.probe, shield.probe, PROBE_TIMEOUT, server=self._dns.pidfd)
        except TerokError as error:
            said = opened.read_dns_log().strip()
            os.write(2, said.encode() + b"\n")
            raise TerokError(f"{error.what} It said: {(said.splitlines() or ['nothing'])[-1][:200]}") from error
        opened.read_dns_log()  # of its own start and our question: nothing that the reader should start for

    # --- life --------------------------------------------------------------------------------------------

    def live(self) -> int:
        """Serve until the container ends; returns the exit code. A standby comes back here when its main one dies."""
        while True:
            try:
                self._serve()
                self.take_down("ended")
                return 0
            except _BecomeStandby:
                if not self._stand_by():
                    return 0
                self._take_over()

    def _serve(self) -> None:
        self._main_pidfd = os.pidfd_open(os.getpid())
        loop = self._loop = Loop()
        loop.watch(self.container.pidfd, loop.stop)
        loop.on_signal(signal.SIGTERM, loop.stop)
        loop.on_signal(signal.SIGHUP, self._reload)
        self.phase = "ready"
        self._fork_standby()
        for service in self.services:
            service.attach(loop)
        if self._guard is not None:
            self._guard.later = loop.after
            for monitor in self._guard.fds:
                loop.watch(monitor, self._guard.on_news)
        if self._dns is not None:
            loop.after(firewall.ROTATE_SECONDS, self._rotate)
        elif self.wiring.shield is not None:
            loop.after(firewall.ROTATE_SECONDS, self._refresh)
        self.write_record()
        gc.freeze()
        gc.enable()
        loop.run()

    def _reload(self) -> None:
        if self._dns is not None:
            self._dns.restart()

    def _rotate(self) -> None:
        assert self._loop is not None and self.wiring.shield is not None
        self._turn += 1
        try:
            firewall.rotate(self.container.network, self.wiring.shield, self._turn)
        except TerokError as error:
            os.write(2, f"shield: learned addresses could not be forgotten: {error.what}\n".encode(errors="replace"))
        self._loop.after(firewall.ROTATE_SECONDS, self._rotate)

    def _refresh(self) -> None:
        """Without dnsmasq: have the names resolved again, in a process of its own."""
        loop = self._loop
        assert loop is not None
        script = layout.program("sidecars", "shield", "refresh.py")
        argv = [sys.executable, "-I", "-S", script, self.wiring.bundle.root]
        loop.after(firewall.ROTATE_SECONDS, self._refresh)
        try:
            pid = process.spawn(argv, fds={2: 2}, die_with_parent=True)
        except TerokError as error:
            os.write(2, f"shield: names could not be resolved again: {error.what}\n".encode(errors="replace"))
            return
        fd = process.pidfd(pid)

        def ended() -> None:
            loop.forget(fd)
            os.close(fd)
            os.waitpid(pid, 0)

        loop.watch(fd, ended)

    def _fork_standby(self) -> None:
        gc.freeze()  # keeps the collector off the shared pages
        pid = process.split()
        if pid == 0:
            raise _BecomeStandby
        self._standby = Process(pid, process.start_time(pid))
        self._standby_pidfd = process.pidfd(pid)
        assert self._loop is not None
        self._loop.watch(self._standby_pidfd, self._on_standby_end)

    def _on_standby_end(self) -> None:
        assert self._loop is not None and self._standby is not None
        self._loop.forget(self._standby_pidfd)
        os.close(self._standby_pidfd)
        try:
            os.waitpid(self._standby.pid, 0)
        except ChildProcessError:
            pass
        # a pause, so that a standby that cannot live does not keep the machine busy
        self._loop.after(0.05, self._renew_standby)

    def _renew_standby(self) -> None:
        self._fork_standby()
        self.write_record()

    def _stand_by(self) -> bool:
        """Wait in the standby; True when the main supervisor died while the container lives on."""
        assert self._loop is not None
        self._loop.close()
        kernel.set_name("terok-standby")
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        waiting = select.poll()
        for fd in (self._main_pidfd, self.container.pidfd):
            waiting.register(fd, select.POLLIN)
        waiting.poll()
        if process.wait_gone(self.container.pidfd, 0):
            # the main one takes everything away; should it die over that, this one does
            if process.wait_gone(self._main_pidfd, 5.0):
                self._forget_services()
                self.take_down("ended")
            return False
        return True

    def _take_over(self) -> None:
        kernel.set_name("terok-superv")
        os.write(2, b"supervisor: was killed, its standby took over\n")
        os.close(self._main_pidfd)
        self.error = "the supervisor was killed and replaced by its standby"
        self._forget_services()
        if self._guard is not None:
            self._guard.check()  # what the kernel said meanwhile went to nobody

    def _forget_services(self) -> None:
        """The sidecars died with the main supervisor (PDEATHSIG); dnsmasq did not and is found by the record."""
        known = record.read(self.wiring.bundle.record)
        for service in self.services:
            row = known.service(service.name) if known else record.Row()
            service.adopt(row.process if service.survives else None)
            service.remember(row)

    # --- end ---------------------------------------------------------------------------------------------

    def take_down(self, phase: str) -> None:
        """Stop the services, remove the runtime directory, write the last record. Harmless when repeated."""
        self.phase = "ending" if phase == "ended" else phase
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
        self.write_record(ended=True)

    def write_record(self, *, ended: bool = False) -> None:
        """Write the record as it is now. A full disk must not end the container's services, so errors are logged."""
        try:
            _trim_log()
            record.write(self.wiring.bundle.record, self.describe(ended=ended))
        except OSError as error:
            os.write(2, f"supervisor: the record could not be written: {error.strerror}\n".encode())

    def describe(self, *, ended: bool = False) -> Record:
        """The record's content."""
        return Record(
            name=self.wiring.container,
            identity=self.container.identity,
            container=self.container.init,
            supervisor=None if ended else Process(os.getpid(), process.start_time(os.getpid())),
            standby=self._standby,
            phase=self.phase,
            started=self.started,
            error=self.error,
            sockets=tuple(
                listener.path if listener.kind == "unix" else f"{listener.kind}:127.0.0.1:{listener.port}"
                for sidecar in self.wiring.sidecars
                for listener in sidecar.listeners
                if listener.kind not in SOURCES
            ),
            services=tuple((service.name, service.describe()) for service in self.services),
        )


def _trim_log() -> None:
    # descriptor 2 is the log, opened for appending: what a restarting service prints may not fill the disk
    if os.fstat(2).st_size > LOG_MAX:
        os.ftruncate(2, 0)
