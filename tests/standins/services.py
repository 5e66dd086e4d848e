"""Stand-ins for the services that agents use, as handlers of `upstream.Upstream`: enough for their real clients."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.standins.models import send_json

if TYPE_CHECKING:
    from tests.standins.upstream import Conversation, Request, Upstream


def github_user(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """GET /user."""
    talk.read_body(request)
    return send_json(talk, {"login": "octocat", "id": 1})


def github_issues(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """POST /repos/o/r/issues."""
    talk.read_body(request)
    return send_json(talk, {"number": 1, **json.loads(request.body)}, "201 Created")


class Git:
    """Repositories below a directory over git's smart HTTP, through `git http-backend`.

    Args:
        root: where the bare repositories are.
    """

    def __init__(self, root: str) -> None:
        self._root = root

    def __call__(self, upstream: Upstream, talk: Conversation, request: Request) -> bool:
        """Run the CGI program (RFC 3875)."""
        talk.read_body(request)
        parts = urlsplit(request.path)
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": self._root, "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method, "PATH_INFO": parts.path, "QUERY_STRING": parts.query,
            "CONTENT_TYPE": request.header("content-type") or "", "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.header("content-encoding") or "", "REMOTE_USER": "someone",
            "GIT_PROTOCOL": request.header("git-protocol") or "", "GIT_CONFIG_NOSYSTEM": "1", "HOME": self._root,
        }  # fmt: skip
        out = subprocess.run(
            ["git", "http-backend"], input=request.body, env=env, capture_output=True, check=True
        ).stdout
        head, _, body = out.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        status = next((line[8:] for line in lines if line.startswith("Status: ")), "200 OK")
        talk.answer(body, status, "".join(f"{line}\r\n" for line in lines if not line.startswith("Status: ")))
        return True


class Index:
    """A package index: uploads as PyPI takes them, and the simple repository API (PEP 503)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def upload(self, upstream: Upstream, talk: Conversation, request: Request) -> bool:
        """POST /legacy/: a multipart form with the file in `content`."""
        talk.read_body(request)
        head = f"Content-Type: {request.header('content-type')}\r\n\r\n".encode()
        for part in BytesParser(policy=HTTP).parsebytes(head + request.body).iter_parts():
            name = part.get_filename()
            if name:
                content = part.get_payload(decode=True)
                assert isinstance(content, bytes)
                self.files[name] = content
        talk.answer(b"")
        return True

    def simple(self, upstream: Upstream, talk: Conversation, request: Request) -> bool:
        """GET /simple/NAME/ and /simple/files/FILE."""
        talk.read_body(request)
        name = request.path.rstrip("/").rpartition("/")[2]
        if name in self.files:
            talk.answer(self.files[name], headers="Content-Type: application/octet-stream\r\n")
        else:
            links = "".join(f'<a href="/simple/files/{each}">{each}</a>' for each in self.files)
            talk.answer(
                f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), headers="Content-Type: text/html\r\n"
            )
        return True


def wheel(directory: Path) -> Path:
    """A package with nothing in it (PEP 427)."""
    path = directory / "standin_package-1.0-py3-none-any.whl"
    info = "standin_package-1.0.dist-info"
    files = {
        "standin_package.py": "VALUE = 1\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: standin-package\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))
    return path
