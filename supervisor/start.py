"""What the hook does for the supervisor: one lock, one fork, one line over a pipe."""

from __future__ import annotations

import os
import select

from . import record
from .ground import kernel, process
from .ground.errors import TerokError
from .ground.log import mark
from .ground.quick import signal
from .reap import reap, remove_runtime_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .container.container import Container
    from .schema import Wiring
    from .supervise import Supervisor

    Detach = Callable[[Callable[[], int], list[int]], int]

READY_DEADLINE = 10.0
"""Seconds until the hook gives up; below the `timeout` in the hook descriptor."""
LOCK_DEADLINE = 5
"""Whole seconds to wait for the supervisor of the container's previous run to finish taking down."""


def start(wiring: Wiring, container: Container, *, detach: Detach | None = None, running: bool = False) -> None:
    """Fork the container's supervisor and return when it has said `ready`.

    A supervisor that already serves this very container is left alone.

    Args:
        detach: makes the forked child a session of its own, and has a child of that one run the body; default: the
            forked child itself is the supervisor, whose parent, the hook, ends soon.
        running: the container runs already: only mounts that are missing or dead are made.

    Raises:
        TerokError: it could not be brought up; nothing of it is left then.
    """
    lock = _take_lock(wiring, container)
    if lock is None:
        return
    ready, tell = os.pipe2(os.O_CLOEXEC)
    log = os.open(wiring.bundle.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def body() -> int:
        return _run(wiring, container, tell, log, running=running)

    def child() -> int:
        os.close(ready)
        if detach is not None:
            return detach(body, [tell, log, lock, container.pidfd, container.net, container.mount])
        os.setsid()
        return body()

    try:
        leader = process.fork(child)
    except TerokError:
        remove_runtime_dir(wiring.runtime_dir)
        raise
    os.close(tell)
    if detach is not None:
        os.waitpid(leader, 0)
    answer = _wait(ready)
    if answer != "ready":
        if not answer:
            _clear_up(leader, wiring)
        raise TerokError(
            answer or f"The supervisor died or was not ready within {READY_DEADLINE:g} s; see {wiring.bundle.log}."
        )


def _clear_up(leader: int, wiring: Wiring) -> None:
    """A supervisor that fails takes everything down by itself; one that hangs or was killed does not."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass
    reap(wiring.bundle, wiring.runtime_dir, even_if_running=True)


def _wait(ready: int) -> str:
    waiting = select.poll()
    waiting.register(ready, select.POLLIN)
    if not waiting.poll(READY_DEADLINE * 1000):
        return ""
    try:
        return os.read(ready, 4096).decode(errors="replace").strip()  # one write(2), shorter than PIPE_BUF
    finally:
        os.close(ready)


def _run(wiring: Wiring, container: Container, tell: int, log: int, *, running: bool) -> int:
    mark("forked")
    kernel.set_name("terok-superv")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a hook that was killed reads no `ready`: that is a failure to undo
    os.chdir("/")
    _keep_only_log(log)
    supervisor: Supervisor | None = None
    begun: process.Launch | None = None
    try:
        from . import listeners
        from .container import mounts
        from .wall import firewall, resolver

        mark("listeners imported")
        listeners.make_runtime_dir(wiring.runtime_dir)
        # all three are at work while the rest is being imported; first what takes longest
        opened = listeners.Opened(wiring)
        if wiring.shield is not None:
            firewall.begin_closed(wiring.shield)
        inside = listeners.begin_inside(container, wiring)
        if wiring.shield is not None and wiring.shield.dnsmasq_conf is not None:
            begun = resolver.launch(wiring.shield, container, 2 if opened.dns_log < 0 else opened.dns_log)
        trust = None
        if wiring.trust:
            from .container.trust import Trust

            trust = Trust(wiring.bundle, wiring.runtime_dir)
        attaching = mounts.begin(container, wiring.mounts, running=running, trust=trust) if wiring.mounts else None
        mark("three children forked")
        from .supervise import Supervisor

        mark("supervise imported")
        supervisor = Supervisor(wiring, container)
        supervisor.bring_up(opened, begun, inside, attaching)
        os.write(tell, b"ready\n")
    except Exception as error:  # noqa: BLE001 - whatever failed, nothing may stay behind and the start is refused
        known = isinstance(error, TerokError)
        message = str(error) if known else f"The supervisor failed: {type(error).__name__}: {error}"
        if supervisor is not None:
            supervisor.error = message
            supervisor.take_down("failed")
        else:
            if begun is not None:
                os.kill(begun.pid, signal.SIGKILL)  # our child, not reaped yet
            remove_runtime_dir(wiring.runtime_dir)
        try:
            os.write(tell, message.encode(errors="replace")[:4000])
        except BrokenPipeError:
            pass  # the hook has gone
        return 1
    os.close(tell)
    return supervisor.live()


def _keep_only_log(log: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)


def _take_lock(wiring: Wiring, container: Container) -> int | None:
    """The bundle's lock, held by descriptor until the supervisor and its standby are gone; None: already served.

    Raises:
        TerokError: another container holds it, or the previous supervisor does not finish.
    """
    from fcntl import LOCK_EX, LOCK_NB, flock

    fd = os.open(wiring.bundle.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        flock(fd, LOCK_EX | LOCK_NB)
        return fd
    except BlockingIOError:
        pass
    served = record.read(wiring.bundle.record)
    if served is not None and served.phase == record.READY and served.container is not None:
        if served.container == container.init:
            os.close(fd)
            return None
        if served.alive():
            raise TerokError(
                f"The wiring of {wiring.container} is in use by another running container "
                f"(pid {served.container.pid}).",
                fix="prepare a name of its own for each container",
            )

    def give_up(*_: object) -> None:
        from .ground import paste

        raise TerokError(
            f"The previous supervisor of {wiring.container} still holds {wiring.bundle.lock}.",
            fix=paste.command("terok", "cleanup", wiring.container),
        )

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LOCK_DEADLINE)
    try:
        flock(fd, LOCK_EX)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return fd
