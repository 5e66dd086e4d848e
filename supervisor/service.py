"""One service process under the supervisor: a sidecar behind its sockets, or dnsmasq."""

from __future__ import annotations

import os
import sys
import time

from . import apology, services
from .ground import layout, log, process, sockets
from .ground.errors import TerokError
from .ground.pids import signal_pidfd
from .ground.quick import signal
from .record import Process, Row
from .schema import SIDECARS, SOURCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from .ground.loop import Loop
    from .ground.process import Namespaces
    from .schema import Sidecar, Wiring

    Lend = Callable[["Service"], tuple[Process, int] | None]

ANSWERS_MAX, ANSWER_SECONDS = 64, 1.0
"""How many clients of a failed service may be held, so that they can read why, and for how long."""


class Service:
    """Carries out what the table in `services` says for one process.

    Args:
        name: what `terok status` calls it.
        argv: how it is started.
        fds: listening descriptors, given to the child from 3 up.
        eager: started before the first connection, and again whenever it ends.
        survives: True when it goes on while a killed supervisor is replaced (it is found again by its network).
        namespaces: entered before the exec.
        prepare: called in the child right before the exec.
        make_room: called before a process is forked, to end what the last one left behind.
        stderr: its standard output and error; -1: the supervisor's log.
        log_path: where that log is read again, for the reason of an end.
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
        make_room: Callable[[], None] = lambda: None,
        stderr: int = -1,
        log_path: str = "",
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.argv, self.fds, self.eager = name, argv, fds, eager
        self.survives, self.namespaces, self.changed = survives, namespaces, changed
        self.apology: Callable[[str], bytes | None] = lambda _why: None
        self.lend: Lend = lambda _service: None
        self._prepare, self._make_room, self._log_path = prepare, make_room, log_path
        self.stderr = 2 if stderr < 0 else stderr
        self.state = services.WAITING
        self.since = time.time()
        self.pid = self.start_time = 0
        self.pidfd = -1
        self.restarts = self._failures = 0
        self._ends = self._kills = self._breaks = 0
        self._retry_at = 0.0
        self._held: list[int] = []
        self.last_exit: str | None = None
        self._gave_up = False
        self._why = self._ended_for = ""
        self._loop: Loop | None = None
        self._began = 0.0
        self._logged = 0

    def __repr__(self) -> str:
        return f"Service({self.name}, {self.state}, pid={self.pid}, restarts={self.restarts})"

    @classmethod
    def of_sidecar(
        cls,
        sidecar: Sidecar,
        wiring: Wiring,
        fds: list[int],
        changed: Callable[[], None],
        *,
        namespaces: Namespaces | None = None,
    ) -> Service:
        """The service that runs `sidecars/<name>` behind the given listening descriptors."""
        boot = layout.program("sidecars", "boot.py")
        argv = [sys.executable, "-I", "-S", boot, sidecar.name, wiring.bundle.sidecar]
        eager = sidecar.start == "eager"
        made = cls(
            sidecar.name, argv, fds, eager=eager, namespaces=namespaces, log_path=wiring.bundle.log, changed=changed
        )
        if all(listener.kind not in SOURCES for listener in sidecar.listeners):
            made.apology = lambda why: apology.answer(sidecar.name, wiring.container, why)
        return made

    def attach(self, loop: Loop) -> None:
        """Begin: in a new loop, from a waiting state or around a process that is already there."""
        self._loop = loop
        self._let_go(self._held)
        if self.state == services.RUNNING:
            loop.watch(self.pidfd, self._on_end)
        elif self.state != services.STOPPED:
            self.state = services.WAITING
            self._do(services.WATCH)

    def forget_process(self) -> None:
        """After a change of supervisor: this service's process has ended with the old one."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.state, self.pid, self.start_time, self.pidfd = services.WAITING, 0, 0, -1
        self.since = time.time()

    def adopt(self, process: Process | None) -> None:
        """After a change of supervisor: take over the process if it still runs."""
        self.forget_process()
        fd = process.open() if process else None
        if process is not None and fd is not None:
            self.state, self.pid, self.start_time, self.pidfd = services.RUNNING, process.pid, process.start_time, fd

    def remember(self, row: Row) -> None:
        """After a change of supervisor: go on counting from what the last record says (see `describe`)."""
        self.restarts, self.last_exit, self._gave_up = row.restarts, row.last_exit, row.gave_up

    def take(self, pid: int) -> None:
        """Take over a child that was forked to become its process; raises TerokError when it cannot be watched."""
        self._began, self._logged = time.monotonic(), log.size()
        running, self.pidfd = process.identify(pid)
        self.pid, self.start_time, self.state = running.pid, running.start_time, services.RUNNING

    def become(self, parent: int) -> NoReturn:
        """Replace the calling process, a child of `parent`, by this service's program."""
        process.become(
            self.argv, fds=self._child_fds(), namespaces=self.namespaces, prepare=self._prepare, parent=parent
        )

    def stop(self) -> None:
        """No more restarts; ask the process to end."""
        self._event(services.STOP)

    def kill(self) -> None:
        """End the process at once."""
        if self.pidfd >= 0:
            signal_pidfd(self.pidfd, signal.SIGKILL)

    def restart(self, why: str = "") -> None:
        """End the process so that it is started again at once, as after a change of its configuration.

        Args:
            why: what was wrong with it, for the record; "": nothing.
        """
        self._failures, self._ended_for = 0, why
        self.kill()
        self._on_rest()

    def describe(self) -> Row:
        """Its part of the supervisor's record."""
        running = Process(self.pid, self.start_time) if self.pid else None
        return Row(running, self.state, self.since, self.restarts, self.last_exit, self._gave_up)

    def _event(self, event: str) -> None:
        self.state, action = services.step(self.state, event)
        if action != services.ANSWER:
            self.since = time.time()
        self._do(action)
        if action != services.ANSWER:
            self.changed()

    def _do(self, action: str) -> None:
        assert self._loop is not None
        if action == services.START:
            self._unwatch()
            try:
                self._spawn()
            except TerokError as error:
                self._began = time.monotonic()
                self._died("could not be started", error.what, killed=False)
            else:
                self._loop.watch(self.pidfd, self._on_end)
        elif action == services.WATCH:
            if self.eager:
                self._event(services.CONNECTION)
            else:
                self._watch()
        elif action == services.SCHEDULE:
            self.restarts += 1
            self._loop.after(services.delay(self._failures), self._on_timer)
        elif action == services.REST:
            self._rest()
        elif action == services.ANSWER:
            self._answer()
        elif action == services.KILL:
            signal_pidfd(self.pidfd, signal.SIGTERM)
        elif action == services.NOTHING:
            self._unwatch()

    def _spawn(self) -> None:
        self._began, self._logged = time.monotonic(), log.size()
        self._make_room()
        try:
            pid = process.spawn(
                self.argv,
                fds=self._child_fds(),
                namespaces=self.namespaces,
                prepare=self._prepare,
                die_with_parent=not self.survives,
            )
            # a descriptor and the start time need resources too: without them the child would never be watched
            running, self.pidfd = process.identify(pid)
        except process.Exhausted:
            lent = None if self.survives else self.lend(self)
            if lent is None:
                raise
            running, self.pidfd = lent
        self.pid, self.start_time = running.pid, running.start_time

    def _child_fds(self) -> dict[int, int]:
        return {1: self.stderr, 2: self.stderr, **{3 + index: fd for index, fd in enumerate(self.fds)}}

    # --- a service that cannot start -----------------------------------------------------------------------

    def _rest(self) -> None:
        """Until it is tried again, clients are answered; a service without clients is tried by the clock."""
        assert self._loop is not None
        self.restarts += 1
        self._breaks += 1
        self._ends = self._kills = services.ENDS_MAX - 1  # one more death, and it rests again
        pause = services.rest(self._breaks)
        self._retry_at = time.monotonic() + pause
        if self.eager or self.apology("") is None:
            self._loop.after(pause, self._on_rest)
        if self.apology("") is not None:
            self._watch()

    def _answer(self) -> None:
        """Tell the clients that wait why, and hold them long enough to read it."""
        assert self._loop is not None
        said = self.apology(self._why) or b""
        fresh: list[int] = []
        for listener in self.fds:
            while (client := sockets.accept(listener)) is not None:
                sockets.send_last(client, said)
                if len(self._held) < ANSWERS_MAX:
                    self._held.append(client)
                    fresh.append(client)
                else:
                    os.close(client)
        if fresh:
            self._loop.after(ANSWER_SECONDS, lambda: self._let_go(fresh))
        else:  # for want of descriptors, most likely: the listener stays readable, and would keep the loop busy
            self._unwatch()
            self._loop.after(ANSWER_SECONDS, self._watch_again)

    def _watch_again(self) -> None:
        if self.state == services.FAILED:
            self._unwatch()
            self._watch()

    def _let_go(self, clients: list[int]) -> None:
        for client in [fd for fd in clients if fd in self._held]:
            self._held.remove(client)
            os.close(client)

    # --- news ----------------------------------------------------------------------------------------------

    def _on_connection(self) -> None:
        if self.state == services.FAILED:
            self._event(services.TIMER if time.monotonic() >= self._retry_at else services.CONNECTION)
        elif self.state == services.WAITING:
            self._event(services.CONNECTION)

    def _on_timer(self) -> None:
        if self.state in (services.BACKOFF, services.STOPPED):
            self._event(services.TIMER)

    def _on_rest(self) -> None:
        if self.state == services.FAILED:
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
        # a service that cannot serve says so to its clients and ends; one that ended well, or runs on, was all right
        self._gave_up = code is not None and code > 0
        if code == 0 and not self.eager:
            self._ends = self._kills = self._breaks = 0
            self._event(services.LEFT)
        else:
            killed = code in (None, -signal.SIGKILL)
            why, self._ended_for = self._ended_for or _describe_end(code), ""
            self._died(why, log.last_line(self._log_path, self._logged, self._others()), killed=killed)

    def _others(self) -> tuple[str, ...]:
        return tuple(f"{name}: " for name in (*SIDECARS, "supervisor") if name != self.name)

    def _died(self, why: str, said: str, *, killed: bool) -> None:
        if self.state != services.STOPPED:
            self._why, self.last_exit = why, f"{why}: {said}" if said else why
            log.say(f"{self.name}: {why}")
        if time.monotonic() - self._began > services.HEALTHY_SECONDS:
            self._failures = self._ends = self._kills = self._breaks = 0
        self._failures += 1
        self._kills += killed
        self._ends += not killed
        self._event(services.BROKE if services.broken(self._ends, self._kills) else services.DIED)

    def _watch(self) -> None:
        assert self._loop is not None
        for fd in self.fds:
            self._loop.watch(fd, self._on_connection)

    def _unwatch(self) -> None:
        assert self._loop is not None
        for fd in self.fds:
            self._loop.forget(fd)


def _describe_end(code: int | None) -> str:
    if code is None:
        return "ended"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
