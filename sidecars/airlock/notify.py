"""Runs `notify.command` for each question to the operator: `python -I -S notify.py`, its order on standard input.

The relay starts it before it confines itself, since afterwards it can execute nothing, and writes lines of JSON to its
standard input: the command first, then one line a question. The command is the operator's and fixed at the launch.
What comes from the container is a checked host name, and reaches the command as JSON on its standard input and as
environment variables, never as an argument. One command at a time, at most one in `PAUSE` seconds, each for at most
`SECONDS`; what is over meanwhile is not announced late. It ends, with its command, when the relay does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAUSE = 2.0
SECONDS = 10.0
LINE_MAX = 8 << 10
"""Bytes of a line; the relay writes less than PIPE_BUF at once, so that a line arrives whole or not at all."""
PASSED_ON = ("HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "LANG")
"""Variables of the launch that the command gets."""


class Notifier:
    """The relay's end.

    Args:
        command: `notify.command`: program and arguments.
        environment: the variables in `PASSED_ON`, as they were at the launch.
        container: its name.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], container: str) -> None:
        from ...supervisor.ground import process

        self._container = container
        reader, self._fd = os.pipe2(os.O_CLOEXEC)
        try:
            process.spawn([sys.executable, "-I", "-S", os.path.abspath(__file__)], fds={0: reader}, new_session=True)
        finally:
            os.close(reader)
        os.set_blocking(self._fd, False)
        self._send({"command": list(command), "environment": dict(environment)})

    def announce(self, number: str, name: str, port: int, expires: float) -> None:
        """Tell the operator about a question; without effect when the process is gone or too far behind."""
        self._send({"container": self._container, "id": number, "name": name, "port": port, "expires": expires})

    def _send(self, document: Mapping[str, object]) -> None:
        try:
            os.write(self._fd, json.dumps(document).encode() + b"\n")
        except (BlockingIOError, BrokenPipeError):
            pass


def main() -> int:
    """Announce until the relay ends; returns the exit code."""
    package = types.ModuleType("terok_host")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
    sys.modules["terok_host"] = package
    lines = sys.stdin.buffer
    order = json.loads(lines.readline(LINE_MAX))
    while line := lines.readline(LINE_MAX):
        question = json.loads(line)
        if float(question["expires"]) <= time.time():
            continue
        if not announce(order["command"], order["environment"], question):
            return 0
    return 0


def announce(command: Sequence[str], environment: Mapping[str, str], question: Mapping[str, object]) -> bool:
    """Run the command for a question, then pause; False when the relay has ended meanwhile."""
    from terok_host.supervisor.ground import process
    from terok_host.supervisor.ground.errors import TerokError

    env = {**process.CLEAN_ENV, **environment}
    env.update({f"TEROK_{key.upper()}": str(value) for key, value in question.items()})
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writer, json.dumps(question).encode() + b"\n")  # less than the pipe holds
        os.close(writer)
        pid = process.spawn(command, env=env, fds={0: reader}, new_session=True)
    except TerokError:
        return _relay_lives(PAUSE)  # the program has gone since the launch
    finally:
        os.close(reader)
    began = time.monotonic()
    alive = _wait(pid)
    return alive and _relay_lives(max(0.0, PAUSE - (time.monotonic() - began)))


def _wait(pid: int) -> bool:
    """Wait for the command, but not too long, and not longer than the relay lives; returns whether that lives."""
    fd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(0, 0)  # its hang-up is always reported
    ready = dict(poll.poll(SECONDS * 1000))
    if fd not in ready:
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(fd)
    return 0 not in ready


def _relay_lives(seconds: float) -> bool:
    """Wait; returns at once, and False, when the relay ends."""
    poll = select.poll()
    poll.register(0, 0)
    return not poll.poll(seconds * 1000)


if __name__ == "__main__":
    sys.exit(main())
