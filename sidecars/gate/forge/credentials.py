"""How a scope's secret reaches git: through pipes and a short-lived agent, never by an argument, a file or a variable.

- HTTPS: git asks a credential helper (gitcredentials(7)); ours copies what stands ready in an inherited pipe, once.
- SSH: OpenSSH's own agent, alive as long as the operation, gets the key on its standard input; host keys are pinned.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket

from ....supervisor.ground import paste, process
from ....supervisor.ground.errors import Exit, TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ....supervisor.ground.layout import GateHome
    from ...store.records import Item
    from ...store.store import Store
    from ..config import GateConfig
    from .address import Address

CREDENTIAL_FD = 9
AGENT_SECONDS = 10.0
_ADD_IDENTITY, _SUCCESS = 17, 6
_HELPER = f"!cat <&{CREDENTIAL_FD}; :"
"""git appends the operation (`get`, `store`, `erase`); whichever comes first empties the pipe, the rest get nothing."""


class Way:
    """What git needs besides the URL.

    Attributes:
        address: upstream.
        config: configuration pairs.
        variables: environment.
        files: what the programs that git starts must read besides the mirror.
    """

    def __init__(
        self,
        address: Address,
        config: list[tuple[str, str]],
        variables: dict[str, str],
        files: list[str],
        secret: bytes = b"",
    ) -> None:
        self.address, self.config, self.variables, self.files = address, config, variables, files
        self._secret = secret
        self._open: list[int] = []

    def __repr__(self) -> str:
        return f"Way({'with' if self._secret else 'without'} a credential)"

    def descriptors(self) -> dict[int, int]:
        """Descriptors for the next git process: a fresh pipe that holds the credential."""
        self.close()
        if not self._secret:
            return {}
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(write, False)
        try:
            # a pipe takes 64 KiB without a reader, and no credential is longer
            os.write(write, self._secret)
        finally:
            os.close(write)
        self._open.append(read)
        return {CREDENTIAL_FD: read}

    def close(self) -> None:
        """Close the pipes of the last process."""
        for fd in self._open:
            os.close(fd)
        self._open = []


@contextlib.contextmanager
def open_way(
    home: GateHome, config: GateConfig, address: Address, store_path: str, key_files: Sequence[str]
) -> Iterator[Way]:
    """Get the scope's secret ready for git.

    Raises:
        TerokError: the vault is locked (LOCKED), or has no such credential or key (NOT_FOUND).
    """
    allowed = [(f"protocol.{address.kind}.allow", "always"), ("http.followRedirects", "false")]
    if address.kind == "ssh":
        key = _ssh_key(config, home.scope, store_path, key_files)
        with _agent(key) as socket_path:
            command = ssh_command(home, socket_path)
            yield Way(address, allowed, {"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "ssh"}, [home.known_hosts])
        return
    if config.ca_file:
        allowed.append(("http.sslCAInfo", config.ca_file))
    secret = b""
    if config.credential and address.kind in ("https", "http"):
        allowed.append((f"credential.{address.base}.helper", _HELPER))
        secret = _login(config, home.scope, store_path, key_files)
    way = Way(address, allowed, {}, [config.ca_file] if config.ca_file else [], secret)
    try:
        yield way
    finally:
        way.close()


@contextlib.contextmanager
def _unlocked(store_path: str, key_files: Sequence[str]) -> Iterator[Store]:
    from ...store.keys import ensure_unlocked
    from ...store.store import Store

    with Store.open(store_path, read_only=True) as store:
        ensure_unlocked(store, key_files)
        yield store


def _login(config: GateConfig, scope: str, store_path: str, key_files: Sequence[str]) -> bytes:
    from ...store import credential

    with _unlocked(store_path, key_files) as store:
        item = store.get(credential.KIND, scope, config.credential)
    if item is None:
        raise TerokError(
            f"The scope {scope} has no credential {config.credential}.",
            fix=paste.command("terok", "vault", "add", scope, config.credential),
            code=Exit.NOT_FOUND,
        )
    secret = credential.parse(item)
    user = config.username or secret.user or "x-access-token"
    credential.check_secret(secret.secret)
    return f"username={user}\npassword={secret.secret}\n".encode()


def _ssh_key(config: GateConfig, scope: str, store_path: str, key_files: Sequence[str]) -> Item:
    with _unlocked(store_path, key_files) as store:
        names = [entry.name for entry in store.describe("ssh-key", "") if scope in entry.meta.get("scopes", ())]
        wanted = config.ssh_key or (names[0] if len(names) == 1 else "")
        if wanted not in names:
            shown = f"has several ({', '.join(names)})" if names and not wanted else "has no such one"
            raise TerokError(
                f"The gate of {scope} needs an SSH key for upstream, and the scope {shown}.",
                fix=f"terok ssh generate NAME --scope {paste.quoted(scope)}, "
                f"or terok gate set {paste.quoted(scope)} --ssh-key NAME",
                code=Exit.NOT_FOUND,
            )
        item = store.get("ssh-key", "", wanted)
    assert item is not None
    return item


def ssh_command(home: GateHome, agent: str) -> str:
    """The ssh command line for git: no user's configuration, the pinned host keys, the agent's key alone."""
    options = {
        "BatchMode": "yes",
        "CheckHostIP": "no",
        "ClearAllForwardings": "yes",
        "ConnectTimeout": "15",
        "ControlMaster": "no",
        "ForwardAgent": "no",
        "GlobalKnownHostsFile": "/dev/null",
        "IdentityAgent": agent,
        "IdentityFile": "none",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PreferredAuthentications": "publickey",
        "ServerAliveInterval": "15",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "UserKnownHostsFile": home.known_hosts,
    }
    words = ["ssh", "-F", "/dev/null", "-T"]
    for name, value in options.items():
        quoted = f'"{value}"' if " " in value else value  # ssh_config(5) splits a value at spaces
        words += ["-o", f"{name}={quoted}"]
    return shlex.join(words)


@contextlib.contextmanager
def _agent(key: Item) -> Iterator[str]:
    """OpenSSH's ssh-agent with one key; gives its socket's path."""
    import tempfile

    program = process.find("ssh-agent")
    if program is None:
        raise TerokError("The program ssh-agent is not installed.", fix="install the package openssh-client")
    with tempfile.TemporaryDirectory(prefix="terok-gate-") as directory:
        path = os.path.join(directory, "agent")
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        try:
            pid = process.spawn([program, "-D", "-a", path], fds={1: out_write}, die_with_parent=True)
        finally:
            os.close(out_write)
        try:
            with open(out_read, "rb") as ready:
                ready.readline()  # it prints its variables when it listens
            _add(path, key)
            yield path
        finally:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


def _add(path: str, key: Item) -> None:
    """Give the agent the key: the vault keeps it as the fields of SSH_AGENTC_ADD_IDENTITY (RFC 9987, section 3.2)."""
    body = bytes([_ADD_IDENTITY]) + key.secret + b"\0\0\0\0"  # an empty comment
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(AGENT_SECONDS)
        agent.connect(path)
        agent.sendall(len(body).to_bytes(4, "big") + body)
        answer = agent.recv(5)
    if answer[4:] != bytes([_SUCCESS]):
        raise TerokError(f"ssh-agent did not take the key {key.name}: it is damaged, or of an unknown type.")
