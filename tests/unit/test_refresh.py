"""Refreshing logins: single-use tokens survive a crash at every point; one owner at a time; no secret in errors."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from terok_host.sidecars.login import exchange, refresh
from terok_host.sidecars.login.refresh import Exchange, RefreshError
from terok_host.sidecars.login.slot import Slot
from terok_host.sidecars.roster import model
from terok_host.sidecars.store.credential import Credential, parse
from terok_host.sidecars.store.records import Item
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground import process
from terok_host.supervisor.ground.layout import Layout
from tests.standins.authority import Authority
from tests.standins.logins import TokenServer, get, put
from tests.standins.stores import ended, unlocked

# the token endpoint is a thread of the test; its children use nothing that the thread could hold locked
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

SPEC = model.Refresh("https://127.0.0.1:1/token", "client", ("one",))


def provider(endpoint: TokenServer) -> model.Provider:
    return model.Provider(refresh=SPEC._replace(url=endpoint.url), ca_bundle=endpoint.ca_file)


def run(logged_in: Layout, endpoint: TokenServer, *, slot: type[Slot] = Slot, stale: int | None = None) -> Item:
    with unlocked(logged_in) as store, slot(logged_in.vault_refresh, "work", "anthropic") as held:
        return refresh.refresh(store, held, provider(endpoint), exchange.send, stale=stale, clock=time.time)


def test_when_it_is_due(logged_in: Layout) -> None:
    with unlocked(logged_in) as store:
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
    form = refresh.request(login, SPEC._replace(format="form"))
    assert form.body == b"grant_type=refresh_token&refresh_token=r&client_id=client&scope=x+y"
    assert "refresh_token" not in repr(asked)
    with pytest.raises(RefreshError, match="without a refresh token"):
        refresh.request(Credential("oauth", "a"), SPEC)


def test_an_answer_without_new_refresh_token_keeps_the_old_one() -> None:
    old = Credential("oauth", "a", refresh_token="r", scopes=("x",), id_token="i")
    fresh, problem = refresh.read_answer(old, 200, b'{"access_token": "b"}', 1000)
    assert not problem
    assert fresh == Credential("oauth", "b", refresh_token="r", expires_at=4600, scopes=("x",), id_token="i")
    token = "e30.eyJleHAiOjQyfQ.x"  # {"exp": 42}
    assert refresh.read_answer(old, 200, json.dumps({"access_token": token}).encode(), 1).credential.expires_at == 42


DEEP = b"[" * 100_000


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", DEEP, b'{"access_token": ' + DEEP])
def test_answers_that_are_no_object_are_refused(body: bytes) -> None:
    for status in (200, 400):
        with pytest.raises(RefreshError):
            refresh.read_answer(Credential("oauth", "a", refresh_token="r"), status, body, 0)


@pytest.mark.parametrize("access", ["null", "7", "true", "[]", '""', '"a b"', '"a\\r\\nX: y"', '"None\\u0000"'])
def test_a_new_refresh_token_is_kept_though_the_access_token_is_wrong(access: str) -> None:
    old = Credential("oauth", "a", refresh_token="r", expires_at=5)
    body = f'{{"access_token": {access}, "refresh_token": "rotated"}}'.encode()
    reading = refresh.read_answer(old, 200, body, 1000)
    assert reading.problem
    assert reading.credential == old._replace(refresh_token="rotated")


@pytest.mark.parametrize(
    ("more", "expires"),
    [
        ('"expires_in": "soon"', 4600),
        ('"expires_in": null', 4600),
        ('"expires_in": 1e999', 4600),
        ('"expires_in": -5', 4600),
        ('"expires_in": true', 4600),
        ('"expires_in": "60"', 1060),
        ('"expires_in": 60, "scope": 7, "id_token": []', 1060),
        ('"expires_in": 60, "refresh_token": null', 1060),
        ('"expires_in": 60, "refresh_token": "r\\n"', 1060),
    ],
)
def test_what_is_wrong_beside_good_tokens_costs_nothing(more: str, expires: float) -> None:
    old = Credential("oauth", "a", refresh_token="r", scopes=("x",), id_token="i")
    reading = refresh.read_answer(old, 200, f'{{"access_token": "b", {more}}}'.encode(), 1000)
    assert reading == (old._replace(secret="b", expires_at=expires), "")


def test_a_partly_wrong_answer_leaves_a_login_that_can_be_refreshed(logged_in: Layout, endpoint: TokenServer) -> None:
    endpoint.answer = lambda: (200, b'{"access_token": null, "refresh_token": "refresh-0b", "expires_in": 60}')
    with pytest.raises(RefreshError, match="no access token"):
        run(logged_in, endpoint)
    with unlocked(logged_in) as store:
        item = get(store)
        assert parse(item).refresh_token == "refresh-0b" and parse(item).secret != "None"
        assert item.meta["refresh"]["state"] == "failed"
        store.set_meta(item.kind, item.scope, item.name, {**item.meta, "refresh": None})
    endpoint.answer, endpoint.valid = None, "refresh-0b"
    assert parse(run(logged_in, endpoint)).secret == "access-1"


def test_a_deep_answer_does_not_wedge_the_login(logged_in: Layout, endpoint: TokenServer) -> None:
    endpoint.answer = lambda: (200, DEEP)
    with pytest.raises(RefreshError):
        run(logged_in, endpoint)
    with unlocked(logged_in) as store:
        item = get(store)
        store.set_meta(item.kind, item.scope, item.name, {**item.meta, "refresh": None})
    endpoint.answer = None
    assert parse(run(logged_in, endpoint)).secret == "access-1"


@pytest.mark.parametrize(
    "meta",
    [
        {"refreshed_at": 1e12},
        {"refreshed_at": "never"},
        {"refresh": {"state": "failed", "at": 1e12, "next": 1e12 + 30, "reason": "x"}},
        {"refresh": {"state": "failed", "at": 0, "next": 1e12, "reason": "x"}},
        {"refresh": {"state": "failed", "at": None, "next": [], "failures": "many"}},
        {"refresh": "broken", "forced": "often"},
    ],
)
def test_a_stored_time_in_the_future_blocks_nothing(
    logged_in: Layout, endpoint: TokenServer, meta: dict[str, Any]
) -> None:
    with unlocked(logged_in) as store:
        put(store, **meta)
    assert parse(run(logged_in, endpoint)).secret == "access-1"


def test_a_path_that_always_answers_401_forces_fewer_and_fewer_exchanges(
    logged_in: Layout, endpoint: TokenServer
) -> None:
    now, forced = time.time(), 0
    with unlocked(logged_in) as store:
        put(store, expires_at=now + 9e6)
        for minute in range(24 * 60):
            item = get(store)
            if not refresh.blocked(item, now + 60 * minute, forced=True):
                body = b'{"access_token": "a%d", "expires_in": 9000000}' % minute
                refresh.apply(store, item, 200, body, now + 60 * minute, forced=True)
                forced += 1
        assert forced <= 12
        item = refresh.apply(store, get(store), 200, b'{"access_token": "b"}', now + 9e6)
        assert "forced" not in item.meta


def test_a_refresh_gives_new_tokens_and_clears_the_failure(logged_in: Layout, endpoint: TokenServer) -> None:
    with unlocked(logged_in) as store:
        put(store, refresh={"state": "failed", "reason": "x", "next": 0, "failures": 1})
    item = run(logged_in, endpoint)
    login = parse(item)
    assert (login.secret, login.refresh_token) == ("access-1", "refresh-1")
    assert item.meta["expires_at"] == pytest.approx(time.time() + 3600, abs=60)
    assert "refresh" not in item.meta
    again = run(logged_in, endpoint)
    assert again.version == item.version
    assert endpoint.requests == 1


def test_a_401_forces_one_refresh_but_not_an_endless_row(logged_in: Layout, endpoint: TokenServer) -> None:
    with unlocked(logged_in) as store:
        put(store, expires_at=time.time() + 9999)
        version = get(store).version
    item = run(logged_in, endpoint, stale=version)
    assert item.version == version + 1
    assert run(logged_in, endpoint, stale=version).version == version + 1
    with pytest.raises(RefreshError, match="less than a minute ago"):
        run(logged_in, endpoint, stale=version + 1)
    assert endpoint.requests == 1


def test_a_dead_login_is_told_and_not_asked_again(logged_in: Layout, endpoint: TokenServer) -> None:
    endpoint.valid = "another"
    for _ in range(2):
        with pytest.raises(RefreshError, match="login has ended") as caught:
            run(logged_in, endpoint)
        assert caught.value.fix == "terok auth claude --scope work --import --replace"
        assert "refresh-0" not in str(caught.value)
    assert endpoint.requests == 1
    with Store.open(logged_in.vault_db) as store:
        entry = store.describe("credential")[0]
        assert entry.meta["refresh"]["state"] == "lost"
        assert "invalid_grant" in entry.meta["refresh"]["reason"]


def test_a_broken_endpoint_is_left_alone_for_a_while(logged_in: Layout, endpoint: TokenServer) -> None:
    secret = b'{"error": {"type": "overloaded_error", "message": "you sent refresh-0"}}'
    endpoint.answer = lambda: (529, secret)
    with pytest.raises(RefreshError, match=r"529 overloaded_error") as caught:
        run(logged_in, endpoint)
    assert "refresh-0" not in str(caught.value)
    with pytest.raises(RefreshError):
        run(logged_in, endpoint)
    assert endpoint.requests == 1
    with Store.open(logged_in.vault_db) as store:
        entry = store.describe("credential")[0]
        assert not refresh.blocked(entry, time.time() + 31)
        assert refresh.blocked(entry, time.time())


def test_an_endpoint_that_gives_no_answer_is_a_failure_with_a_reason(logged_in: Layout, endpoint: TokenServer) -> None:
    dead = model.Provider(refresh=SPEC, ca_bundle=endpoint.ca_file)
    with unlocked(logged_in) as store, Slot(logged_in.vault_refresh, "work", "anthropic") as slot:
        with pytest.raises(RefreshError, match="gave no answer: ConnectError"):
            refresh.refresh(store, slot, dead, exchange.send, clock=time.time)
        assert get(store).meta["refresh"]["failures"] == 1


def test_another_certificate_is_not_trusted(logged_in: Layout, endpoint: TokenServer, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    with pytest.raises(RefreshError, match="gave no answer"):
        exchange.send(Exchange(endpoint.url, {}, b"{}", str(stranger)))
    assert endpoint.requests == 0


def test_a_huge_answer_is_cut(endpoint: TokenServer) -> None:
    endpoint.answer = lambda: (200, b"x" * (1 << 20))
    with pytest.raises(RefreshError, match="more than 256 KiB"):
        exchange.send(Exchange(endpoint.url, {}, b"{}", endpoint.ca_file))


def test_an_endpoint_that_never_finishes_is_given_up(endpoint: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(exchange, "ANSWER_SECONDS", 0.2)
    stop = threading.Event()
    endpoint.answer = lambda: (200, b"x" if stop.wait(20) else b"")
    with pytest.raises(RefreshError, match="gave no answer"):
        exchange.send(Exchange(endpoint.url, {}, b"{}", endpoint.ca_file))
    stop.set()


def test_a_slow_drip_does_not_hold_the_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(exchange, "ANSWER_SECONDS", 0.3)
    authority = Authority(tmp_path / "drip.pem", "127.0.0.1")
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        with authority.context.wrap_socket(listener.accept()[0], server_side=True) as client:
            client.recv(65536)
            try:
                while not stop.wait(0.05):
                    client.send(b"H")
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/token"
        # the first line of the answer never ends
        with pytest.raises(RefreshError, match="gave no answer: (TimeoutError|ReadTimeout)"):
            exchange.send(Exchange(url, {}, b"{}", str(tmp_path / "drip.pem")))
        stop.set()
        thread.join()


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
def test_a_kill_at_any_point_does_not_lose_the_login(
    logged_in: Layout, endpoint: TokenServer, slot: type[Slot]
) -> None:
    assert ended(process.fork(lambda: bool(run(logged_in, endpoint, slot=slot)))) == -signal.SIGKILL
    login = parse(run(logged_in, endpoint))
    assert (login.secret, login.refresh_token) == ("access-1", "refresh-1")
    assert endpoint.requests == 1
    # and the next exchange, with the token that was saved, works too
    with unlocked(logged_in) as store:
        item = get(store)
        meta = {**item.meta, "expires_at": 0, "refreshed_at": 0}
        store.put(item.kind, item.scope, item.name, item.secret, meta)
    assert parse(run(logged_in, endpoint)).secret == "access-2"


def test_a_torn_answer_is_not_taken(logged_in: Layout, endpoint: TokenServer) -> None:
    assert ended(process.fork(lambda: bool(run(logged_in, endpoint, slot=TornByTheCrash)))) == -signal.SIGKILL
    with pytest.raises(RefreshError, match="login has ended"):
        run(logged_in, endpoint)


def test_no_room_for_the_answer_means_that_nothing_is_sent(logged_in: Layout, endpoint: TokenServer) -> None:
    def child() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, 100 << 10))
        run(logged_in, endpoint)
        return 0

    assert ended(process.fork(child)) == 70
    assert endpoint.requests == 0
    assert parse(run(logged_in, endpoint)).secret == "access-1"


def test_many_processes_make_one_exchange(logged_in: Layout, endpoint: TokenServer) -> None:
    children = [
        process.fork(lambda: 0 if parse(run(logged_in, endpoint)).secret == "access-1" else 1) for _ in range(6)
    ]
    assert [ended(pid) for pid in children] == [0] * 6
    assert endpoint.requests == 1


def test_the_slot_is_sealed_and_private(logged_in: Layout, endpoint: TokenServer) -> None:
    assert ended(process.fork(lambda: bool(run(logged_in, endpoint, slot=DiesBeforeStoring)))) == -signal.SIGKILL
    (path,) = Path(logged_in.vault_refresh).iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    assert b"access-1" not in content
    assert b"refresh-1" not in content
    run(logged_in, endpoint)
    assert path.read_bytes() == b""
