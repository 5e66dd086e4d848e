"""A stand-in for a company's HTTP proxy: CONNECT alone, with or without TLS and a credential, and hostile on request.

It resolves names by its own table, so that a name which this host cannot resolve still leads somewhere.
"""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Mapping

from tests.standins.listening import Listening


class Proxy(Listening):
    """The proxy.

    Args:
        names: what it resolves: a host to an address and port of a stand-in; other hosts get 502.
        login: `user:password` that it wants; empty: none.
        tls: its certificate, for https://.
        answer: said to every request instead of carrying it out.
        host, port: where it listens.
        source: the address from which it connects; empty: the kernel chooses.

    Attributes:
        asked: `host:port` of every CONNECT, in order.
        heads: the requests' heads, as they came.
        mute: it reads and says nothing.
    """

    def __init__(
        self,
        names: Mapping[str, tuple[str, int]] | None = None,
        *,
        login: str = "",
        tls: ssl.SSLContext | None = None,
        answer: bytes = b"",
        host: str = "127.0.0.1",
        port: int = 0,
        source: str = "",
    ) -> None:
        super().__init__(host, port)
        self.names, self.login, self.tls, self.answer = dict(names or {}), login, tls, answer
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.mute = False
        self._source = (source, 0) if source else None
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        """As `network.upstream_proxy` has it; over TLS by name, for its certificate."""
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    @property
    def authority(self) -> str:
        """Host and port."""
        return self.url.partition("://")[2]

    @property
    def busy(self) -> bool:
        """Whether a connection is open."""
        return bool(self._open)

    def drop_connections(self) -> None:
        """Close every open connection."""
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _serve(self, raw: socket.socket) -> None:
        self._open.add(raw)
        sock = raw
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(raw, server_side=True)
            self._answer(sock)
        except OSError:
            pass
        finally:
            self._open.discard(raw)
            sock.close()

    def _answer(self, sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(1)
            if not data:
                return
            head += data
        self.heads.append(head)
        place = head.split(b" ")[1].decode()
        self.asked.append(place)
        self.event("asked").set()
        wanted = b"Proxy-Authorization: Basic " + base64.b64encode(self.login.encode()) + b"\r\n"
        if self.mute:
            sock.recv(1)
        elif self.answer:
            sock.sendall(self.answer)
            sock.recv(1)
        elif self.login and wanted not in head:
            sock.sendall(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
        else:
            self._connect(sock, place)

    def _connect(self, sock: socket.socket, place: str) -> None:
        host, _, port = place.rpartition(":")
        target = self.names.get(place) or self.names.get(host.strip("[]"))
        if target is None:
            sock.sendall(b"HTTP/1.1 502 Unknown\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection((target[0], target[1] or int(port)), 10, self._source) as there:
            there.settimeout(None)
            sock.sendall(b"HTTP/1.1 200 Connection established\r\nVia: stand-in\r\n\r\n")
            back = threading.Thread(target=_copy, args=(there, sock), daemon=True)
            back.start()
            _copy(sock, there)
            back.join(10)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for sock in (source, target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
