"""The vault process's life: locks, limits, logins, confinement, full disks, and how it leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.store import keys
from terok_host.sidecars.store.store import Store
from terok_host.sidecars.vault import main as vault_main
from terok_host.sidecars.vault.keeper import Keeper
from terok_host.sidecars.vault.ledger import Ledger, Limit
from terok_host.supervisor import kernel, process
from tests.standins.behaviours import secret_of
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, auth, provider, read_all
from tests.unit.conftest import Authority

Make = Callable[..., Vault]


def test_a_locked_vault_says_how_to_unlock_it_and_goes_on_at_once(vault: Vault) -> None:
    token = vault.add("p")
    assert vault.get("/small", token).status == 200
    pid = vault.pid
    hidden = vault.layout.vault_key + ".away"
    os.rename(vault.layout.vault_key, hidden)
    vault.store.announce_lock()
    for _ in range(2):
        reply = vault.get("/small", token)
        assert (reply.status, reply.json()["reason"]) == (503, "locked")
        assert "terok vault unlock" in reply.json()["message"]
    os.rename(hidden, vault.layout.vault_key)
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
    used = len(os.listdir(f"/proc/{vault.pid}/fd"))
    resource.prlimit(vault.pid, resource.RLIMIT_NOFILE, (used + 6, used + 6))
    head = f"GET /small HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
    socks = [vault.raw() for _ in range(20)]
    for sock in socks:
        sock.close()
    socks = [vault.raw() for _ in range(10)]
    for sock in socks:
        sock.sendall(head)
        sock.close()
    assert vault.get("/small", token).body in (b"ok",)
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
    body = json.dumps({"type": "message", "usage": {"input_tokens": 90, "output_tokens": 10}}).encode()
    events = b'event: message_delta\ndata: {"usage": {"input_tokens": 5, "output_tokens": 15}}\n\n'
    upstream.documents = {"json": ("application/json", body, ""), "sse": ("text/event-stream", events, "")}
    assert vault.get("/document/json", token).body == body
    assert vault.get("/document/sse", token).body == events
    assert vault.audit()[0]["tokens"] == {"input": 90, "output": 10, "cached": 0}
    ledger = Ledger(vault.layout.vault_usage)
    deadline = time.monotonic() + 10
    while not (rows := ledger.rows()) or rows[0].requests < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (rows[0].scope, rows[0].container, rows[0].provider) == ("work", "box", "p")
    assert (rows[0].requests, rows[0].input_tokens, rows[0].output_tokens) == (2, 95, 25)
    ledger.set_limit(Limit("work", "day", None, 120))
    deadline = time.monotonic() + 10
    while (reply := vault.get("/small", token)).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (reply.status, reply.json()["reason"]) == (429, "usage-limit")
    assert int(reply.headers["Retry-After"]) > 0
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


# --- logins ---


class TokenServer:
    """A token endpoint with single-use refresh tokens, on the upstream."""

    def __init__(self, upstream: Upstream) -> None:
        self.count = 0
        self.refused = False
        self.valid = "refresh-token-number-0"
        self.upstream = upstream
        upstream.handlers["/oauth/token"] = self.handle

    def handle(self, upstream: Upstream, talk: Any, request: Any) -> bool:
        """Exchange the one valid refresh token."""
        talk.read_body(request)
        asked = json.loads(request.body)
        if self.refused or asked["refresh_token"] != self.valid:
            talk.answer(b'{"error": "invalid_grant"}', "400 Bad Request")
            return True
        self.count += 1
        self.valid = f"refresh-token-number-{self.count}"
        upstream.accepted = f"access-token-number-{self.count}".encode()
        fresh = {"access_token": upstream.accepted.decode(), "refresh_token": self.valid, "expires_in": 3600}
        talk.answer(json.dumps(fresh).encode(), headers="Content-Type: application/json\r\n")
        return True


@pytest.fixture
def tokens(upstream: Upstream) -> TokenServer:
    """The token endpoint."""
    return TokenServer(upstream)


@pytest.fixture
def login(make_vault: Make, upstream: Upstream) -> Callable[..., tuple[Vault, str]]:
    """A vault with a login that ends in so many seconds, and a phantom token for it."""

    def make(seconds: float, **changes: Any) -> tuple[Vault, str]:
        spec = {
            "url": f"https://localhost:{upstream.port}/oauth/token", "client_id": "c", "scopes": [], "format": "json",
            "margin": 300,
        }  # fmt: skip
        vault = make_vault(refresh=spec, **changes)
        expires = time.time() + seconds
        secret = {
            "access_token": "access-token-number-0",
            "refresh_token": "refresh-token-number-0",
            "expires_at": expires,
        }
        return vault, vault.add("p", json.dumps(secret), auth="oauth", expires_at=expires)

    return make


Login = Callable[..., tuple[Vault, str]]


def test_a_login_that_has_ended_is_refreshed_first(login: Login, tokens: TokenServer, upstream: Upstream) -> None:
    vault, token = login(-10)
    assert vault.get("/unauthorized", token).body == b"welcome"
    assert vault.get("/unauthorized", token).body == b"welcome"
    assert tokens.count == 1
    assert [secret_of(r) for r in upstream.seen if r.path == "/unauthorized"] == [b"access-token-number-1"] * 2


def test_a_login_is_refreshed_before_it_ends_without_waiting(
    login: Login, tokens: TokenServer, upstream: Upstream
) -> None:
    vault, token = login(60)
    assert vault.get("/small", token).status == 200
    assert secret_of(upstream.seen[0]) == b"access-token-number-0"
    deadline = time.monotonic() + 20
    while tokens.count == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while secret_of(upstream.seen[-1]) != b"access-token-number-1":
        assert time.monotonic() < deadline
        assert vault.get("/small", token).status == 200


def test_a_401_refreshes_once_and_sends_the_body_again(login: Login, tokens: TokenServer, upstream: Upstream) -> None:
    vault, token = login(7200)
    reply = vault.get("/unauthorized", token, "POST", b"the body")
    assert reply.body == b"welcome"
    assert [r.body for r in upstream.seen if r.path == "/unauthorized"] == [b"the body"] * 2
    upstream.accepted = b"nothing"
    assert vault.get("/unauthorized", token).status == 401


def test_a_login_that_cannot_be_refreshed_says_what_to_do(login: Login, tokens: TokenServer) -> None:
    tokens.refused = True
    vault, token = login(-10)
    reply = vault.get("/small", token)
    assert (reply.status, reply.json()["reason"]) == (401, "login")
    assert "terok" in reply.json()["allow"]
    assert vault.store.describe("credential", "work")[0].meta["refresh"]["state"] == "lost"


def test_requests_that_come_together_share_one_refresh(login: Login, tokens: TokenServer) -> None:
    vault, token = login(-10)
    vault.up()
    replies: list[int] = []
    threads = [
        threading.Thread(target=lambda: replies.append(vault.get("/unauthorized", token).status)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [200] * 6
    assert tokens.count == 1


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


# --- confinement ---


def test_the_process_gave_up_its_privileges(vault: Vault) -> None:
    assert vault.get("/small", vault.add("p")).status == 200
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{vault.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert {status[name].strip("0") for name in ("CapEff", "CapPrm", "CapInh")} == {""}


@pytest.fixture
def confined(make_vault: Make, tmp_path: Path) -> Iterator[Callable[[Callable[[], object]], str]]:
    """Runs a function in a child that is confined as the vault is; returns how it ended: `done` or the error's name."""
    vault = make_vault()
    vault.add("p")
    files = keys.key_files(vault.layout)

    def run(work: Callable[[], object]) -> str:
        read, write = os.pipe()

        def child() -> int:
            keys.prepare(files)
            store = Store.open(vault.layout.vault_db, read_only=True)
            keeper = Keeper(store, vault.layout.vault_routes, files, "box")
            keeper.look()
            assert vault_main.confine_vault(keeper, vault.layout.vault_routes, files) == kernel.landlock_abi()
            try:
                work()
                os.write(write, b"done")
            except OSError as error:
                os.write(write, type(error).__name__.encode())
            return 0

        pid = process.fork(child)
        os.waitpid(pid, 0)
        os.close(write)
        with open(read, "rb") as pipe:
            return pipe.read().decode()

    yield run


def test_it_cannot_read_ssh_keys_nor_run_a_program(
    confined: Callable[[Callable[[], object]], str], tmp_path: Path, vault: Vault
) -> None:
    key = tmp_path / ".ssh" / "id_ed25519"
    key.parent.mkdir()
    key.write_text("private")
    assert confined(lambda: key.read_text()) == "PermissionError"
    assert confined(lambda: os.listdir(Path.home())) == "PermissionError"
    assert confined(lambda: Path("/etc/passwd").read_text()) == "PermissionError"
    assert confined(lambda: Path("/proc/1/environ").read_bytes()) == "PermissionError"
    assert confined(lambda: os.execv("/bin/true", ["true"])) == "PermissionError"  # noqa: S606 - it must fail
    assert confined(lambda: (tmp_path / "new").write_text("x")) == "PermissionError"
    assert confined(lambda: Path(vault.layout.vault_db).open("r+b")) == "PermissionError"
    assert confined(lambda: Path(vault.layout.vault_key).unlink()) == "PermissionError"
    assert confined(lambda: Path("/etc/resolv.conf").read_text()) == "done"


@pytest.mark.skipif(kernel.landlock_abi() < 4, reason="TCP ports are confined from Landlock ABI 4 on")
def test_it_connects_to_the_ports_of_its_routes_only(
    confined: Callable[[Callable[[], object]], str], upstream: Upstream
) -> None:
    assert confined(lambda: socket.create_connection(("127.0.0.1", upstream.port)).close()) == "done"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert confined(lambda: socket.create_connection(("127.0.0.1", port)).close()) == "PermissionError"
    assert confined(lambda: socket.create_server(("127.0.0.1", 0)).close()) == "PermissionError"


def test_headers_of_a_route_are_merged(make_vault: Make, upstream: Upstream) -> None:
    oauth = {
        **auth("Authorization", "Bearer "),
        "headers": {"X-Extra": "1"},
        "merge": {"anthropic-beta": "oauth-2025-04-20"},
    }
    vault = make_vault(auth={"api-key": oauth}, headers={"X-All": "2"})
    assert vault.get("/", vault.add("p"), anthropic_beta="mine,oauth-2025-04-20", X_All="9").status == 200
    seen = upstream.seen[-1]
    assert seen.header("anthropic-beta") == "mine,oauth-2025-04-20"
    assert (seen.header("x-extra"), seen.header("x-all")) == ("1", "2")
