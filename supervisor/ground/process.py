"""The only module that forks and executes. Children start clean: no inherited descriptors, signals or environment."""

from __future__ import annotations

import os
import select
import sys
import time

from . import kernel
from .errors import TerokError
from .pids import Process as Process
from .pids import open_same as open_same
from .pids import pidfd as pidfd
from .pids import start_time as start_time
from .pids import wait_gone as wait_gone
from .quick import reset_signals as reset_signals
from .quick import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn, TypedDict, Unpack

    class Options(TypedDict, total=False):
        """What `launch` takes beside the program."""

        env: Mapping[str, str] | None
        fds: Mapping[int, int] | None
        namespaces: Namespaces | None
        die_with_parent: bool
        new_session: bool
        cwd: str
        close: bool
        prepare: Callable[[], None] | None


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLEAN_ENV: dict[str, str] = {"PATH": PATH, "LANG": "C.UTF-8"}
_OUTPUT_MAX = 16 << 20


class Exhausted(TerokError):
    """There was no process, pipe, descriptor or memory left to start a program with; it may work later.

    fork(2) fails with EAGAIN at RLIMIT_NPROC, which counts all processes of the user, and with ENOMEM; pipe(2) and
    pidfd_open(2) with EMFILE, ENFILE and ENOMEM.
    """

    def __init__(self, what: str, error: OSError) -> None:
        super().__init__(f"Could not start {what}: {error.strerror or error}.")


class Namespaces:
    """Descriptors of namespaces that a child enters before it does anything else; None stays where it is.

    Order matters: the user namespace gives the capabilities that the others need (setns(2)).
    """

    def __init__(self, *, user: int | None = None, net: int | None = None, mount: int | None = None) -> None:
        self.user, self.net, self.mount = user, net, mount

    def enter(self) -> None:
        """Enter them with the calling, single-threaded process."""
        if self.user is not None:
            kernel.setns(self.user, kernel.CLONE_NEWUSER)
        if self.net is not None:
            kernel.setns(self.net, kernel.CLONE_NEWNET)
        if self.mount is not None:
            kernel.setns(self.mount, kernel.CLONE_NEWNS)


class Result:
    """How a finished program ended: `code` (negative: the signal), `out` and `err` as bytes."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def error(self) -> str:
        """The first line of stderr, for a message; or how it ended."""
        lines = self.err.decode(errors="replace").strip().splitlines()
        return lines[0] if lines else f"exit code {self.code}"


class Launch:
    """A child that is about to execute a program; `confirm` is to be called once.

    Attributes:
        pid: the child.
    """

    def __init__(self, name: str, pid: int, report: int) -> None:
        self.pid, self._name, self._report = pid, name, report

    def confirm(self) -> int:
        """Wait until the program is really running; returns its pid.

        Raises:
            TerokError: it does not exist or could not be executed; the child is reaped.
        """
        with open(self._report, "rb") as pipe:
            failure = pipe.read()
        if failure:
            os.waitpid(self.pid, 0)
            raise TerokError(f"Could not start {self._name}: {failure.decode(errors='replace')}")
        return self.pid


def spawn(argv: Sequence[str], **options: Unpack[Options]) -> int:
    """Start a program and return its pid; the caller reaps it. Arguments and errors as in `launch`."""
    return launch(argv, **options).confirm()


def launch(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    fds: Mapping[int, int] | None = None,
    namespaces: Namespaces | None = None,
    die_with_parent: bool = False,
    new_session: bool = False,
    cwd: str = "/",
    close: bool = True,
    prepare: Callable[[], None] | None = None,
) -> Launch:
    """Fork a child that is to execute a program, and go on without waiting until it does; the caller reaps it.

    Args:
        argv: the program's absolute path (or a name found on `PATH`) and its arguments. No secrets: argv is public.
        env: the whole environment; default `CLEAN_ENV`.
        fds: child descriptor -> ours. 0, 1 and 2 are /dev/null unless given; every other descriptor is closed.
        namespaces: entered before the exec.
        die_with_parent: SIGKILL when the calling process ends.
        new_session: setsid(2), so that a terminal's signals do not reach it.
        cwd: working directory.
        close: False keeps inherited descriptors open.
        prepare: called in the child right before the exec, to confine it; what it raises is reported to the caller.

    Raises:
        Exhausted: no resource was left to start it with; nothing was started.
        TerokError: the program does not exist or could not be executed (the child reports it over a pipe).
    """
    program = _find(argv[0])
    environment = dict(CLEAN_ENV if env is None else env)
    # The child's end is close-on-exec: a successful execve(2) closes it and the parent reads the end of the file; an
    # error arrives as its text. So `Launch.confirm` returns only when the program is really running.
    try:
        report, child_report = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise Exhausted(argv[0], error) from error
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(report)
        os.close(child_report)
        raise Exhausted(argv[0], error) from error
    if pid == 0:
        try:
            os.close(report)
            if die_with_parent:
                kernel.die_with_parent(parent, signal.SIGKILL)
            if new_session:
                os.setsid()
            child_report = _enter(fds or {}, child_report, namespaces, cwd, close=close)
            if prepare is not None:
                prepare()
            os.execve(program, list(argv), environment)
        except BaseException as error:  # noqa: BLE001 - the child must never return into the caller's code
            os.write(child_report, str(error).encode(errors="replace")[:512])
        finally:
            os._exit(127)
    os.close(child_report)
    return Launch(argv[0], pid, report)


def become(
    argv: Sequence[str],
    *,
    fds: Mapping[int, int],
    namespaces: Namespaces | None = None,
    prepare: Callable[[], None] | None = None,
    parent: int,
) -> NoReturn:
    """What `spawn` does in its child, in the calling process, which needs no new process, pipe or pidfd for it.

    The process ends with code 127 when the program cannot be executed, and with SIGKILL when `parent` does.
    """
    try:
        kernel.die_with_parent(parent, signal.SIGKILL)
        program = _find(argv[0])
        _enter(fds, 2, namespaces, "/", close=True)
        if prepare is not None:
            prepare()
        os.execve(program, list(argv), CLEAN_ENV)
    finally:
        os._exit(127)


def identify(pid: int) -> tuple[Process, int]:
    """A child's identity and a pidfd on it; a child that cannot be watched is killed and reaped.

    Raises:
        Exhausted: no descriptor was left for it.
    """
    fd = -1
    try:
        fd = pidfd(pid)
        return Process(pid, start_time(pid)), fd
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        os.kill(pid, signal.SIGKILL)  # our child, not reaped yet: the pid is still its own
        os.waitpid(pid, 0)
        raise Exhausted("a process that can be watched", error) from error


def _enter(fds: Mapping[int, int], report: int, namespaces: Namespaces | None, cwd: str, *, close: bool) -> int:
    """Make the calling process a clean one, with these descriptors and in these namespaces; where `report` went."""
    reset_signals()
    os.umask(0o077)
    if namespaces is not None:
        namespaces.enter()
    os.chdir(cwd)
    return _install_fds(fds, report, close=close)


def _find(program: str) -> str:
    if "/" in program:
        return program
    for directory in PATH.split(":"):
        candidate = os.path.join(directory, program)
        if os.access(candidate, os.X_OK):
            return candidate
    raise TerokError(f"The program {program} is not installed.", fix=f"install the package that has {program}")


def find(program: str) -> str | None:
    """Absolute path of `program` on a fixed PATH (a user's PATH is not trusted by a hook); None when missing."""
    try:
        return _find(program)
    except TerokError:
        return None


def _install_fds(fds: Mapping[int, int], report: int, *, close: bool) -> int:
    """Put each descriptor in its place and close the rest; returns where `report` went."""
    top = max([2, *fds]) + 1
    # first out of the way: a source may stand on a number that another one wants
    lifted = {target: _lift(source, top) for target, source in fds.items()}
    report_high = _lift(report, top)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for target in range(top):
        if target in lifted:
            os.dup2(lifted[target], target, inheritable=True)
        elif target <= 2:
            os.dup2(null, target, inheritable=True)
        elif close:
            try:
                os.close(target)
            except OSError:
                pass
    if close:
        os.closerange(top, report_high)
        os.closerange(report_high + 1, os.sysconf("SC_OPEN_MAX"))
    return report_high


def _lift(fd: int, lowest: int) -> int:
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    return fcntl(fd, F_DUPFD_CLOEXEC, lowest)


class Job:
    """A program that was started by `begin` and has not been waited for."""

    def __init__(self, name: str, pid: int, pipes: tuple[int, int, int], stdin: bytes, timeout: float) -> None:
        self._name, self._pid, self._pipes, self._stdin = name, pid, pipes, stdin
        self._timeout, self._deadline = timeout, time.monotonic() + timeout

    def finish(self) -> Result:
        """Feed it, read what it prints and reap it; to be called once.

        Raises:
            TerokError: it did not end in time or printed without end (it is dead then).
        """
        feed, out_read, err_read = self._pipes
        finished = False
        try:
            out, err = _communicate(feed, self._stdin, out_read, err_read, self._deadline, self._name, self._timeout)
            finished = True
        finally:
            if not finished:
                os.kill(self._pid, signal.SIGKILL)
            status = os.waitpid(self._pid, 0)[1]
        return Result(os.waitstatus_to_exitcode(status), out, err)


def begin(argv: Sequence[str], *, stdin: bytes = b"", timeout: float, **options: Unpack[Options]) -> Job:
    """Start a program whose output is wanted later, so that other work goes on meanwhile.

    Args:
        stdin: what it reads; never on the command line when it is secret.
        timeout: seconds from now until `Job.finish` kills it; it dies with the calling process in any case.
        options: as in `launch`.

    Raises:
        TerokError: it could not be started.
    """
    (in_read, in_write), (out_read, out_write), (err_read, err_write) = _pipes(argv[0], 3)
    try:
        options["fds"] = {**(options.get("fds") or {}), 0: in_read, 1: out_write, 2: err_write}
        options["die_with_parent"] = True
        pid = spawn(argv, **options)
    except BaseException:
        for fd in (in_write, out_read, err_read):
            os.close(fd)
        raise
    finally:
        for fd in (in_read, out_write, err_write):
            os.close(fd)
    return Job(argv[0], pid, (in_write, out_read, err_read), stdin, timeout)


def _pipes(program: str, count: int) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            pairs.append(os.pipe2(os.O_CLOEXEC))
    except OSError as error:
        for pair in pairs:
            os.close(pair[0])
            os.close(pair[1])
        raise Exhausted(program, error) from error
    return pairs


def run(argv: Sequence[str], *, stdin: bytes = b"", timeout: float, **options: Unpack[Options]) -> Result:
    """Run a program to its end and return what it printed; arguments and errors as in `begin` and `Job.finish`."""
    return begin(argv, stdin=stdin, timeout=timeout, **options).finish()


def _communicate(
    in_write: int, data: bytes, out_read: int, err_read: int, deadline: float, name: str, timeout: float
) -> tuple[bytes, bytes]:
    """Feed and drain the three pipes until both outputs are at their end; closes all three."""
    chunks: dict[int, list[bytes]] = {out_read: [], err_read: []}
    size = 0
    waiting = select.poll()
    # a program that does not read its input must not stop us from reading its output (both pipes full: deadlock)
    os.set_blocking(in_write, False)
    for fd, event in ((out_read, select.POLLIN), (err_read, select.POLLIN), (in_write, select.POLLOUT)):
        waiting.register(fd, event)
    left = {out_read, err_read, in_write}

    def close(fd: int) -> None:
        waiting.unregister(fd)
        os.close(fd)
        left.discard(fd)

    try:
        view = memoryview(data)
        while left:
            wait = deadline - time.monotonic()
            if wait <= 0:
                raise TerokError(f"{name} did not end within {timeout:g} s and was killed.")
            for fd, _ in waiting.poll(wait * 1000):
                if fd == in_write:
                    try:
                        view = view[os.write(fd, view[:65536]) :] if view else view
                    except BrokenPipeError:
                        view = view[:0]
                    if not view:
                        close(fd)
                    continue
                chunk = os.read(fd, 65536)
                size += len(chunk)
                if size > _OUTPUT_MAX:
                    raise TerokError(f"{name} printed more than {_OUTPUT_MAX >> 20} MiB and was killed.")
                if chunk:
                    chunks[fd].append(chunk)
                else:
                    close(fd)
    finally:
        for fd in list(left):
            close(fd)
    return b"".join(chunks[out_read]), b"".join(chunks[err_read])


def replace(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Become another program: same pid, terminal and descriptors 0 to 2, default signals (execve(2)).

    Raises:
        TerokError: it could not be executed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reset_signals()
    try:
        os.execve(_find(argv[0]), list(argv), dict(env))
    except OSError as error:
        raise TerokError(f"Could not start {argv[0]}: {error.strerror}.") from error


def fork(body: Callable[[], int]) -> int:
    """Fork; the child runs `body` and exits with what it returns (70 on an exception, printed to stderr).

    Raises:
        Exhausted: there is no process left.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = os.fork()
    except OSError as error:
        raise Exhausted("a helper", error) from error
    if pid == 0:
        code = 70
        try:
            code = body()
        except BaseException as error:  # noqa: BLE001 - the child must never return into the caller's code
            try:
                os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
            except OSError:
                pass
        finally:
            os._exit(code)
    return pid


def split() -> int:
    """Plain fork(2): 0 in the child, which goes on with everything that the caller has; its pid in the parent.

    Raises:
        Exhausted: there is no process left.
    """
    try:
        return os.fork()
    except OSError as error:
        raise Exhausted("a second process", error) from error
