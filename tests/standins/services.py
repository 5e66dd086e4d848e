"""Stand-ins for the services that agents use, as handlers of `upstream.Upstream`: enough for their real clients."""

from __future__ import annotations

import json
import os
import subprocess
from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.standins.upstream import Conversation, Request, Upstream

WORDS = ("one ", "two ", "three")


def _json(talk: Conversation, document: object, status: str = "200 OK") -> bool:
    talk.answer(json.dumps(document).encode(), status, "Content-Type: application/json\r\n")
    return True


def _events(talk: Conversation, events: list[tuple[str, object]]) -> bool:
    talk.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for name, document in events:
        data = document if isinstance(document, str) else json.dumps(document)
        text = (f"event: {name}\n" if name else "") + f"data: {data}\n\n"
        talk.send(b"%x\r\n%b\r\n" % (len(text), text.encode()))
    talk.send(b"0\r\n\r\n")
    return True


def anthropic(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """POST /v1/messages, streamed or not."""
    talk.read_body(request)
    if not json.loads(request.body).get("stream"):
        content = [{"type": "text", "text": "".join(WORDS)}]
        usage = {"input_tokens": 12, "output_tokens": 3}
        return _json(talk, {**_message(), "content": content, "stop_reason": "end_turn", "usage": usage})
    start = {**_message(), "content": [], "stop_reason": None, "usage": {"input_tokens": 12, "output_tokens": 1}}
    block = {"type": "text", "text": ""}
    events: list[tuple[str, object]] = [
        ("message_start", {"type": "message_start", "message": start}),
        ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}),
    ]
    for word in WORDS:
        delta = {"type": "text_delta", "text": word}
        events.append(("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}))
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    return _events(
        talk,
        [
            *events,
            ("content_block_stop", {"type": "content_block_stop", "index": 0}),
            ("message_delta", {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 3}}),
            ("message_stop", {"type": "message_stop"}),
        ],
    )


def _message() -> dict[str, object]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "stand-in", "stop_sequence": None}


def openai(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """POST /v1/chat/completions, streamed or not."""
    talk.read_body(request)
    base = {"id": "c1", "created": 1, "model": "stand-in"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    if not json.loads(request.body).get("stream"):
        message = {"role": "assistant", "content": "".join(WORDS)}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        return _json(talk, {**base, "object": "chat.completion", "choices": choices, "usage": usage})
    chunk = {**base, "object": "chat.completion.chunk"}
    events: list[tuple[str, object]] = [
        ("", {**chunk, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}) for word in WORDS
    ]
    return _events(talk, [*events, ("", {**chunk, "choices": [], "usage": usage}), ("", "[DONE]")])


def github_user(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """GET /user."""
    talk.read_body(request)
    return _json(talk, {"login": "octocat", "id": 1})


def github_issues(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """POST /repos/o/r/issues."""
    talk.read_body(request)
    return _json(talk, {"number": 1, **json.loads(request.body)}, "201 Created")


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
