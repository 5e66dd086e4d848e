"""The container of an MCP server: made once, waiting; each session runs the server's command in it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from ...sidecars.kit.reactor import Reactor
from ...sidecars.mcp import limits
from ...sidecars.mcp.offer import Offer
from ...sidecars.mcp.servers import Server
from ...sidecars.mcp.session import PROTOCOLS, Session
from ...supervisor.ground import paste, process
from ...supervisor.ground.errors import Exit, TerokError
from ..host import podman
from ..kit.env import Env
from ..launch.prepare import prepare
from ..launch.request import Request
from ..launch.teardown import tear_down

PAUSE = "/run/terok-pause"


def create(request: Request, image: str, words: Sequence[str], env: Env) -> None:
    """Make and start the container; it is removed again when it does not start.

    Args:
        request: its wiring.
        image: any; it needs the server's program.
        words: further flags of podman.

    Raises:
        TerokError: the wiring is refused, or Podman is.
    """
    init = podman.init()
    if init is None:
        raise TerokError("catatonit is not installed.", fix="apt-get install catatonit   (dnf install catatonit)")
    prepared = prepare(request, env.config, env.environ)
    for note in prepared.notes:
        env.note(note)
    flags = [*prepared.flags, "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    flags += ["--volume", f"{init}:{PAUSE}:ro", "--entrypoint", f'["{PAUSE}","-P"]', *words]
    try:
        for command in (["create", *flags, image], ["start", "--", request.container]):
            done = podman.call(command, env.environ, timeout=600)
            if done.code:
                raise TerokError(f"Podman could not {command[0]} {request.container}: {done.error}")
    except BaseException:
        remove(request.container, env)
        raise


def remove(container: str, env: Env) -> None:
    """Remove the container and its wiring; harmless when there is none."""
    done = podman.call(["rm", "--force", "--time", "1", "--ignore", "--", container], env.environ, timeout=60)
    if done.code:
        raise TerokError(f"Podman could not remove {container}: {done.error}")
    tear_down(container, cfg=env.config, force=True)


def ask(server: Server, env: Env) -> Offer:
    """Start the server once, and return what it offers.

    Raises:
        TerokError: it does not start, or does not speak MCP.
    """
    started = podman.call(["start", "--", server.container], env.environ, timeout=60)
    if started.code:
        raise TerokError(f"The container {server.container} does not start: {started.error}")
    here, there = socket.socketpair()
    argv = [podman.find(env.environ), "exec", "--interactive", "--", server.container, *server.command]
    with there:
        # its standard error goes nowhere: it could command the operator's terminal
        fds = {0: there.fileno(), 1: there.fileno()}
        pid = process.spawn(argv, env=env.environ, fds=fds, die_with_parent=True)
    fd = process.pidfd(pid)
    here.setblocking(False)
    reactor = Reactor(strict=True)
    told: list[str | None] = []

    def ready(problem: str | None) -> None:
        told.append(problem)
        reactor.stop()

    session = Session(reactor, here, lambda: server, PROTOCOLS[0], ready, lambda: None)
    try:
        with env.slow(f"Waiting for {server.name}"):
            reactor.run()
    finally:
        session.close()
        if not process.wait_gone(fd, limits.END_SECONDS):
            os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(fd)
        reactor.close()
    if told[0] is not None:
        command = paste.command("podman", "exec", "-i", server.container, *server.command)
        raise TerokError(f"The server {server.name} cannot be used: {told[0]}", fix=command, code=Exit.FAILURE)
    return session.current
