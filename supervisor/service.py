"""One service process under the supervisor: a sidecar behind its sockets, or dnsmasq."""

from __future__ import annotations

import os
import sys
import time

from . import services
from .ground import layout, process
from .ground.errors import TerokError
from .ground.pids import signal_pidfd
from .ground.quick import signal
from .record import Process, Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .ground.loop import Loop
    from .ground.process import Namespaces
    from .schema import Sidecar


class Service:
    """Carries out what the table in `services` says for one process.

    Args:
        name: what `terok status` calls it.
        argv: how it is started.
        fds: listening descriptors, given to the child from 3 up.
        eager: started before the first connection, and again whenever it ends.
        survives: True when it goes on while a killed supervisor is replaced (it is found again by its record).
        namespaces: entered before the exec.
        prepare: called in the child right before the exec.
        stderr: its standard output and error; -1: the supervisor's log.
        changed: called after every change of state.
    """

    def __init__(
        self,
        name: str,
        argv: list[str],
        fds: list[int],
        *,
        eager: bool,
        survives: bool = False,
        namespaces: Namespaces | None = None,
        prepare: Callable[[], None] | None = None,
        stderr: int = -1,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.argv, self.fds, self.eager = name, argv, fds, eager
        self.survives, self.namespaces, self.changed = survives, namespaces, changed
        self._prepare = prepare
        self.stderr = 2 if stderr < 0 else stderr
        self.state = services.WAITING
        self.since = time.time()
        self.pid = self.start_time = 0
        self.pidfd = -1
        self.restarts = self._failures = 0
        self.last_exit: str | None = None
        self._loop: Loop | None = None
        self._began = 0.0

    def __repr__(self) -> str:
        return f"Service({self.name}, {self.state}, pid={self.pid}, restarts={self.restarts})"

    @classmethod
    def of_sidecar(cls, sidecar: Sidecar, wiring_path: str, fds: list[int], changed: Callable[[], None]) -> Service:
        """The service that runs `sidecars/<name>` behind the given listening descriptors."""
        boot = layout.program("sidecars", "boot.py")
        argv = [sys.executable, "-I", "-S", boot, sidecar.name, wiring_path]
        return cls(sidecar.name, argv, fds, eager=sidecar.start == "eager", changed=changed)

    def attach(self, loop: Loop) -> None:
        """Begin: in a new loop, from a waiting state or around a process that is already there."""
        self._loop = loop
        if self.state == services.RUNNING:
            loop.watch(self.pidfd, self._on_end)
        else:
            self._do(services.WATCH)

    def forget_process(self) -> None:
        """After a change of supervisor: this service's process has ended with the old one."""
        self.state, self.pid, self.start_time, self.pidfd = services.WAITING, 0, 0, -1
        self.since = time.time()

    def adopt(self, found: Process | None) -> None:
        """After a change of supervisor: take over the process if it still runs."""
        self.forget_process()
        fd = found.open() if found else None
        if found is not None and fd is not None:
            self.state, self.pid, self.start_time, self.pidfd = services.RUNNING, found.pid, found.start_time, fd

    def remember(self, row: Row) -> None:
        """After a change of supervisor: go on counting from what the last record says (see `describe`)."""
        self.restarts, self.last_exit = row.restarts, row.last_exit

    def start(self) -> None:
        """Start the process now, outside of any loop; raises TerokError."""
        self._spawn()
        self.state = services.RUNNING

    def stop(self) -> None:
        """No more restarts; ask the process to end."""
        self._event(services.STOP)

    def kill(self) -> None:
        """End the process at once."""
        if self.pidfd >= 0:
            signal_pidfd(self.pidfd, signal.SIGKILL)

    def restart(self) -> None:
        """End the process so that it is started again at once, as after a change of its configuration."""
        self._failures = 0
        self.kill()

    def describe(self) -> Row:
        """Its part of the supervisor's record."""
        running = Process(self.pid, self.start_time) if self.pid else None
        return Row(running, self.state, self.since, self.restarts, self.last_exit)

    def _event(self, event: str) -> None:
        self.state, action = services.step(self.state, event)
        self.since = time.time()
        self._do(action)
        self.changed()

    def _do(self, action: str) -> None:
        assert self._loop is not None
        if action == services.START:
            self._unwatch()
            try:
                self._spawn()
            except TerokError as error:
                self._began = time.monotonic()
                self._died(error.what)
            else:
                self._loop.watch(self.pidfd, self._on_end)
        elif action == services.WATCH:
            if self.eager:
                self._event(services.CONNECTION)
            else:
                for fd in self.fds:
                    self._loop.watch(fd, self._on_connection)
        elif action == services.SCHEDULE:
            if time.monotonic() - self._began > services.HEALTHY_SECONDS:
                self._failures = 0
            self._failures += 1
            self.restarts += 1
            self._loop.after(services.delay(self._failures), self._on_timer)
        elif action == services.KILL:
            signal_pidfd(self.pidfd, signal.SIGTERM)
        elif action == services.NOTHING:
            self._unwatch()

    def _spawn(self) -> None:
        self._began = time.monotonic()
        fds = {3 + index: fd for index, fd in enumerate(self.fds)}
        self.pid = process.spawn(
            self.argv,
            fds={1: self.stderr, 2: self.stderr, **fds},
            namespaces=self.namespaces,
            prepare=self._prepare,
            die_with_parent=not self.survives,
        )
        self.pidfd = process.pidfd(self.pid)
        self.start_time = process.start_time(self.pid)

    def _on_connection(self) -> None:
        if self.state == services.WAITING:
            self._event(services.CONNECTION)

    def _on_timer(self) -> None:
        if self.state in (services.BACKOFF, services.STOPPED):
            self._event(services.TIMER)

    def _on_end(self) -> None:
        assert self._loop is not None
        self._loop.forget(self.pidfd)
        os.close(self.pidfd)
        try:
            code: int | None = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            code = None  # adopted from a supervisor that was killed: its status goes to another parent
        self.pid, self.start_time, self.pidfd = 0, 0, -1
        if code == 0 and not self.eager:
            self._event(services.LEFT)
        else:
            self._died(_describe_end(code))

    def _died(self, why: str) -> None:
        if self.state != services.STOPPED:
            self.last_exit = why
            os.write(2, f"{self.name}: {why}\n".encode(errors="replace"))
        self._event(services.DIED)

    def _unwatch(self) -> None:
        assert self._loop is not None
        for fd in self.fds:
            self._loop.forget(fd)


def _describe_end(code: int | None) -> str:
    if code is None:
        return "ended"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
