"""A vault of its own: store, routes and the real sidecar process behind real sockets, without Podman."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from terok_host.sidecars.roster import catalog
from terok_host.sidecars.roster.model import Auth, Catalog, Provider
from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.sidecars.vault.settings import settings_for
from terok_host.supervisor.ground import process, sockets
from terok_host.supervisor.ground.layout import Layout, package_root
from tests.lab.waiting import until

SECRET = "sk-real-7hJ2kQ9xLmZ4pW8vTqR3nB6y/+=c"
"""What must never be seen by a client; the last characters are ones that percent-encoding changes."""


def provider(url: str, *, rate: Mapping[str, Any] | None = None, **changes: Any) -> Provider:
    """A provider with one upstream and everything allowed.

    Args:
        url: the upstream.
        rate: its limits of requests.
        changes: other members, as `model.py` or as JSON has them.
    """
    made: dict[str, Any] = {
        "title": "Stand-in",
        "site": None,
        "variables": {},
        "upstreams": [{"url": url, "prefix": "/", "host": None, "strip": False, "auth": None, "auth_as": None}],
        "auth": {
            "api-key": auth("Authorization", "Bearer "),
            "oauth": auth("Authorization", "Bearer "),
            "basic": auth("Authorization", "")._replace(scheme="basic", user="someone"),
        },
        "headers": {},
        "merge": {},
        "token_query": [],
        "rules": [{"name": "all", "action": "allow", "methods": ["*"], "paths": ["/**"]}],
        "body_max": None,
        "allow_private": True,
        "ca_bundle": None,
        "websocket": True,
        "usage": None,
        "refresh": None,
        "secret_fields": [],
    }
    made.update({**(rate or {}), **changes})
    return catalog.provider_from(catalog.plain(made))


def auth(header: str, prefix: str) -> Auth:
    """One way to send a secret."""
    return Auth(header=header, prefix=prefix, token="terok-{alnum:40}")


class Unix(http.client.HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Vault:
    """One container's vault.

    Args:
        root: an empty directory; short enough for socket paths.
        providers: what routes.json holds.
        idle_seconds: as in the sidecar JSON.
        settings: more settings of the sidecar.
        container: the container's name.
    """

    def __init__(
        self,
        root: Path,
        providers: Mapping[str, Provider],
        *,
        idle_seconds: int = 0,
        settings: Mapping[str, Any] | None = None,
        container: str = "box",
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)
        self.layout = Layout(str(root / "data"), str(root / "run"), str(root / "config"))
        self.container, self.idle_seconds = container, idle_seconds
        self.settings = dict(settings or {})
        self.recovery = ""
        if not os.path.exists(self.layout.vault_db):
            self.recovery = keys.create_vault(self.layout)
        self.store = Store.open(self.layout.vault_db)
        self.store.unlock(keys.find_data_key(self.store, keys.key_files(self.layout)))
        self.write_routes(providers)
        self.bundle = self.layout.bundle(container)
        for directory in (self.bundle.root, self.layout.runtime_dir(container)):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self.path = os.path.join(self.layout.runtime_dir(container), "vault.sock")
        self._unix = sockets.listen_unix(self.path)
        self._tcp = sockets.listen_tcp("127.0.0.1", 0)
        with socket.socket(fileno=os.dup(self._tcp)) as sock:
            self.port: int = sock.getsockname()[1]
        self.pid = 0
        self.more: list[tuple[dict[str, object], int]] = []
        """More listeners, as the sidecar JSON has them, with their descriptors."""

    def write_routes(self, providers: Mapping[str, Provider]) -> None:
        """(Re)write routes.json as `terok vault routes` does: complete or not at all."""
        headers = ("authorization", "x-api-key", "private-token", "x-goog-api-key")
        temporary = self.layout.vault_routes + ".new"
        Path(temporary).write_bytes(catalog.dump(Catalog(providers, token_headers=headers)))
        os.replace(temporary, self.layout.vault_routes)

    def add(self, name: str, secret: str = SECRET, scope: str = "work", **meta: Any) -> str:
        """Store a credential and return a phantom token for it."""
        self.store.put("credential", scope, name, secret.encode(), {"auth": "api-key", **meta})
        return self.token(name, scope)

    def token(self, name: str, scope: str = "work", container: str | None = None, token: str = "") -> str:
        """A phantom token."""
        token = token or "terok-" + secrets.token_hex(20)
        self.store.add_token(token, container=container or self.container, scope=scope, provider=name)
        return token

    def write_sidecar(self) -> None:
        """Write the sidecar JSON."""
        settings = {**settings_for(self.layout), **self.settings}
        listeners = [{"kind": "unix", "path": self.path}, {"kind": "netns", "port": self.port}]
        listeners += [listener for listener, _ in self.more]
        sidecar = {"name": "vault", "start": "demand", "idle_seconds": self.idle_seconds, "listeners": listeners}
        document = {
            "schema": 1, "container": self.container, "scope": "work", "bundle": self.bundle.root,
            "runtime_dir": self.layout.runtime_dir(self.container), "mounts": [], "shield": None,
            "sidecars": [{**sidecar, "settings": settings}],
        }  # fmt: skip
        fd = os.open(self.bundle.sidecar, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as file:
            json.dump(document, file)

    def start(self) -> None:
        """Start the sidecar as the supervisor does."""
        self.write_sidecar()
        log = os.open(self.bundle.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            boot = os.path.join(package_root(), "sidecars", "boot.py")
            argv = [sys.executable, "-I", "-S", boot, "vault", self.bundle.sidecar]
            env = {**process.CLEAN_ENV, "HOME": self.layout.config}
            fds = dict(enumerate((self._unix, self._tcp, *(fd for _, fd in self.more)), 3))
            fds[2] = log
            self.pid = process.spawn(argv, env=env, fds=fds, die_with_parent=False)
        finally:
            os.close(log)

    def up(self) -> None:
        """Start it when it does not run, as the supervisor does at the first connection."""
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
        if not self.pid:
            self.start()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Signal it and wait: its exit code and the seconds that it took."""
        assert self.pid
        began = time.monotonic()
        os.kill(self.pid, number)
        code = self.wait()
        return code, time.monotonic() - began

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for its end; the exit code."""
        fd = os.pidfd_open(self.pid)
        try:
            assert process.wait_gone(fd, timeout), "the vault did not end"
        finally:
            os.close(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            try:
                self.stop(signal.SIGKILL)
            except ProcessLookupError:
                self.wait()
        self.store.close()
        for fd in (self._unix, self._tcp, *(fd for _, fd in self.more)):
            os.close(fd)

    # --- clients ---

    def client(self, timeout: float = 10.0) -> http.client.HTTPConnection:
        """A client over TCP."""
        self.up()
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def unix(self) -> Unix:
        """A client over the Unix socket."""
        self.up()
        return Unix(self.path)

    def get(self, path: str, token: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        client = self.client()
        try:
            sent = {"Authorization": f"Bearer {token}"} if token else {}
            sent.update({name.replace("_", "-"): value for name, value in headers.items()})
            client.request(method, path, body=body, headers=sent)
            answer = client.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            client.close()

    def raw(self, timeout: float = 10.0) -> socket.socket:
        """A TCP connection for bytes that no client library would send."""
        self.up()
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def log(self) -> str:
        """What the process wrote to stderr."""
        return Path(self.bundle.log).read_text()

    def audit(self) -> list[dict[str, Any]]:
        """The container's audit log."""
        return lines(self.bundle.audit)

    def ledger(self) -> list[dict[str, Any]]:
        """The vault's own audit log."""
        return lines(self.layout.vault_audit)


def lines(path: str) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; none when it does not exist."""
    try:
        return [json.loads(line) for line in Path(path).read_text().splitlines()]
    except FileNotFoundError:
        return []


class Reply:
    """An answer: `status`, `headers`, `body`."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.body[:200]!r}>"

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer's end (or its reset)."""
    received = b""
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            return received
        if not data:
            return received
        received += data


def wait_line(vault: Vault, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The audit line that comes; a client may see an end before the other end was noticed."""
    return until(lambda: next((line for line in vault.audit() if wanted(line)), {}), 10, why=vault.audit)
