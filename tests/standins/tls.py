"""Connections to brokered hosts: the relay's part and the client's, for a vault of the tests."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from terok_host.sidecars.store.records import Authority
from terok_host.sidecars.vault.tls.authority import make_authority
from terok_host.supervisor.ground import sockets
from terok_host.supervisor.ground.layout import handover_socket
from tests.standins.upstream import Upstream
from tests.standins.vault import Reply, Vault, wait_line


class Broker:
    """A vault that brokers hosts.

    Args:
        vault: not started yet.
        hosts: each as `host:port`.
        spare: whether it has the certificate that serves while it is locked.

    Attributes:
        authority: the container's.
        path: the socket for hand-over.
    """

    def __init__(self, vault: Vault, hosts: Sequence[str], *, spare: bool = True) -> None:
        self.vault = vault
        self.authority: Authority = make_authority(vault.container, [host.rpartition(":")[0] for host in hosts])
        vault.store.put_authority(vault.container, self.authority)
        if spare:
            fd = os.open(vault.bundle.tls_spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "wb") as file:
                file.write(self.authority.spare)
        self.path = handover_socket(vault.layout.runtime_dir(vault.container))
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        listener: dict[str, object] = {"kind": "handover", "path": self.path}
        vault.more.append((listener, sockets.listen_unix(self.path, 0o600, messages=True)))
        vault.settings["tls_hosts"] = list(hosts)

    def link(self) -> socket.socket:
        """A connection to the socket for hand-over."""
        self.vault.up()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.settimeout(10)
        link.connect(self.path)
        return link

    def give(self, message: bytes, *fds: int) -> bytes:
        """Send a message as the relay does; returns the answer, empty when there is none."""
        with self.link() as link:
            socket.send_fds(link, [message], list(fds))
            try:
                return link.recv(1024)
            except ConnectionResetError:
                return b""

    def raw(self, target: str, timeout: float = 10) -> socket.socket:
        """A client's end of a TCP connection that the vault was given."""
        ours, theirs = tcp_pair()
        with theirs:
            answer = self.give(target.encode(), theirs.fileno())
        assert answer == b"+", answer
        ours.settimeout(timeout)
        return ours

    def context(self, root: bytes = b"") -> ssl.SSLContext:
        """A client's context that trusts the container's authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=(root or self.authority.root).decode())
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def secure(
        self,
        target: str,
        *,
        name: str | None = None,
        context: ssl.SSLContext | None = None,
        timeout: float = 10,
        ragged: bool = True,
    ) -> ssl.SSLSocket:
        """A client's TLS connection.

        Args:
            target: what the vault is told.
            name: another server name than the target's.
            ragged: an end without close_notify is an end like others; False: it raises.
        """
        raw = self.raw(target, timeout)
        try:
            context = context or self.context()
            host = name or target.rpartition(":")[0]
            return context.wrap_socket(raw, server_hostname=host, suppress_ragged_eofs=ragged)
        except BaseException:
            raw.close()
            raise

    def client(self, target: str, **options: object) -> Client:
        """An HTTP client on one connection."""
        return Client(self.secure(target, **options), target)  # type: ignore[arg-type]  # as `secure` has them

    def get(self, target: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own; `_` in header names stands for `-`."""
        client = self.client(target)
        try:
            client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = client.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            client.close()


class Place:
    """A vault that brokers the stand-in upstream."""

    def __init__(self, vault: Vault, upstream: Upstream) -> None:
        self.vault, self.upstream = vault, upstream
        self.target = f"localhost:{upstream.port}"
        self.token = vault.add("p")
        self.broker = Broker(vault, [self.target])

    def works(self) -> None:
        """A client is served."""
        assert self.broker.get(self.target, "/small", Authorization=f"Bearer {self.token}").body == b"ok"

    def reason(self, wanted: str) -> dict[str, Any]:
        """The audit line with this reason."""
        return wait_line(self.vault, lambda line: line.get("reason") == wanted)


class Client(http.client.HTTPConnection):
    """http.client over a connection that is there."""

    def __init__(self, sock: ssl.SSLSocket, target: str) -> None:
        host, _, port = target.rpartition(":")
        super().__init__(host, int(port))
        if port == "443":
            self.default_port = 443
        self.sock = sock

    def connect(self) -> None:
        """The connection is not made again."""
        raise ConnectionError("the connection has ended")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other
