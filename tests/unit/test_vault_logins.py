"""Logins: refreshed before they end and on a 401, once for everybody who waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.waiting import until
from tests.standins.behaviours import secret_of
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault

Make = Callable[..., Vault]


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
    until(lambda: tokens.count, 20)

    def fresh() -> bool:
        assert vault.get("/small", token).status == 200
        return secret_of(upstream.seen[-1]) == b"access-token-number-1"

    until(fresh, 20)


def test_a_401_refreshes_once_and_sends_the_body_again(login: Login, tokens: TokenServer, upstream: Upstream) -> None:
    vault, token = login(7200)
    reply = vault.get("/unauthorized", token, "POST", b"the body")
    assert reply.body == b"welcome"
    assert [r.body for r in upstream.seen if r.path == "/unauthorized"] == [b"the body"] * 2
    upstream.accepted = b"nothing"
    assert vault.get("/unauthorized", token).status == 401


def test_a_path_that_always_answers_401_costs_little(login: Login, tokens: TokenServer, upstream: Upstream) -> None:
    vault, token = login(7200)
    assert vault.get("/unauthorized", token).body == b"welcome"
    upstream.accepted = b"nothing"
    for _ in range(5):
        assert vault.get("/unauthorized", token).status == 401
    helper = int(Path(f"/proc/{vault.pid}/task/{vault.pid}/children").read_text())
    until(lambda: not Path(f"/proc/{helper}/task/{helper}/children").read_text())  # the exchange's process has ended
    before = time_of_children(helper)
    for _ in range(20):
        assert vault.get("/unauthorized", token).status == 401
    assert tokens.count == 1
    assert time_of_children(helper) == before


def time_of_children(pid: int) -> int:
    """Clock ticks of a process's children that have ended (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[13]) + int(fields[14])


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
