"""A stand-in upstream: a small threaded HTTP/1.1 server, TLS or plain, that also misbehaves on request.

Paths say what it does (`behaviours.py`); everything else is echoed as JSON. It keeps every request that it saw in
`seen`. Standard library only; a certificate comes from the caller. Alone: `python -m tests.standins.upstream`.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

from tests.standins import behaviours
from tests.standins.listening import Listening


class Request:
    """A request as it arrived: `method`, `path` (raw), `headers` (lower-case name, value), `body`, `trailers`."""

    def __init__(self, method: str, path: str, headers: list[tuple[str, str]]) -> None:
        self.method, self.path, self.headers = method, path, headers
        self.body = b""
        self.trailers = b""
        self.connection = 0

    def header(self, name: str) -> str | None:
        """The value of the only header of this name; None without one."""
        found = [value for each, value in self.headers if each == name]
        assert len(found) <= 1, found
        return found[0] if found else None


class Conversation:
    """One connection: reads requests, writes bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def line_end(self, mark: bytes) -> bytes:
        """Bytes up to and with `mark`; empty at the end of the connection."""
        while mark not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                return b""
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(mark)
        return found + mark

    def exactly(self, size: int) -> bytes:
        """So many bytes, or fewer at the end of the connection."""
        while len(self.buffer) < size:
            data = self.sock.recv(65536)
            if not data:
                break
            self.buffer += data
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def request(self) -> Request | None:
        """The next request's head; None at the end."""
        head = self.line_end(b"\r\n\r\n").decode("latin-1")
        if not head:
            return None
        lines = head[:-4].split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Request(method, path, headers)

    def body(self, request: Request) -> Iterator[bytes]:
        """The body, piece by piece as it is framed."""
        if request.header("transfer-encoding") == "chunked":
            while True:
                size = int(self.line_end(b"\r\n").partition(b";")[0], 16)
                if not size:
                    break
                yield self.exactly(size)
                self.exactly(2)
            while (line := self.line_end(b"\r\n")) not in (b"\r\n", b""):
                request.trailers += line
            return
        left = int(request.header("content-length") or 0)
        while left:
            piece = self.exactly(min(left, 65536))
            if not piece:
                return
            left -= len(piece)
            yield piece

    def read_body(self, request: Request) -> None:
        """Read the whole body into the request."""
        request.body = b"".join(self.body(request))

    def send(self, data: bytes) -> None:
        """Write all of it."""
        self.sock.sendall(data)

    def answer(self, body: bytes, status: str = "200 OK", headers: str = "Content-Type: text/plain\r\n") -> None:
        """A whole answer with its length."""
        self.send(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw = socket.socket(fileno=self.sock.detach())
        raw.close()


Handler = Callable[["Upstream", Conversation, Request], bool]


class Upstream(Listening):
    """The server; `with Upstream(context) as upstream:` serves on `upstream.port` of 127.0.0.1 until the end.

    Args:
        context: a TLS server context; None: plain.
        host: where to listen.
        port: 0: any.
    """

    def __init__(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port)
        self._context = context
        self.seen: list[Request] = []
        self.connections = 0
        self.accepted = b""
        self.documents: dict[str, tuple[str, bytes, str]] = {}
        self.handlers: dict[str, Handler] = dict(behaviours.BEHAVIOURS)
        self._open: set[socket.socket] = set()

    def drop_connections(self) -> None:
        """Close every open connection."""
        with self._lock:
            for sock in self._open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _serve(self, raw: socket.socket) -> None:
        sock = raw
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(raw, server_side=True)
            with self._lock:
                self._open.add(sock)
                self.connections += 1
                number = self.connections
            conversation = Conversation(sock)
            while (request := conversation.request()) is not None:
                request.connection = number
                self.seen.append(request)
                path = request.path.partition("?")[0]
                name = next((each for each in self.handlers if path == each or path.startswith(each + "/")), "")
                if not self.handlers.get(name, behaviours.echo)(self, conversation, request):
                    break
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()


def main() -> None:
    """Serve for ever: UPSTREAM_PORT and, for TLS, UPSTREAM_CERT and UPSTREAM_KEY (PEM) in the environment."""
    context = None
    if "UPSTREAM_CERT" in os.environ:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["UPSTREAM_CERT"], os.environ["UPSTREAM_KEY"])
    with Upstream(context, port=int(os.environ.get("UPSTREAM_PORT", "0"))) as upstream:
        print(upstream.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
