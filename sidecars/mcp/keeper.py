"""The keeper: the half of the MCP sidecar that may run Podman. It reads no byte of an agent's or of a server's.

It gets the name of a server and one end of a stream. The server's container and command are read from the operator's
file; the command runs in there with that stream as its standard input and output. So an agent that takes over the other
half can start the servers of its scope, and nothing else.
"""

from __future__ import annotations

import os
import select
import signal

from ...supervisor.ground import kernel, paste, process, sockets
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import outer_uid
from ..kit.halves import keeper
from . import limits, servers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..kit.audit import Audit
    from .servers import Server

PODMAN_SECONDS = 60.0


class Keeper(keeper.Keeper):
    """Starts servers until the front ends.

    Args:
        directory: the scope's servers.
        podman: the program's absolute path.
        environment: what Podman needs of the operator's, as at the launch.
        audit: the container's audit log.
        link: our end of the channel.
        front: the front's pid.
    """

    def __init__(
        self, directory: str, podman: str, environment: Mapping[str, str], audit: Audit, link: int, front: int
    ) -> None:
        super().__init__(link, front)
        self._directory, self._podman, self._audit = directory, podman, audit
        self._environment = podmans_environment(environment)

    def _asked(self, _events: int) -> None:
        data, fds = sockets.receive_fds(self._link)
        # a stream that is closed here tells the front that the server does not start
        if len(fds) == 1 and len(self._jobs) < 2 * limits.SESSIONS_MAX:
            parent = os.getpid()
            self._begin(lambda: self._job(fds[0], data, parent))
        for fd in fds:
            os.close(fd)

    def end(self) -> None:
        """Kill the front and what runs, and collect them."""
        for pid in (self._front, *self._jobs.values()):
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._front, self._jobs = 0, {}

    # -- in a child --

    def _job(self, stream: int, data: bytes, parent: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        kernel.die_with_parent(parent, signal.SIGKILL)
        os.close(self._link)
        name = data.decode("ascii", "replace")
        try:
            server = servers.load(self._directory, name)
            if server is None:
                return 0
            self._serve(server, stream)
        except TerokError as error:
            self._audit.write("failure", server=name[:40], reason=error.what, allow=error.fix)
        return 0

    def _serve(self, server: Server, stream: int) -> None:
        """Run the server's command until it ends, or its stream does."""
        started = process.run(
            [self._podman, "start", "--", server.container], timeout=PODMAN_SECONDS, env=self._environment
        )
        if started.code:
            raise TerokError(
                f"The container {server.container} of the server {server.name} does not start: {started.error}",
                fix=paste.command("podman", "start", server.container),
            )
        argv = [self._podman, "exec", "--interactive", "--", server.container, *server.command]
        pid = process.spawn(argv, env=self._environment, fds={0: stream, 1: stream}, die_with_parent=True)
        fd = process.pidfd(pid)
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        waiting.register(stream, select.POLLRDHUP)
        if fd not in dict(waiting.poll()):
            waiting.unregister(stream)
            if not waiting.poll(limits.END_SECONDS * 1000):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def podmans_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which Podman runs here.

    Hooks, and what they start, are in the user namespace that rootless Podman has made already: two variables say so,
    as Podman's own second half has them.
    """
    inside = {}
    if outer_uid() != os.geteuid():
        inside = {
            "_CONTAINERS_USERNS_CONFIGURED": "done",
            "_CONTAINERS_ROOTLESS_UID": str(outer_uid()),
            "_CONTAINERS_ROOTLESS_GID": str(outer_uid("/proc/self/gid_map")),
        }
    return {**process.CLEAN_ENV, **environment, **inside}
