"""The signer's real process without a container: the sockets and the sidecar JSON that a supervisor would give it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from terok_host.supervisor.ground import process, sockets

ROOT = Path(__file__).parents[2]
CONTAINER = "probe"


class Operator:
    """An operator's directories with a vault of their own, and `terok` in them.

    Args:
        base: an empty directory.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.data, self.runtime, self.config = base / "data", base / "run", base / "config"
        (self.config / "terok").mkdir(parents=True)
        (self.config / "terok/config.yml").write_text(f"paths: {{data: {self.data}, runtime: {self.runtime}}}\n")
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(base),
            "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": str(self.config),
        }

    @property
    def program(self) -> str:
        """The program under test."""
        return str(Path(sys.executable).parent / "terok")

    def terok(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """Run `terok` and return its standard output; its exit code must be `code`."""
        done = subprocess.run(
            [self.program, *words],
            input=stdin,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def json(self, *words: str) -> Any:
        """Run `terok ... --json` and return what it printed."""
        return json.loads(self.terok(*words, "--json"))


class Signer:
    """A running signer for one scope, from entering the context until leaving it.

    Args:
        operator: whose vault it serves.
        scope: the container's scope.
        idle_seconds: as in the sidecar JSON.
        policy: the settings' defaults for every key.

    Attributes:
        path: its socket.
        pid: of the process; 0 when it has ended.
    """

    def __init__(
        self, operator: Operator, scope: str, *, idle_seconds: int = 0, policy: dict[str, Any] | None = None
    ) -> None:
        self.operator = operator
        self._short = tempfile.TemporaryDirectory(prefix="tk", dir="/tmp")
        runtime = Path(self._short.name) / CONTAINER
        self.bundle = operator.data / "containers" / CONTAINER
        for directory in (runtime, self.bundle):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = str(runtime / "ssh-agent.sock")
        settings = {
            "store": str(operator.data / "vault/vault.db"),
            "key_files": [str(operator.runtime / ".vault/key"), str(operator.data / "vault/key")],
            "policy": policy or {},
        }
        sidecar = {
            "name": "ssh",
            "start": "demand",
            "idle_seconds": idle_seconds,
            "listeners": [{"kind": "unix", "path": self.path}],
            "settings": settings,
        }
        self._wiring = {
            "schema": 1,
            "container": CONTAINER,
            "scope": scope,
            "bundle": str(self.bundle),
            "runtime_dir": str(runtime),
            "sidecars": [sidecar],
            "mounts": [],
            "shield": None,
        }
        self.pid = 0
        self._listener = -1

    def __enter__(self) -> Signer:
        (self.bundle / "audit.jsonl").unlink(missing_ok=True)
        (self.bundle / "sidecar.json").write_text(json.dumps(self._wiring))
        self._listener = sockets.listen_unix(self.path)
        self.start()
        return self

    def start(self) -> None:
        """Start the process on the listening socket, as the supervisor does; it may have ended before."""
        argv = [sys.executable, "-I", "-S", str(ROOT / "sidecars/boot.py"), "ssh", str(self.bundle / "sidecar.json")]
        with (self.bundle / "supervisor.log").open("ab") as log:
            fds = {1: log.fileno(), 2: log.fileno(), 3: self._listener}
            self.pid = process.spawn(argv, env=self.operator.env, fds=fds, die_with_parent=True)

    def wait(self, timeout: float) -> int | None:
        """The exit code of the process; None when it still runs after `timeout` seconds."""
        pidfd = process.pidfd(self.pid)
        try:
            if not process.wait_gone(pidfd, timeout):
                return None
        finally:
            os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code

    def connect(self, timeout: float = 20) -> socket.socket:
        """A connection to the agent; every wait on it is bounded."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(timeout)
        client.connect(self.path)
        return client

    @property
    def env(self) -> dict[str, str]:
        """The environment in which ssh programs find the agent, and no other key or configuration."""
        return {**self.operator.env, "SSH_AUTH_SOCK": self.path, "SSH_ASKPASS_REQUIRE": "never"}

    def audit(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of the container's audit log, oldest first."""
        lines = [json.loads(line) for line in (self.bundle / "audit.jsonl").read_text().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    def log(self) -> str:
        """What the process printed."""
        return (self.bundle / "supervisor.log").read_text()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            if self.wait(5) is None:
                os.kill(self.pid, signal.SIGKILL)
                self.wait(5)
        os.close(self._listener)
        self._short.cleanup()
        if kind is None:
            assert self.log() == ""
