"""What every stand-in on a socket does: accept in one thread, serve each connection in another."""

from __future__ import annotations

import socket
import threading
from typing import Self


class Listening:
    """A server from `with` to the end of its block.

    Attributes:
        port: where it listens.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._listener.getsockname()[1]
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()

    def event(self, name: str) -> threading.Event:
        """An event that tests and handlers share."""
        with self._lock:
            return self._events.setdefault(name, threading.Event())

    def drop_connections(self) -> None:
        """Close every open connection."""
        raise NotImplementedError

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        raise NotImplementedError
