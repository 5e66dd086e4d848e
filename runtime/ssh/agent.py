"""`terok ssh agent`: the signer's own process, for the operator's shell instead of a container."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING

from ...sidecars.ssh.settings import settings_for
from ...supervisor import schema
from ...supervisor.ground import paste, process, sockets
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name, program
from .shelf import Shelf

if TYPE_CHECKING:
    from ..kit.env import Env

STOP_SECONDS = 2.0


def serve(env: Env, scope: str, command: list[str], cwd: str) -> int:
    """Serve `scope`'s keys until the command ends, or until a signal when there is none.

    It is the same program as in a container's supervisor, confined in the same way, with the same policy and an
    audit log of its own.

    Args:
        env: where things are.
        scope: whose keys.
        command: what to run with SSH_AUTH_SOCK set; empty: print the variable and serve.
        cwd: the command's working directory.

    Returns:
        The command's exit code, or 0.

    Raises:
        TerokError: there is no vault, or the socket's path is too long.
    """
    layout = env.layout
    with Shelf(env) as shelf:
        if not shelf.of_scope(check_name(scope)):
            env.note(f"The scope {scope} has no SSH key yet: terok ssh generate --scope {paste.quoted(scope)}")
    bundle, directory = layout.agent(scope), layout.agent_runtime(scope)
    for path in (bundle.root, directory):
        os.makedirs(path, mode=0o700, exist_ok=True)
    path = layout.agent_socket(scope, os.getpid())
    wiring = {
        "schema": schema.VERSION,
        "container": scope,
        "scope": scope,
        "bundle": bundle.root,
        "runtime_dir": directory,
        "sidecars": [
            {
                "name": "ssh",
                "start": "eager",
                "idle_seconds": 0,
                "listeners": [{"kind": "unix", "path": path}],
                "settings": settings_for(layout),
            }
        ],
        "mounts": [],
        "shield": None,
    }
    listener = sockets.listen_unix(path, 0o600)
    try:
        return _serve(env, wiring, bundle.sidecar, listener, path, command, cwd)
    finally:
        os.close(listener)
        os.unlink(path)


def _serve(
    env: Env, wiring: dict[str, object], sidecar: str, listener: int, path: str, command: list[str], cwd: str
) -> int:
    """Start the signer, then the command; whatever ends, the other one ends too."""
    temporary = f"{sidecar}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(wiring, file)
    boot = program("sidecars", "boot.py")
    # in a session of its own: the terminal's interrupt is for the command
    signer = process.spawn(
        [sys.executable, "-I", "-S", boot, "ssh", temporary],
        fds={2: 2, 3: listener},
        die_with_parent=True,
        new_session=True,
    )
    try:
        if not command:
            variable = f"SSH_AUTH_SOCK={shlex.quote(path)}; export SSH_AUTH_SOCK;"
            env.out.emit({"SSH_AUTH_SOCK": path, "pid": os.getpid()}, variable)
            sys.stdout.flush()
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            _wait(signer)
            raise TerokError("The signer exited unexpectedly; see its message above.")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        variables = {**env.environ, "SSH_AUTH_SOCK": path}
        child = process.spawn(command, env=variables, fds={0: 0, 1: 1, 2: 2}, cwd=cwd)
        return _wait(child)
    except KeyboardInterrupt:
        return Exit.OK
    finally:
        _stop(signer)
        os.unlink(temporary)


def _wait(pid: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _stop(pid: int) -> None:
    try:
        fd = process.pidfd(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        if not process.wait_gone(fd, STOP_SECONDS):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    finally:
        os.close(fd)
