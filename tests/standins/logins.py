"""A token endpoint whose refresh tokens are single use, and a vault that has a login for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from terok_host.sidecars.store.credential import Credential
from terok_host.sidecars.store.records import Item
from terok_host.sidecars.store.store import Store
from tests.standins.authority import Authority


class TokenServer:
    """A token endpoint whose refresh tokens are single use; `hold` makes it wait before it answers."""

    def __init__(self, directory: Path) -> None:
        self.valid, self.count, self.requests = "refresh-0", 0, 0
        self.answer: Callable[[], tuple[int, bytes]] | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.asked = threading.Event()
        authority = Authority(directory / "ca.pem", "127.0.0.1")
        self.ca_file = authority.file
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = server.exchange(json.loads(body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                try:
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True  # whoever asked has given up, as some tests want it

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = False
        self.http.socket = authority.context.wrap_socket(self.http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.http.server_address[1]}/token"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def exchange(self, fields: dict[str, str]) -> tuple[int, bytes]:
        self.requests += 1
        if self.answer is not None:
            return self.answer()
        if fields["refresh_token"] != self.valid:
            return 400, json.dumps({"error": "invalid_grant", "error_description": fields["refresh_token"]}).encode()
        self.count += 1
        self.valid = f"refresh-{self.count}"
        self.asked.set()
        self.hold.wait(30)
        answer = {"access_token": f"access-{self.count}", "refresh_token": self.valid, "expires_in": 3600}
        return 200, json.dumps(answer).encode()

    def close(self) -> None:
        self.hold.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


def put(store: Store, expires_at: float = 1000.0, **meta: Any) -> None:
    login = Credential("oauth", "access-0", refresh_token="refresh-0", expires_at=expires_at)
    store.put("credential", "work", "anthropic", login.encode(), {"auth": "oauth", "expires_at": expires_at, **meta})


def get(store: Store) -> Item:
    found = store.get("credential", "work", "anthropic")
    assert found is not None
    return found
