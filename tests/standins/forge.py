"""Stand-in forges: git over HTTPS with a login, git over SSH. Real git behind a real TLS server and a real sshd."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.standins.authority import Authority

USER, PASSWORD = "x-access-token", "forge-secret-0123456789"
EXEC_PATH = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
BACKEND = f"{EXEC_PATH}/git-http-backend"


class _Handler(BaseHTTPRequestHandler):
    """One request: checks the login, runs git-http-backend."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self._body()
        path, _, query = self.path.partition("?")
        self.server.forge.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self._send(401, {"WWW-Authenticate": 'Basic realm="forge"'}, b"who are you\n")
            return
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "GIT_PROJECT_ROOT": str(self.server.forge.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": USER,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "HOME": "/nonexistent",
        }
        done = subprocess.run([BACKEND], input=body, env=env, capture_output=True, timeout=300)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(fields.pop("Status", "200").split()[0])
        self._send(status, fields, content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, fields: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    forge: HttpsForge

    def handle_error(self, *_: object) -> None:
        """A client that left is no error of the test."""


class HttpsForge:
    """git over HTTPS for the bare repositories below `root`.

    Attributes:
        url: of its root.
        ca_file: the certificate that its clients must trust.
        seen: (method, target, Authorization) of each request.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self.seen: list[tuple[str, str, str]] = []
        authority = Authority(scratch / "ca.pem", "localhost", "forge.test")
        self.ca_file = authority.file
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.forge = self
        self._server.socket = authority.context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving; connecting is refused afterwards. May be repeated."""
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class SshForge:
    """git over SSH: an sshd that lets one key in.

    Attributes:
        url: prefix of repository URLs, with the absolute path of its root.
        host_key: the host's public key, as known_hosts has it.
    """

    def __init__(self, root: Path, scratch: Path, public_key: str) -> None:
        scratch.mkdir(exist_ok=True)
        host_key = scratch / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
        self.host_key = " ".join((scratch / "host_key.pub").read_text().split()[:2])
        (scratch / "authorized_keys").write_text(public_key + "\n")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        settings = {
            "ListenAddress": f"127.0.0.1:{port}",
            "HostKey": host_key,
            "AuthorizedKeysFile": scratch / "authorized_keys",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PidFile": "none",
            "AcceptEnv": "GIT_PROTOCOL",
            "PermitRootLogin": "prohibit-password",
        }
        (scratch / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
        assert sshd, "the package openssh-server is missing"
        self._log = (scratch / "sshd.log").open("wb")
        self._process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(scratch / "sshd_config")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert self._process.stderr is not None
        while line := self._process.stderr.readline():
            if b"listening on" in line:
                break
        else:
            raise AssertionError("sshd did not start")
        self._drain = threading.Thread(target=self._copy)
        self._drain.start()
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        self.url = f"ssh://{user}@127.0.0.1:{port}{root}"

    def _copy(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.write(line)
            self._log.flush()

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(10)
        self._drain.join(10)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._log.close()
