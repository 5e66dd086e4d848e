"""Refreshing logins: single-use tokens survive a crash at every point; one owner at a time; no secret in errors."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from terok_host.sidecars.store import keys
from terok_host.sidecars.store.credential import Credential, parse
from terok_host.sidecars.store.records import Item
from terok_host.sidecars.store.store import Store
from terok_host.sidecars.vault import refresh, refresh_http
from terok_host.sidecars.vault.refresh import Exchange, RefreshError
from terok_host.sidecars.vault.refresh_helper import Helper
from terok_host.sidecars.vault.refresh_slot import Slot
from terok_host.supervisor import process
from terok_host.supervisor.layout import Layout

# the token endpoint is a thread of the test; its children use nothing that the thread could hold locked
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

SPEC = {"url": "https://127.0.0.1:1/token", "client_id": "client", "scopes": ["one"], "format": "json", "margin": 300}


class TokenServer:
    """A token endpoint whose refresh tokens are single use; `hold` makes it wait before it answers."""

    def __init__(self, directory: Path) -> None:
        self.valid, self.count, self.requests = "refresh-0", 0, 0
        self.answer: Callable[[], tuple[int, bytes]] | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.asked = threading.Event()
        authority = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = server.exchange(json.loads(body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = False
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    running = TokenServer(tmp_path)
    yield running
    running.close()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "data"), str(tmp_path / "run"), str(tmp_path / "config"))
    keys.create_vault(made)
    with unlocked(made) as store:
        put(store)
    return made


def unlocked(layout: Layout) -> Store:
    store = Store.open(layout.vault_db)
    keys.ensure_unlocked(store, keys.key_files(layout))
    return store


def put(store: Store, expires_at: float = 1000.0, **meta: Any) -> None:
    login = Credential("oauth", "access-0", refresh_token="refresh-0", expires_at=expires_at)
    store.put("credential", "work", "anthropic", login.encode(), {"auth": "oauth", "expires_at": expires_at, **meta})


def get(store: Store) -> Item:
    found = store.get("credential", "work", "anthropic")
    assert found is not None
    return found


def provider(server: TokenServer) -> dict[str, Any]:
    return {"refresh": {**SPEC, "url": server.url}, "ca_bundle": server.ca_file}


def run(layout: Layout, server: TokenServer, *, slot: type[Slot] = Slot, stale: int | None = None) -> Item:
    with unlocked(layout) as store, slot(layout.vault_refresh, "work", "anthropic") as held:
        return refresh.refresh(store, held, provider(server), refresh_http.send, stale=stale, clock=time.time)


def ended(pid: int) -> int:
    """The exit code of a child, within 20 s; negative: the signal."""
    fd = process.pidfd(pid)
    try:
        assert process.wait_gone(fd, 20)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(fd)


def test_when_it_is_due(layout: Layout) -> None:
    with unlocked(layout) as store:
        entry = store.describe("credential")[0]
        assert [refresh.due(entry, now) for now in (699, 700, 5000)] == [False, True, True]
        assert refresh.needed(store, "work")
        assert not refresh.needed(store, "other")
        store.set_meta("credential", "work", "anthropic", {"auth": "api-key"})
        assert not refresh.due(store.describe("credential")[0], 5000)
        assert not refresh.needed(store, "work")


def test_the_request_has_what_the_standard_says() -> None:
    login = Credential("oauth", "a", refresh_token="r", scopes=("x", "y"))
    asked = refresh.request(login, SPEC)
    assert json.loads(asked.body) == {
        "grant_type": "refresh_token", "refresh_token": "r", "client_id": "client", "scope": "x y",
    }  # fmt: skip
    form = refresh.request(login, {**SPEC, "format": "form"})
    assert form.body == b"grant_type=refresh_token&refresh_token=r&client_id=client&scope=x+y"
    assert "refresh_token" not in repr(asked)
    with pytest.raises(RefreshError, match="without a refresh token"):
        refresh.request(Credential("oauth", "a"), SPEC)


def test_an_answer_without_new_refresh_token_keeps_the_old_one() -> None:
    old = Credential("oauth", "a", refresh_token="r", scopes=("x",), id_token="i")
    fresh = refresh.read_answer(old, 200, b'{"access_token": "b"}', 1000)
    assert fresh == Credential("oauth", "b", refresh_token="r", expires_at=4600, scopes=("x",), id_token="i")
    token = "e30.eyJleHAiOjQyfQ.x"  # {"exp": 42}
    assert refresh.read_answer(old, 200, json.dumps({"access_token": token}).encode(), 1).expires_at == 42


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{}", b'{"access_token": ""}', b'{"access_token": "a b"}',
    b'{"access_token": "a", "expires_in": "soon"}',
    b'{"access_token": "a\\r\\nX: y"}', b'{"access_token": "a", "refresh_token": "r\\n"}',
])  # fmt: skip
def test_answers_that_are_not_understood_are_refused(body: bytes) -> None:
    with pytest.raises(RefreshError):
        refresh.read_answer(Credential("oauth", "a", refresh_token="r"), 200, body, 0)


def test_a_refresh_gives_new_tokens_and_clears_the_failure(layout: Layout, server: TokenServer) -> None:
    with unlocked(layout) as store:
        put(store, refresh={"state": "failed", "reason": "x", "next": 0, "failures": 1})
    item = run(layout, server)
    login = parse(item)
    assert (login.secret, login.refresh_token) == ("access-1", "refresh-1")
    assert item.meta["expires_at"] == pytest.approx(time.time() + 3600, abs=60)
    assert "refresh" not in item.meta
    again = run(layout, server)
    assert again.version == item.version
    assert server.requests == 1


def test_a_401_forces_one_refresh_but_not_an_endless_row(layout: Layout, server: TokenServer) -> None:
    with unlocked(layout) as store:
        put(store, expires_at=time.time() + 9999)
        version = get(store).version
    item = run(layout, server, stale=version)
    assert item.version == version + 1
    assert run(layout, server, stale=version).version == version + 1
    with pytest.raises(RefreshError, match="less than a minute ago"):
        run(layout, server, stale=version + 1)
    assert server.requests == 1


def test_a_dead_login_is_told_and_not_asked_again(layout: Layout, server: TokenServer) -> None:
    server.valid = "another"
    for _ in range(2):
        with pytest.raises(RefreshError, match="login has ended") as caught:
            run(layout, server)
        assert caught.value.fix == "terok auth claude --scope work --replace"
        assert "refresh-0" not in str(caught.value)
    assert server.requests == 1
    with Store.open(layout.vault_db) as store:
        entry = store.describe("credential")[0]
        assert entry.meta["refresh"]["state"] == "lost"
        assert "invalid_grant" in entry.meta["refresh"]["reason"]


def test_a_broken_endpoint_is_left_alone_for_a_while(layout: Layout, server: TokenServer) -> None:
    secret = b'{"error": {"type": "overloaded_error", "message": "you sent refresh-0"}}'
    server.answer = lambda: (529, secret)
    with pytest.raises(RefreshError, match=r"529 overloaded_error") as caught:
        run(layout, server)
    assert "refresh-0" not in str(caught.value)
    with pytest.raises(RefreshError):
        run(layout, server)
    assert server.requests == 1
    with Store.open(layout.vault_db) as store:
        entry = store.describe("credential")[0]
        assert not refresh.blocked(entry, time.time() + 31)
        assert refresh.blocked(entry, time.time())


def test_an_endpoint_that_gives_no_answer_is_a_failure_with_a_reason(layout: Layout, server: TokenServer) -> None:
    dead = {"refresh": SPEC, "ca_bundle": server.ca_file}
    with unlocked(layout) as store, Slot(layout.vault_refresh, "work", "anthropic") as slot:
        with pytest.raises(RefreshError, match="gave no answer: ConnectError"):
            refresh.refresh(store, slot, dead, refresh_http.send, clock=time.time)
        assert get(store).meta["refresh"]["failures"] == 1


def test_another_certificate_is_not_trusted(layout: Layout, server: TokenServer, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    with pytest.raises(RefreshError, match="gave no answer"):
        refresh_http.send(Exchange(server.url, {}, b"{}", str(stranger)))
    assert server.requests == 0


def test_a_huge_answer_is_cut(server: TokenServer) -> None:
    server.answer = lambda: (200, b"x" * (1 << 20))
    with pytest.raises(RefreshError, match="more than 256 KiB"):
        refresh_http.send(Exchange(server.url, {}, b"{}", server.ca_file))


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DiesBeforeSending(Slot):
    def mark_sent(self) -> None:
        super().mark_sent()
        die()


class DiesBeforeStoring(Slot):
    def keep(self, store: Store, item: Item, status: int, body: bytes) -> None:
        super().keep(store, item, status, body)
        die()


class DiesAfterStoring(Slot):
    clear = die


class TornByTheCrash(Slot):
    def keep(self, store: Store, item: Item, status: int, body: bytes) -> None:
        super().keep(store, item, status, body)
        os.pwrite(self._fd, b"\0" * 64, 60)
        die()


@pytest.mark.parametrize("slot", [DiesBeforeSending, DiesBeforeStoring, DiesAfterStoring])
def test_a_kill_at_any_point_does_not_lose_the_login(layout: Layout, server: TokenServer, slot: type[Slot]) -> None:
    assert ended(process.fork(lambda: bool(run(layout, server, slot=slot)))) == -signal.SIGKILL
    login = parse(run(layout, server))
    assert (login.secret, login.refresh_token) == ("access-1", "refresh-1")
    assert server.requests == 1
    # and the next exchange, with the token that was saved, works too
    with unlocked(layout) as store:
        item = get(store)
        meta = {**item.meta, "expires_at": 0, "refreshed_at": 0}
        store.put(item.kind, item.scope, item.name, item.secret, meta)
    assert parse(run(layout, server)).secret == "access-2"


def test_a_torn_answer_is_not_taken(layout: Layout, server: TokenServer) -> None:
    assert ended(process.fork(lambda: bool(run(layout, server, slot=TornByTheCrash)))) == -signal.SIGKILL
    with pytest.raises(RefreshError, match="login has ended"):
        run(layout, server)


def test_no_room_for_the_answer_means_that_nothing_is_sent(layout: Layout, server: TokenServer) -> None:
    def child() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, 100 << 10))
        run(layout, server)
        return 0

    assert ended(process.fork(child)) == 70
    assert server.requests == 0
    assert parse(run(layout, server)).secret == "access-1"


def test_many_processes_make_one_exchange(layout: Layout, server: TokenServer) -> None:
    children = [process.fork(lambda: 0 if parse(run(layout, server)).secret == "access-1" else 1) for _ in range(6)]
    assert [ended(pid) for pid in children] == [0] * 6
    assert server.requests == 1


def test_the_slot_is_sealed_and_private(layout: Layout, server: TokenServer) -> None:
    assert ended(process.fork(lambda: bool(run(layout, server, slot=DiesBeforeStoring)))) == -signal.SIGKILL
    (path,) = Path(layout.vault_refresh).iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    assert b"access-1" not in content
    assert b"refresh-1" not in content
    run(layout, server)
    assert path.read_bytes() == b""


@pytest.fixture
def helper(layout: Layout, server: TokenServer) -> Iterator[Helper]:
    write_routes(layout, server)
    started = start_helper(layout)
    yield started
    started.close()
    assert ended(started.pid) == 0


def write_routes(layout: Layout, server: TokenServer) -> None:
    from terok_host.sidecars.vault import roster

    path = Path(layout.roster) / "test.yml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "providers:\n  anthropic:\n    extends: anthropic\n    allow_private: true\n"
        f"    ca_bundle: {server.ca_file}\n    refresh: {{url: {server.url}, client_id: x}}\n"
    )
    roster.write_routes(layout)


def start_helper(layout: Layout) -> Helper:
    return Helper.start(
        store=layout.vault_db,
        routes=layout.vault_routes,
        key_files=keys.key_files(layout),
        directory=layout.vault_refresh,
    )


def receive(helper: Helper) -> Any:
    waiting = select.poll()
    waiting.register(helper.fileno(), select.POLLIN)
    assert waiting.poll(20_000)
    answers = helper.receive()
    assert answers is not None
    return answers[0]


def test_the_helper_refreshes_and_reports(layout: Layout, server: TokenServer, helper: Helper) -> None:
    with Store.open(layout.vault_db, read_only=True) as store:
        before = store.describe("credential")[0].version
        assert helper.ask("work", "anthropic")
        answer = receive(helper)
        assert (answer.version, answer.error) == (before + 1, "")
        assert helper.ask("work", "github")
        assert "no login" in receive(helper).error
        assert helper.ask("work", "nothing")
        assert "no provider" in receive(helper).error
    assert helper.receive() == []


def test_the_helper_reports_a_locked_vault(layout: Layout, server: TokenServer, helper: Helper) -> None:
    os.unlink(layout.vault_key)
    assert helper.ask("work", "anthropic")
    answer = receive(helper)
    assert answer.fix == "terok vault unlock"
    assert server.requests == 0


def test_an_exchange_outlives_the_container(layout: Layout, server: TokenServer) -> None:
    write_routes(layout, server)
    server.hold.clear()
    ready, told = os.pipe()

    def vault() -> int:
        helper = start_helper(layout)
        helper.ask("work", "anthropic")
        os.write(told, helper.pid.to_bytes(4, "big"))
        signal.pause()
        return 0

    pid = process.fork(vault)
    helper_pid = int.from_bytes(os.read(ready, 4), "big")
    os.close(ready)
    os.close(told)
    gone = process.pidfd(helper_pid)
    assert server.asked.wait(20)
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    assert process.wait_gone(gone, 20)
    os.close(gone)
    server.hold.set()
    # the lock is free when the exchange has come to its end
    with Slot(layout.vault_refresh, "work", "anthropic"), unlocked(layout) as store:
        assert parse(get(store)).secret == "access-1"
    assert server.requests == 1
