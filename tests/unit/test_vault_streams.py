"""Streams through the vault: event by event, both ways at once, large, slow, and bridged WebSockets."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.standins.upstream import Upstream
from tests.standins.vault import SECRET, Vault, wait_line

Make = Callable[..., Vault]


def test_events_arrive_one_by_one(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    client = vault.client()
    client.request("GET", "/events/3", headers={"Authorization": f"Bearer {token}"})
    answer = client.getresponse()
    for number in range(3):
        assert answer.readline() == b"event: tick\n"
        assert answer.readline() == b"data: %d\n" % number
        assert answer.readline() == b"\n"
        upstream.event("next").set()
    assert answer.read() == b""
    client.close()


def test_both_directions_at_once(vault: Vault) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        head = f"POST /mirror HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        reader = sock.makefile("rb")
        assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
        while reader.readline() != b"\r\n":
            pass
        for text in (b"one", b"three"):
            sock.sendall(b"%x\r\n%b\r\n" % (len(text), text))
            assert reader.readline() == b"%x\r\n" % len(text)
            assert reader.readline() == text + b"\r\n"
        sock.sendall(b"0\r\n\r\n")
        assert reader.readline() == b"0\r\n"
        reader.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_pass_whole(vault: Vault, chunked: bool) -> None:
    block = bytes(range(256)) * 256
    headers = {"Authorization": f"Bearer {vault.add('p')}"}
    client = vault.client(30)
    body = (block for _ in range(320))
    if not chunked:
        headers["Content-Length"] = str(320 * len(block))
    client.request("POST", "/", body=body, headers=headers, encode_chunked=chunked)
    reply = json.loads(client.getresponse().read())
    client.close()
    assert reply["size"] == 320 * len(block)
    assert reply["sha256"] == hashlib.sha256(block * 320).hexdigest()


def rss(vault: Vault) -> int:
    """Kilobytes in memory."""
    lines = Path(f"/proc/{vault.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_a_slow_reader_makes_the_upstream_wait(vault: Vault) -> None:
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    before = rss(vault)
    size = 64 << 20
    client = vault.client(30)
    client.request("GET", f"/big/{size}", headers={"Authorization": f"Bearer {token}"})
    answer = client.getresponse()
    assert len(answer.read(1 << 20)) == 1 << 20
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert rss(vault) - before < 8 << 10
        time.sleep(0.02)
    left = size - (1 << 20)
    while left:
        left -= len(answer.read(1 << 20))
    assert rss(vault) - before < 8 << 10
    client.close()


def test_a_slow_upstream_makes_the_client_wait(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    before = rss(vault)

    def wait(server: Upstream, talk: Any, request: Any) -> bool:
        server.event("read").wait(20)
        size = sum(len(piece) for piece in talk.body(request))
        talk.answer(str(size).encode())
        return True

    upstream.handlers["/wait"] = wait
    size = 64 << 20
    with vault.raw() as sock:
        sock.sendall(
            f"POST /wait HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        block, left = b"x" * (1 << 20), size
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                left -= sock.send(block)
        assert left > size // 2
        assert rss(vault) - before < 8 << 10
        upstream.event("read").set()
        sock.settimeout(20)
        while left:
            left -= sock.send(block[:left])
        assert sock.recv(1000).endswith(str(size).encode())


def test_trailers_of_a_request_go_no_further(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        head = f"POST /small HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        sock.sendall(head.encode() + b"3\r\nabc\r\n0\r\nAuthorization: Bearer evil\r\nX-Sum: 1\r\n\r\n")
        assert sock.recv(1000).endswith(b"ok")
    assert (upstream.seen[-1].body, upstream.seen[-1].trailers) == (b"abc", b"")


def test_a_web_socket_is_bridged(vault: Vault, upstream: Upstream) -> None:
    headers = {"Authorization": f"Bearer {vault.add('p')}"}
    vault.up()
    with connect(f"ws://127.0.0.1:{vault.port}/web-socket", additional_headers=headers) as socket_:
        for message in ("hello", b"\0" * 70_000, "x" * 300):
            socket_.send(message)
            assert socket_.recv(timeout=10) == message
    seen = upstream.seen[-1]
    assert seen.header("authorization") == f"Bearer {SECRET}"
    assert seen.header("upgrade") == "websocket"
    assert seen.header("sec-websocket-extensions") is None
    line = wait_line(vault, lambda each: each["path"] == "/web-socket")
    assert line["status"] == 101 and line["bytes_in"] >= 70_000
