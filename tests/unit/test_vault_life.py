"""The vault process's life: locks, limits, logins, confinement, full disks, and how it leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from terok_host.runtime.queue import reached
from terok_host.sidecars.vault.books.ledger import Ledger, Limit
from terok_host.supervisor.ground import process
from tests.lab.waiting import until
from tests.standins.authority import Authority
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, provider, read_all

Make = Callable[..., Vault]


def test_a_locked_vault_says_how_to_unlock_it_and_goes_on_at_once(vault: Vault) -> None:
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    pid = vault.pid
    vault.store.hold()  # `terok vault lock`
    for _ in range(2):
        reply = vault.get("/small", token)
        assert (reply.status, reply.json()["reason"]) == (503, "locked")
        assert "terok vault unlock" in reply.json()["message"]
    vault.store.release()
    assert vault.get("/small", token).status == 200
    assert vault.pid == pid
    assert "locked" in [line.get("reason") for line in vault.audit()]


# --- limits ---


def test_a_slow_head_is_refused(make_vault: Make) -> None:
    vault = make_vault(settings={"limits": {"HEAD_SECONDS": 0.3}})
    vault.add("p")
    with vault.raw() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost")
        began = time.monotonic()
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    sock.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        answer = read_all(sock)
        stop.set()
        thread.join()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 3


def test_an_idle_connection_is_closed(make_vault: Make) -> None:
    vault = make_vault(settings={"limits": {"HEAD_SECONDS": 0.2, "CLIENT_IDLE_SECONDS": 0.3}})
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(f"GET /small HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        assert read_all(sock).endswith(b"ok")
    with vault.raw() as sock:
        assert read_all(sock) == b""


def test_an_answer_that_stands_still_is_cut(make_vault: Make, upstream: Upstream) -> None:
    limits = {"BODY_IDLE_SECONDS": 0.3, "CLIENT_IDLE_SECONDS": 0.1, "HEAD_SECONDS": 0.1}
    vault = make_vault(settings={"limits": limits})
    reply = vault.get("/silent", vault.add("p"))
    upstream.event("speak").set()
    assert (reply.status, reply.json()["reason"]) == (504, "idle")


def test_an_oversize_head_is_refused(vault: Vault) -> None:
    vault.add("p")
    with vault.raw() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * (64 << 10))
        assert read_all(sock).startswith(b"HTTP/1.1 431 ")


def test_more_clients_than_allowed_wait_and_are_served(make_vault: Make) -> None:
    vault = make_vault(settings={"limits": {"CLIENTS_MAX": 4}})
    token = vault.add("p")
    head = f"GET /small HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
    held = [vault.raw() for _ in range(4)]
    for sock in held:
        sock.sendall(head)
        assert sock.recv(1000).endswith(b"ok")
    waiting = vault.raw()
    waiting.sendall(head)
    waiting.settimeout(0.2)
    with pytest.raises(TimeoutError):
        waiting.recv(1000)
    held.pop().close()
    waiting.settimeout(10)
    assert waiting.recv(1000).endswith(b"ok")
    for sock in (*held, waiting):
        sock.close()


def test_running_out_of_descriptors_does_not_end_the_service(vault: Vault) -> None:
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    soft, hard = resource.prlimit(vault.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(vault.pid, resource.RLIMIT_NOFILE, (3, hard))  # below what is open: nothing more can be
    head = f"GET /small HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
    socks = [vault.raw() for _ in range(10)]
    for sock in socks:
        sock.sendall(head)
    for sock in socks[:5]:
        sock.close()
    assert os.waitpid(vault.pid, os.WNOHANG) == (0, 0)
    resource.prlimit(vault.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for sock in socks[5:]:  # those that waited are served, and so is who comes now
        with sock:
            assert b"HTTP/1.1 200 OK" in sock.recv(4096)
    assert vault.get("/small", token).status == 200


def test_a_routes_rate(make_vault: Make, upstream: Upstream) -> None:
    vault = make_vault(rate={"per_minute": 3, "concurrent": 1})
    token = vault.add("p")
    running = vault.client()
    running.request("GET", "/silent", headers={"Authorization": f"Bearer {token}"})
    assert upstream.event("asked").wait(10)
    reply = vault.get("/small", token)
    assert (reply.status, reply.json()["reason"]) == (429, "concurrent")
    upstream.event("speak").set()
    assert running.getresponse().read() == b"late"
    running.close()
    assert vault.get("/small", token).status == 200
    assert vault.get("/small", token).status == 200
    reply = vault.get("/small", token)
    assert (reply.status, reply.json()["reason"]) == (429, "per-minute")
    assert 0 < int(reply.headers["Retry-After"]) <= 60


def test_usage_is_counted_and_limited(make_vault: Make, upstream: Upstream) -> None:
    vault = make_vault(usage="anthropic", settings={"limits": {"FLUSH_SECONDS": 0.05}})
    token = vault.add("p")
    message = {"type": "message", "model": "m-1", "usage": {"input_tokens": 90, "output_tokens": 10}}
    body = json.dumps(message).encode()
    events = b'event: message_delta\ndata: {"usage": {"input_tokens": 5, "output_tokens": 15}}\n\n'
    upstream.documents = {"json": ("application/json", body, ""), "sse": ("text/event-stream", events, "")}
    assert vault.get("/document/json", token).body == body
    assert vault.get("/document/sse", token).body == events
    assert vault.audit()[0]["tokens"] == {"input": 90, "output": 10, "cached": 0}
    assert vault.audit()[0]["model"] == "m-1"
    ledger = Ledger(vault.layout.vault_usage)
    rows = until(lambda: (now := ledger.rows()) and now[0].requests >= 2 and now, 10)
    assert (rows[0].scope, rows[0].container, rows[0].provider) == ("work", "box", "p")
    assert (rows[0].requests, rows[0].input_tokens, rows[0].output_tokens) == (2, 95, 25)
    assert [(row.model, row.input_tokens) for row in ledger.models()] == [("", 5), ("m-1", 90)]
    ledger.set_limit(Limit("work", "day", None, 120))
    reply = until(lambda: (now := vault.get("/small", token)).status != 200 and now, 10)
    assert (reply.status, reply.json()["reason"]) == (429, "usage-limit")
    assert int(reply.headers["Retry-After"]) > 0
    (waiting,) = reached.reached(vault.layout)
    reached.answer(vault.layout, waiting, allowed=True, by=None)
    until(lambda: vault.get("/small", token).status == 200, 10)  # the same process: it was not started again
    assert os.waitpid(vault.pid, os.WNOHANG) == (0, 0)
    ledger.close()


def test_an_unknown_limit_is_no_limit(make_vault: Make) -> None:
    vault = make_vault(settings={"limits": {"NO_SUCH": 1}})
    vault.up()
    assert vault.wait() != 0
    assert "NO_SUCH" in vault.log()


# --- the audit ---


def full(vault: Vault, *, really: bool) -> None:
    """Let the process write no file beyond what the audit holds now; or let it again."""
    size = max(os.stat(vault.bundle.audit).st_size, os.stat(vault.layout.vault_audit).st_size)
    limit = size + 10 if really else resource.RLIM_INFINITY
    hard = resource.prlimit(vault.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(vault.pid, resource.RLIMIT_FSIZE, (limit, hard))


def test_what_cannot_be_audited_is_not_served(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    full(vault, really=True)
    reply = vault.get("/small", token)
    assert (reply.status, reply.json()["reason"]) == (503, "audit")
    asked = len(upstream.seen)
    reply = vault.get("/small", token)
    assert (reply.status, reply.json()["reason"]) == (503, "audit")
    assert len(upstream.seen) == asked
    full(vault, really=False)
    assert vault.get("/small", token).status == 200


def test_an_operator_may_want_service_without_audit(make_vault: Make) -> None:
    vault = make_vault(settings={"audit_required": False})
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    full(vault, really=True)
    assert vault.get("/small", token).status == 200
    assert "audit" in vault.log()


# --- life ---


def test_it_leaves_when_idle_and_comes_back_on_the_next_connection(make_vault: Make) -> None:
    vault = make_vault(idle_seconds=1)
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    assert vault.wait() == 0
    client = socket.create_connection(("127.0.0.1", vault.port), timeout=10)
    client.sendall(f"GET /small HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
    vault.up()
    assert client.recv(1000).endswith(b"ok")
    client.close()


def test_an_open_connection_keeps_it(make_vault: Make) -> None:
    vault = make_vault(idle_seconds=1)
    token = vault.add("p")
    client = vault.client()
    for _ in range(3):
        client.request("GET", "/small", headers={"Authorization": f"Bearer {token}"})
        assert client.getresponse().read() == b"ok"
        fd = os.pidfd_open(vault.pid)
        assert not process.wait_gone(fd, 0.7)
        os.close(fd)
    client.close()
    assert vault.wait() == 0


def test_sigterm_ends_it_in_time_even_in_the_middle_of_an_answer(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    client = vault.client()
    client.request("GET", "/silent", headers={"Authorization": f"Bearer {token}"})
    assert upstream.event("asked").wait(10)
    code, seconds = vault.stop(signal.SIGTERM)
    upstream.event("speak").set()
    assert code == 0
    assert seconds < 0.3
    assert client.getresponse().status == 503
    client.close()
    assert vault.audit()[-1]["reason"] == "stopping"


def test_a_killed_one_is_replaced_behind_the_same_socket(vault: Vault) -> None:
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    vault.stop(signal.SIGKILL)
    assert vault.get("/small", token).status == 200


def test_new_routes_are_used_at_once(make_vault: Make, upstream: Upstream, authority: Authority) -> None:
    vault = make_vault()
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    pid = vault.pid
    url = f"https://localhost:{upstream.port}/base"
    vault.write_routes({"p": provider(url, ca_bundle=authority.file)})
    assert vault.get("/x", token).json()["path"] == "/base/x"
    Path(vault.layout.vault_routes).write_text("{broken")
    assert vault.get("/x", token).json()["path"] == "/base/x"
    assert vault.pid == pid


def test_routes_that_lead_elsewhere_restart_it(make_vault: Make, authority: Authority) -> None:
    vault = make_vault()
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    with Upstream(authority.context) as other:
        vault.write_routes({"p": provider(f"https://localhost:{other.port}", ca_bundle=authority.file)})
        reply = vault.get("/small", token)
        assert (reply.status, reply.json()["reason"]) == (503, "restart")
        assert reply.headers["Retry-After"] == "1"
        assert vault.wait() == 0
        assert vault.get("/small", token).status == 200
        assert other.seen


def test_the_client_goes_and_the_upstream_is_told(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    gone = threading.Event()

    def stream(server: Upstream, talk: Any, request: Any) -> bool:
        talk.read_body(request)
        talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while not gone.wait(0.01):
                talk.send(b"1\r\nx\r\n")
        except OSError:
            gone.set()
        return False

    upstream.handlers["/stream"] = stream
    client = vault.client()
    client.request("GET", "/stream", headers={"Authorization": f"Bearer {token}"})
    assert client.getresponse().read(3) == b"xxx"
    client.close()
    assert gone.wait(10)
