"""A stand-in upstream that speaks HTTP/2 over TLS, written on `h2`; paths say what it does. A thread a stream."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from tests.standins.listening import Listening

Pairs = list[tuple[str, str]]


class Gone(Exception):
    """The stream or its connection has ended."""


class Exchange:
    """One request: `headers` (pseudo ones too), its body piece by piece, and what is sent back."""

    def __init__(self, connection: Connection, number: int, headers: Pairs) -> None:
        self.connection, self.number, self.headers = connection, number, dict(headers)
        self.pieces: deque[bytes] = deque()
        self.complete = self.gone = False
        self.unread = 0

    def read(self) -> bytes:
        """The next piece of the body; empty at its end."""
        with self.connection.changed:
            self.connection.wait(lambda: bool(self.pieces) or self.complete or self.gone)
            if self.gone:
                raise Gone
            if not self.pieces:
                return b""
            piece = self.pieces.popleft()
            self.connection.h2.acknowledge_received_data(len(piece), self.number)
            self.connection.flush()
            return piece

    def head(self, status: str, headers: Pairs, *, end: bool = False) -> None:
        """Send a field section."""
        fields = ([(":status", status)] if status else []) + headers
        with self.connection.changed:
            self._alive()
            self.connection.h2.send_headers(self.number, fields, end_stream=end)
            self.connection.flush()

    def _alive(self) -> None:
        if self.gone or self.connection.dead:
            raise Gone

    def send(self, data: bytes, *, end: bool = False) -> None:
        """Send data as the window allows."""
        h2 = self.connection.h2
        while True:
            with self.connection.changed:
                self._alive()
                room = min(h2.local_flow_control_window(self.number), h2.max_outbound_frame_size)
                if data and room <= 0:
                    self.connection.wait(lambda: self.gone or h2.local_flow_control_window(self.number) > 0)
                    continue
                piece, data = data[:room], data[room:]
                h2.send_data(self.number, piece, end_stream=end and not data)
                self.connection.flush()
            if not data:
                return

    def reset(self, code: int) -> None:
        """RST_STREAM."""
        with self.connection.changed:
            self._alive()
            self.connection.h2.reset_stream(self.number, code)
            self.connection.flush()


class Connection:
    """One client's connection."""

    def __init__(self, upstream: Upstream2, sock: ssl.SSLSocket) -> None:
        self.upstream, self.sock = upstream, sock
        self.changed = threading.Condition()
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.streams: dict[int, Exchange] = {}
        self.dead = False

    def wait(self, until: Callable[[], bool]) -> None:
        """Until something holds; `changed` is held."""
        if not self.changed.wait_for(lambda: self.dead or until(), 30) or self.dead:
            raise Gone

    def flush(self) -> None:
        """Write what the library has ready; `changed` is held."""
        if not self.dead and (data := self.h2.data_to_send()):
            self.sock.settimeout(None)
            self.sock.sendall(data)

    def serve(self) -> None:
        """Until the client leaves."""
        with self.changed:
            self.h2.local_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: self.upstream.streams_max})
            self.h2.local_settings.acknowledge()
            self.h2.initiate_connection()
            self.flush()
        try:
            while not self.dead and (data := self.sock.recv(65536)):
                with self.changed:
                    for event in self.h2.receive_data(data):
                        self._handle(event)
                    self.flush()
                    self.changed.notify_all()
        except (OSError, H2Error) as error:
            self.upstream.errors.append(repr(error))
        finally:
            self.end()

    def end(self) -> None:
        """Close."""
        with self.changed:
            self.dead = True
            self.changed.notify_all()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _handle(self, event: object) -> None:
        if isinstance(event, RequestReceived):
            pairs = [(str(name), str(value)) for name, value in event.headers]
            exchange = self.streams[event.stream_id] = Exchange(self, event.stream_id, pairs)
            threading.Thread(target=self.upstream.run, args=(exchange,), daemon=True).start()
        elif isinstance(event, DataReceived):
            self.streams[event.stream_id].pieces.append(event.data)
        elif isinstance(event, StreamEnded):
            self.streams[event.stream_id].complete = True
        elif isinstance(event, StreamReset):
            self.streams[event.stream_id].gone = True
            self.upstream.resets.append(int(event.error_code))
            self.upstream.event("reset").set()
        elif isinstance(event, ConnectionTerminated):
            self.dead = True
        else:
            assert isinstance(event, WindowUpdated | RemoteSettingsChanged) or event is not None


class Upstream2(Listening):
    """The server; `with Upstream2(context) as upstream:` serves on `upstream.port` of 127.0.0.1.

    Args:
        context: a TLS server context of its own, which is made to choose `h2`.
        streams_max: MAX_CONCURRENT_STREAMS.
    """

    def __init__(self, context: ssl.SSLContext, streams_max: int = 100) -> None:
        context.set_alpn_protocols(["h2"])
        super().__init__()
        self._context, self.streams_max = context, streams_max
        self.seen: list[Exchange] = []
        self.connections: list[Connection] = []
        self.resets: list[int] = []
        self.errors: list[str] = []
        self.running = self.most = 0

    def drop_connections(self) -> None:
        """Close every open connection."""
        for connection in self.connections:
            connection.end()

    def _serve(self, raw: socket.socket) -> None:
        try:
            with self._context.wrap_socket(raw, server_side=True) as sock:
                connection = Connection(self, sock)
                self.connections.append(connection)
                connection.serve()
        except OSError as error:
            self.errors.append(repr(error))

    def run(self, exchange: Exchange) -> None:
        """Do what the path says."""
        with self._lock:
            self.seen.append(exchange)
            number = len(self.seen)
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            _, name, *rest = exchange.headers[":path"].split("/")
            getattr(self, "do_" + name.replace("-", "_"), self.do_echo)(exchange, number, *rest)
        except (Gone, OSError, H2Error) as error:
            self.errors.append(repr(error))
        finally:
            with self._lock:
                self.running -= 1

    def do_echo(self, exchange: Exchange, number: int, *_: str) -> None:
        """The request as JSON, without its credential."""
        digest, size = hashlib.sha256(), 0
        while piece := exchange.read():
            digest.update(piece)
            size += len(piece)
        headers = {name: value for name, value in exchange.headers.items() if name != "authorization"}
        document = {"headers": headers, "size": size, "sha256": digest.hexdigest(), "number": number}
        body = json.dumps(document).encode()
        exchange.head("200", [("content-type", "application/json"), ("content-length", str(len(body)))])
        exchange.send(body, end=True)

    def do_events(self, exchange: Exchange, number: int, count: str) -> None:
        """Server-sent events; before each one but the first it waits for `next`."""
        exchange.head("200", [("content-type", "text/event-stream")])
        for each in range(int(count)):
            if each:
                assert self.event("next").wait(10)
                self.event("next").clear()
            exchange.send(b"data: %d\n\n" % each)
        exchange.send(b"", end=True)

    def do_meet(self, exchange: Exchange, number: int, count: str) -> None:
        """Answer when `count` requests are here at once."""
        while self.running < int(count):
            if self.event("met").wait(0.01):
                break
        self.event("met").set()
        exchange.head("200", [])
        exchange.send(b"met", end=True)

    def do_big(self, exchange: Exchange, number: int, size: str) -> None:
        """So many bytes."""
        exchange.head("200", [("content-length", size)])
        block = bytes(range(256)) * 256
        left = int(size)
        while left:
            exchange.send(block[:left], end=left <= len(block))
            left -= min(left, len(block))

    def do_trailers(self, exchange: Exchange, number: int) -> None:
        """Early hints, a body, trailers."""
        exchange.head("103", [("link", "</style.css>")])
        exchange.head("200", [("set-cookie", "a=b")])
        exchange.send(b"hello")
        exchange.head("", [("x-sum", "42")], end=True)

    def do_leak(self, exchange: Exchange, number: int, how: str) -> None:
        """The secret back: in a header, at once, or late and in two pieces."""
        secret = exchange.headers["authorization"].partition(" ")[2]
        exchange.head("200", [("x-echo", secret)] if how == "header" else [])
        if how == "late":
            exchange.send(b"innocent bytes")
            assert self.event("next").wait(10)
        exchange.send(b"your key is " + secret[:12].encode())
        exchange.send(secret[12:].encode() + b" thanks", end=True)

    def do_reset(self, exchange: Exchange, number: int, code: str, when: str) -> None:
        """RST_STREAM: `first` only the first request, `head` after a part of the body."""
        if when == "first" and number > 1:
            self.do_echo(exchange, number)
            return
        if when == "head":
            exchange.head("200", [("content-length", "100")])
            exchange.send(b"only this")
            assert self.event("next").wait(10)
        exchange.reset(int(code))

    def do_goaway(self, exchange: Exchange, number: int) -> None:
        """GOAWAY that names the stream before this one: this one was not looked at, the others go on."""
        connection = exchange.connection
        if connection is not self.connections[0]:
            self.do_echo(exchange, number)
            return
        last = exchange.number - 2
        with connection.changed:
            frame = last.to_bytes(4, "big") + bytes(4)
            connection.flush()
            connection.sock.sendall(len(frame).to_bytes(3, "big") + b"\x07\0" + bytes(4) + frame)

    def do_silent(self, exchange: Exchange, number: int) -> None:
        """Nothing."""
        self.event("asked").set()
        self.event("speak").wait(20)

    def do_drop(self, exchange: Exchange, number: int) -> None:
        """Close the first connection without a word; answer on the next."""
        if exchange.connection is self.connections[0]:
            exchange.connection.end()
        else:
            self.do_echo(exchange, number)
