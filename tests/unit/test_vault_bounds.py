"""What an impatient or greedy container costs, and what clients are told about trying again."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.kit.codec import parse_request
from terok_host.sidecars.kit.refusal import Refusal
from terok_host.sidecars.vault import limits
from terok_host.sidecars.vault.client import error_answer
from terok_host.sidecars.vault.decide import Plan
from terok_host.sidecars.vault.relay import request as request_side
from terok_host.sidecars.vault.relay.request import RequestSide
from terok_host.sidecars.vault.routes import Route
from terok_host.sidecars.vault.tokens import Grant
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, provider, wait_line


def ask(path: str, token: str, method: str = "GET", minor: int = 1, more: str = "") -> bytes:
    """A request's head."""
    return f"{method} {path} HTTP/1.{minor}\r\nHost: h\r\nAuthorization: Bearer {token}\r\n{more}\r\n".encode()


def gone(vault: Vault, path: str) -> dict[str, Any]:
    return wait_line(vault, lambda line: line.get("path") == path and line.get("reason") == "client-gone")


@pytest.mark.parametrize("minor", [0, 1])
def test_a_client_that_closes_while_it_waits_is_noticed(vault: Vault, upstream: Upstream, minor: int) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(ask("/silent", token, minor=minor))
        assert upstream.event("asked").wait(10)
    assert gone(vault, "/silent")["status"] == 499
    assert vault.get("/small", token).status == 200


def test_a_client_that_only_ends_its_side_gets_its_answer(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(ask("/silent", token))
        assert upstream.event("asked").wait(10)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        upstream.event("speak").set()
        received = b""
        while not received.endswith(b"late"):
            data = sock.recv(4096)
            assert data
            received += data
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_refused_head_request_has_no_body(vault: Vault) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(ask("/a/../b", token, "HEAD"))
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400") and answer.endswith(b"\r\n\r\n")
        assert int(re.search(rb"Content-Length: (\d+)", answer)[1]) > 0  # type: ignore[index]  # it is there
        sock.sendall(ask("/small", token))
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")


def resident(pid: int, name: str = "VmRSS") -> int:
    """Bytes that a process has resident (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]  # the kernel always prints it


def test_interim_answers_wait_for_a_client_that_does_not_read(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    before = resident(vault.pid)
    with vault.raw() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(ask("/many-hints/60000", token))
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert vault.get("/small", token).status == 200
            assert resident(vault.pid, "VmHWM") - before < 16 << 20


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_connection_is_not_used_again_before_stray_bytes_can_show(
    vault: Vault, upstream: Upstream, method: str, status: int
) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(ask(f"/stray/{status}", token, method))
        assert sock.recv(65536).startswith(f"HTTP/1.1 {status}".encode())
        sock.sendall(ask("/silent", token))
        assert upstream.event("asked").wait(10)  # on another connection
        upstream.event("answered").set()
        upstream.event("speak").set()
        assert sock.recv(65536).endswith(b"late")


def side(number: int) -> RequestSide:
    """The request side of a POST with a body of a mebibyte."""
    head = b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n" % number
    route = Route("p", provider("https://up.test"), "api-key")
    return RequestSide(Plan(parse_request(head), Grant("work", "p"), route, route.targets[0], b"/", b""))


def test_bodies_that_are_kept_for_a_second_time_have_a_bound() -> None:
    sides = [side(number) for number in range(40)]
    for each in sides:
        each.take(bytes(1 << 20))
    assert sum(each.repeatable for each in sides) == limits.REPLAYS_MAX >> 20
    assert request_side.kept.size == limits.REPLAYS_MAX
    for each in sides:
        each.forget()
        each.forget()
    assert request_side.kept.size == 0
    last = side(41)
    last.take(bytes(1 << 20))
    assert last.repeatable
    last.forget()


def test_what_waits_for_many_clients_that_do_not_read_has_a_bound(make_vault: Callable[..., Vault]) -> None:
    vault = make_vault(settings={"limits": {"QUEUES_MAX": 1 << 20}})
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    before = resident(vault.pid)
    with ExitStack() as stack:
        for _ in range(30):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", vault.port))
            sock.sendall(ask("/big/20000000", token))
            # its head: the answer has begun, and more of it follows than the kernel takes
            assert sock.recv(16).startswith(b"HTTP/1.1 200")
        assert vault.get("/small", token).status == 200
        assert resident(vault.pid, "VmHWM") - before < 9 << 20


def headers_of(refusal: Refusal) -> dict[str, str]:
    head, _, body = error_answer(refusal, close=False).partition(b"\r\n\r\n")
    assert json.loads(body)["reason"] == refusal.rule
    return dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])


@pytest.mark.parametrize(
    ("refusal", "retry", "after"),
    [
        (Refusal(401, "unknown-token", "x"), "false", None),
        (Refusal(403, "rule:no-keys", "x"), "false", None),
        (Refusal(413, "body-max", "x"), "false", None),
        (Refusal(502, "echo", "x"), "false", None),
        (Refusal(429, "usage-limit", "x", retry_after=86400), "false", "86400"),
        (Refusal(429, "per-minute", "x", retry_after=20), None, "20"),
        (Refusal(408, "slow-head", "x"), None, None),
        (Refusal(502, "upstream-lost", "x"), None, None),
        (Refusal(503, "locked", "x"), None, "30"),
        (Refusal(503, "restart", "x", retry_after=1), None, "1"),
    ],
)
def test_clients_are_told_whether_to_try_again(refusal: Refusal, retry: str | None, after: str | None) -> None:
    headers = headers_of(refusal)
    assert (headers.get("X-Should-Retry"), headers.get("Retry-After")) == (retry, after)
