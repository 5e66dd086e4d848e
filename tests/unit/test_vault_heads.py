"""Heads that come again byte for byte on a kept connection: what is remembered of them, and for how long."""

from __future__ import annotations

import http.client
from collections.abc import Callable

from terok_host.sidecars.kit import codec, limits
from terok_host.sidecars.kit.codec import parse_request, read_answer
from terok_host.sidecars.vault.decide import Plan
from terok_host.sidecars.vault.heads import Heads
from terok_host.sidecars.vault.routes import Route
from terok_host.sidecars.vault.tokens import Grant
from tests.standins.upstream import Upstream
from tests.standins.vault import SECRET, Vault, provider, read_all

HEAD = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


def again(client: http.client.HTTPConnection, token: str, body: bytes | None = None) -> int:
    """The same request as before; the status of its answer."""
    method = "GET" if body is None else "POST"
    client.request(method, "/small", body=body, headers={"Authorization": f"Bearer {token}"})
    answer = client.getresponse()
    answer.read()
    return answer.status


def test_a_revoked_token_counts_with_the_next_request(vault: Vault) -> None:
    token, client = vault.add("p"), vault.client()
    assert [again(client, token) for _ in range(3)] == [200, 200, 200]
    vault.store.revoke("box")
    assert again(client, token) == 401
    client.close()


def test_a_rotated_credential_counts_with_the_next_request(vault: Vault, upstream: Upstream) -> None:
    token, client = vault.add("p"), vault.client()
    assert [again(client, token) for _ in range(3)] == [200, 200, 200]
    vault.store.put("credential", "work", "p", b"another-secret-of-p", {"auth": "api-key"})
    assert again(client, token) == 200
    sent = [each.header("authorization") for each in upstream.seen]
    assert sent == [f"Bearer {SECRET}"] * 3 + ["Bearer another-secret-of-p"]
    client.close()


def test_a_changed_rule_counts_with_the_next_request(vault: Vault, upstream: Upstream, authority: object) -> None:
    token, client = vault.add("p"), vault.client()
    assert [again(client, token) for _ in range(3)] == [200, 200, 200]
    url = f"https://localhost:{upstream.port}"
    denied = [{"name": "none", "action": "deny", "methods": ["*"], "paths": ["/**"]}]
    vault.write_routes({"p": provider(url, ca_bundle=authority.file, rules=denied)})  # type: ignore[attr-defined]  # conftest's Authority
    assert again(client, token) == 403
    vault.write_routes({"p": provider(url, ca_bundle=authority.file)})  # type: ignore[attr-defined]  # conftest's Authority
    assert again(client, token) == 200
    client.close()


def test_a_rate_counts_heads_that_come_again(make_vault: Callable[..., Vault]) -> None:
    vault = make_vault(rate={"per_minute": 2, "concurrent": None})
    token, client = vault.add("p"), vault.client()
    assert [again(client, token) for _ in range(4)] == [200, 200, 429, 429]
    assert [line["status"] for line in vault.audit()] == [200, 200, 429, 429]
    client.close()


def test_bodies_of_equal_heads_are_their_own(vault: Vault, upstream: Upstream) -> None:
    token, client = vault.add("p"), vault.client()
    for body in (b"one", b"two", b"six"):
        assert again(client, token, body) == 200
    assert [line["bytes_in"] for line in vault.audit()] == [3, 3, 3]
    client.close()


def plan(number: int) -> Plan:
    """A plan for a head that no other has."""
    request = parse_request(HEAD % number)
    route = Route("p", provider("https://up.test"), "api-key")
    return Plan(request, Grant("work", "p"), route, route.targets[0], b"/", b"")


def test_few_and_short_heads_are_kept() -> None:
    heads = Heads()
    first = plan(0)
    heads.keep(HEAD % 0, first)
    assert heads.find(HEAD % 0) is first
    for number in range(1, limits.HEADS_KEPT + 1):
        heads.keep(HEAD % number, plan(number))
    assert heads.find(HEAD % 0) is None
    assert heads.find(HEAD % limits.HEADS_KEPT) is not None
    long = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"a" * limits.HEAD_KEPT_MAX)
    heads.keep(long, first)
    assert heads.find(long) is None
    heads.forget()
    assert heads.find(HEAD % limits.HEADS_KEPT) is None


def test_a_refused_head_is_refused_again(vault: Vault) -> None:
    for _ in range(2):
        with vault.raw() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b" 400 " in read_all(sock).partition(b"\r\n")[0]


def test_an_answer_is_remembered_with_its_method() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    for _ in range(2):
        assert (read_answer(head, b"GET").length, read_answer(head, b"HEAD").length) == (5, 0)
    for number in range(2 * limits.HEADS_KEPT):
        read_answer(b"HTTP/1.1 200 OK\r\nX-Id: %d\r\nContent-Length: 5\r\n\r\n" % number, b"GET")
    assert len(codec._ANSWERS) <= limits.HEADS_KEPT
