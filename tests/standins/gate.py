"""A gate without a container: its process on sockets of the test's own, and plain git as the client.

`Rig` makes an operator's directories, a store with a token, a mirror, and runs `boot.py gate` as the supervisor would.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from terok_host.sidecars.gate import config, mirror
from terok_host.sidecars.gate.site import Site
from terok_host.sidecars.kit.proxy.egress import NO_PROXY
from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground.layout import Layout, package_root

TOKEN = "terok-0123456789abcdef0123456789abcdef01234567"
GIT_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.test",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.test",
}


def git(*arguments: str | Path, cwd: Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run git as anybody would; fails the test with what git said unless `check` is False."""
    done = subprocess.run(
        ["git", *map(str, arguments)],
        cwd=cwd,
        env=GIT_ENV | {"HOME": str(cwd)} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}")
    return done


def commit(work: Path, name: str, content: str | bytes = "x\n", message: str = "") -> str:
    """Commit one file; returns the commit's name."""
    path = work / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git("add", "--", name, cwd=work)
    git("commit", "-q", "-m", message or f"add {name}", cwd=work)
    return git("rev-parse", "HEAD", cwd=work).stdout.strip()


def make_upstream(path: Path) -> Path:
    """A bare repository with three commits on main, a branch and a tag."""
    work = path.parent / f"{path.name}.work"
    git("init", "-q", "-b", "main", work, cwd=path.parent)
    for number in range(3):
        commit(work, f"file{number}", f"content {number}\n")
    git("tag", "-a", "-m", "one", "v1", cwd=work)
    git("branch", "stable", "HEAD~1", cwd=work)
    git("clone", "-q", "--bare", work, path, cwd=path.parent)
    return path


class Rig:
    """One scope's gate and one container's process of it.

    Args:
        base: an empty directory of the test's own.
        scope, container: their names.
    """

    def __init__(self, base: Path, *, scope: str = "proj", container: str = "agent") -> None:
        self.base, self.scope, self.container = base, scope, container
        self.layout = Layout(str(base / "data"), str(base / "run"), str(base / "config"))
        self.home = self.layout.gate_home(scope)
        self.egress = NO_PROXY
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.log = base / "gate.log"
        if not os.path.exists(self.layout.vault_db):
            keys.create_vault(self.layout)
        with Store.open(self.layout.vault_db) as store:
            store.add_token(self.token, container=container, scope=scope, provider="gate")

    @property
    def token(self) -> str:
        """The container's token: another one for each container."""
        return f"{TOKEN}-{self.container}"

    @property
    def site(self) -> Site:
        """What the gate's own functions take."""
        incoming = self.home.incoming(self.container)
        key_files = tuple(keys.key_files(self.layout))
        return Site(self.container, self.scope, self.home, incoming, self.layout.vault_db, key_files, self.egress)

    def configure(self, url: str | Path, **fields: Any) -> config.GateConfig:
        """Make the mirror, empty as yet."""
        settings = config.GateConfig(**{"url": str(url), "refresh_seconds": 0, **fields})
        mirror.create(self.home, settings)
        return settings

    def configure_again(self, **fields: Any) -> config.GateConfig:
        """Change the configuration, as `terok gate set` does; the next connection has it."""
        settings = config.load(self.home).replace(**fields)
        config.save(self.home, settings)
        return settings

    def start(self, *, idle_seconds: int = 60) -> None:
        """Run the gate's process on a TCP socket and a Unix socket, both held by the test."""
        bundle = self.layout.bundle(self.container)
        os.makedirs(bundle.root, mode=0o700, exist_ok=True)
        runtime_dir = self.layout.runtime_dir(self.container)
        os.makedirs(runtime_dir, mode=0o700, exist_ok=True)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.unix_path = f"{runtime_dir}/gate.sock"
        Path(self.unix_path).unlink(missing_ok=True)
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.unix_path)
        self.unix.listen(64)
        for each in (self.tcp, self.unix):
            each.setblocking(False)
        listeners = [{"kind": "tcp", "port": self.port}, {"kind": "unix", "path": self.unix_path}]
        sidecar = {"name": "gate", "start": "demand", "idle_seconds": idle_seconds, "listeners": listeners}
        document = {
            "schema": 1,
            "container": self.container,
            "scope": self.scope,
            "bundle": bundle.root,
            "runtime_dir": runtime_dir,
            "sidecars": [sidecar | {"settings": config.settings_for(self.layout, self.scope, self.egress)}],
            "mounts": [],
            "shield": None,
        }
        Path(bundle.sidecar).write_text(json.dumps(document))
        Path(bundle.sidecar).chmod(0o600)
        self.run_process()
        if not os.path.exists(self.home.config):
            return  # it leaves a second after its last client: the test's own shall be the first
        with socket.socket(socket.AF_UNIX) as client:  # it serves now
            client.connect(self.unix_path)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while client.recv(4096):
                pass

    def run_process(self) -> None:
        """Start the process behind the sockets that are there, as the supervisor does again after a crash."""
        boot = f"{package_root()}/sidecars/boot.py"
        moved = [os.dup(each.fileno()) for each in (self.tcp, self.unix)]
        arguments = [sys.executable, "-I", "-S", boot, "gate", self.layout.bundle(self.container).sidecar]
        script = f"exec 3<&{moved[0]} 4<&{moved[1]}; exec {shlex.join(arguments)}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script],
                pass_fds=moved,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": GIT_ENV["PATH"], "LANG": "C.UTF-8"},
            )
        for fd in moved:
            os.close(fd)

    def stop(self) -> None:
        """End it and close the sockets."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            self.process = None
            self.tcp.close()
            self.unix.close()

    def url(self, token: str | None = None) -> str:
        """The repository's URL with the token as user name."""
        return f"http://{self.token if token is None else token}:@127.0.0.1:{self.port}/{self.scope}.git"

    def refs(self) -> dict[str, str]:
        """Every ref of the mirror."""
        out = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=Path(self.home.repo)).stdout
        return dict(line.split(" ") for line in out.splitlines())

    def audit(self) -> list[dict[str, Any]]:
        """The container's audit log."""
        path = Path(self.layout.bundle(self.container).audit)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
