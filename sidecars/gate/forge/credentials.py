"""How a scope's secret reaches git: through pipes and a short-lived agent, never by an argument, a file or a variable.

- HTTPS: git asks a credential helper (gitcredentials(7)); ours copies what stands ready in an inherited pipe, once.
- HTTP proxy: git asks a credential helper for it too, with a pipe of its own.
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
    from ...kit.proxy.egress import Egress
    from ...store.records import Item
    from ...store.store import Store
    from ..config import GateConfig
    from ..site import Site
    from .address import Address

CREDENTIAL_FD, PROXY_FD = 9, 8
AGENT_SECONDS = 10.0
_ADD_IDENTITY, _SUCCESS = 17, 6
_HELPER = "!cat <&{}; :"
"""git appends the operation (`get`, `store`, `erase`); whichever comes first empties the pipe, the rest get nothing."""


class Way:
    """What git needs besides the URL.

    Attributes:
        address: upstream.
        config: configuration pairs.
        variables: environment.
        files: what the programs that git starts must read besides the mirror.
        port: of the HTTP proxy that git connects to instead of upstream; 0: none.
    """

    def __init__(
        self,
        address: Address,
        config: list[tuple[str, str]],
        variables: dict[str, str],
        files: list[str],
        secrets: dict[int, bytes],
        port: int = 0,
    ) -> None:
        self.address, self.config, self.variables, self.files = address, config, variables, files
        self.port = port
        self._secrets = secrets
        self._open: list[int] = []

    def __repr__(self) -> str:
        return f"Way({'with' if CREDENTIAL_FD in self._secrets else 'without'} a credential)"

    def descriptors(self) -> dict[int, int]:
        """Descriptors for the next git process: a fresh pipe for each credential."""
        self.close()
        return {number: self._pipe(secret) for number, secret in self._secrets.items()}

    def _pipe(self, secret: bytes) -> int:
        read, write = os.pipe2(os.O_CLOEXEC)
        self._open.append(read)
        os.set_blocking(write, False)
        try:
            # a pipe takes 64 KiB without a reader, and no credential is longer
            os.write(write, secret)
        finally:
            os.close(write)
        return read

    def close(self) -> None:
        """Close the pipes of the last process."""
        for fd in self._open:
            os.close(fd)
        self._open = []


@contextlib.contextmanager
def open_way(site: Site, config: GateConfig, address: Address) -> Iterator[Way]:
    """Get the scope's secret ready for git.

    Raises:
        TerokError: the vault is locked (LOCKED), or has no such credential or key (NOT_FOUND); or an upstream over SSH
            would go around the proxy (REFUSED).
    """
    home, store_path, key_files = site.home, site.store, site.key_files
    allowed = [(f"protocol.{address.kind}.allow", "always"), ("http.followRedirects", "false")]
    if address.kind == "ssh":
        _refuse_around(site.egress, config, address, home.scope)
        key = _ssh_key(config, home.scope, store_path, key_files)
        with _agent(key) as socket_path:
            command = ssh_command(home, socket_path)
            yield Way(address, allowed, {"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "ssh"}, [home.known_hosts], {})
        return
    ca = config.ca_file or site.egress.ca
    if ca:
        allowed.append(("http.sslCAInfo", ca))
    if ca and not config.ca_file:
        # the system's authorities count too: in the hashed directory, since one file takes the place of the other
        from ...kit.tls.layer import trust_stores

        allowed += [("http.sslCAPath", path) for _, path in trust_stores() if path][:1]
    secrets: dict[int, bytes] = {}
    if config.credential and address.kind in ("https", "http"):
        allowed.append((f"credential.{address.base}.helper", _HELPER.format(CREDENTIAL_FD)))
        secrets[CREDENTIAL_FD] = _login(config, home.scope, store_path, key_files)
    port = 0
    if address.kind in ("https", "http") and site.egress.carries(address.host):
        port = site.egress.port
        _through_proxy(site, allowed, secrets)
    way = Way(address, allowed, {}, [*([ca] if ca else []), *site.egress.files], secrets, port)
    try:
        yield way
    finally:
        way.close()


def _refuse_around(egress: Egress, config: GateConfig, address: Address, scope: str) -> None:
    """An upstream over SSH is connected to directly, which the operator has to ask for when there is a proxy."""
    if egress.carries(address.host):
        raise TerokError(
            f"The gate of {scope} has an upstream over SSH ({config.url}), which does not go through "
            "network.upstream_proxy.",
            fix=f"add {address.host} to network.no_proxy, or use the https:// URL of the repository",
            code=Exit.REFUSED,
        )


def _through_proxy(site: Site, pairs: list[tuple[str, str]], secrets: dict[int, bytes]) -> None:
    """Have git use the proxy. A user name in its URL makes git ask for the password (http.proxy in git-config(1))."""
    from urllib.parse import quote

    from ...store import proxy
    from ..git import decodes_proxy_logins

    egress = site.egress
    login = proxy.stored_login(site.store, site.key_files, egress.authority)
    url = egress.url
    if login is not None:
        user, password = login
        quoted = quote(user, safe=""), quote(password, safe="")
        if quoted != login and decodes_proxy_logins():
            user, password = quoted
        secrets[PROXY_FD] = f"username={user}\npassword={password}\n".encode()
        pairs.append((f"credential.{url}.helper", _HELPER.format(PROXY_FD)))
        # git decodes the name in the URL, and asks the helper for the same one
        url = url.replace("://", f"://{quote(user, safe='')}@")
        pairs.append(("http.proxyAuthMethod", "basic"))
    pairs.append(("http.proxy", url))
    if egress.tls and egress.ca:
        pairs.append(("http.proxySSLCAInfo", egress.ca))


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
