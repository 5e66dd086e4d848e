"""The real vault process on real sockets, against a TLS upstream that behaves and misbehaves."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.vault.books import journal
from tests.standins.upstream import Upstream
from tests.standins.vault import SECRET, Vault, auth, read_all, wait_line

Make = Callable[..., Vault]


def test_the_phantom_is_swapped_for_the_secret(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    reply = vault.get("/group%2Fproject?a=%2F&b=c", token, X_Custom="1", Cookie="a=b")
    assert reply.status == 200
    seen = upstream.seen[-1]
    assert seen.path == "/group%2Fproject?a=%2F&b=c"
    assert seen.header("authorization") == f"Bearer {SECRET}"
    assert seen.header("host") == f"localhost:{upstream.port}"
    assert seen.header("x-custom") == "1"
    assert seen.header("cookie") is None
    assert token not in str(seen.headers)
    assert SECRET not in vault.log() + Path(vault.bundle.audit).read_text() + Path(vault.layout.vault_audit).read_text()


def test_over_the_unix_socket_too(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    client = vault.unix()
    for _ in range(3):
        client.request("GET", "/small", headers={"Authorization": f"Bearer {token}"})
        assert client.getresponse().read() == b"ok"
    client.close()
    assert upstream.connections == 1


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ({"header": "x-api-key", "prefix": ""}, {"x-api-key": "{}"}, ("x-api-key", SECRET)),
        ({"header": "PRIVATE-TOKEN", "prefix": ""}, {"PRIVATE-TOKEN": "{}"}, ("private-token", SECRET)),
        ({"header": "x-goog-api-key", "prefix": ""}, {"x-goog-api-key": "{}"}, ("x-goog-api-key", SECRET)),
        (
            {"header": "Authorization", "prefix": "token "},
            {"Authorization": "token {}"},
            ("authorization", f"token {SECRET}"),
        ),
    ],
)
def test_every_way_to_send_a_secret(
    make_vault: Make, upstream: Upstream, header: dict[str, str], value: dict[str, str], expected: tuple[str, str]
) -> None:
    vault = make_vault(auth={"api-key": auth(header["header"], header["prefix"])})
    token = vault.add("p")
    client = vault.client()
    client.request("GET", "/", headers={name: text.format(token) for name, text in value.items()})
    assert client.getresponse().status == 200
    client.close()
    assert upstream.seen[-1].header(expected[0]) == expected[1]


def test_basic(make_vault: Make, upstream: Upstream) -> None:
    vault = make_vault()
    token = vault.add("p", auth="basic")
    sent = base64.b64encode(f"__token__:{token}".encode()).decode()
    client = vault.client()
    client.request("GET", "/", headers={"Authorization": f"Basic {sent}"})
    assert client.getresponse().status == 200
    client.close()
    scheme, _, value = (upstream.seen[-1].header("authorization") or "").partition(" ")
    assert (scheme, base64.b64decode(value).decode()) == ("Basic", f"someone:{SECRET}")


def test_tokens_that_are_not_good_here(vault: Vault, upstream: Upstream) -> None:
    good = vault.add("p")
    foreign = vault.token("p", container="another")
    for token, rule in (
        ("", "no-token"),
        ("nonsense", "unknown-token"),
        (foreign, "unknown-token"),
        (SECRET, "unknown-token"),
    ):
        reply = vault.get("/", token)
        assert (reply.status, reply.json()["reason"]) == (401, rule)
        assert "WWW-Authenticate" in reply.headers
        assert vault.audit()[-1]["reason"] == rule
        assert vault.audit()[-1]["verdict"] == "refused"
    assert vault.get("/", good).status == 200
    vault.store.revoke("box")
    assert vault.get("/", good).status == 401
    assert len(upstream.seen) == 1


def test_a_scope_gets_its_own_credential(vault: Vault, upstream: Upstream) -> None:
    one, two = vault.add("p", "secret-number-one", scope="one"), vault.add("p", "secret-number-two", scope="two")
    for token, secret in ((one, "one"), (two, "two"), (one, "one")):
        assert vault.get("/", token).status == 200
        assert upstream.seen[-1].header("authorization") == f"Bearer secret-number-{secret}"
    vault.store.put("credential", "one", "p", b"secret-number-three", {"auth": "api-key"})
    assert vault.get("/", one).status == 200
    assert upstream.seen[-1].header("authorization") == "Bearer secret-number-three"


def test_what_no_rule_allows_is_refused_with_the_rule(make_vault: Make, upstream: Upstream) -> None:
    vault = make_vault(
        rules=[{"name": "read", "action": "allow", "methods": ["GET"], "paths": ["/v1/**"]}], body_max=100
    )
    token = vault.add("p")
    assert vault.get("/v1/x", token).status == 200
    for method, path in (("POST", "/v1/x"), ("GET", "/v2"), ("GET", "/v1/../v2")):
        reply = vault.get(path, token, method)
        assert reply.status in (400, 403)
        assert reply.json()["reason"] in ("rule:default", "path-form")
        assert reply.json()["allow"]
    assert len(upstream.seen) == 1


def test_no_credential_and_no_route(vault: Vault) -> None:
    reply = vault.get("/", vault.token("p"))
    assert (reply.status, reply.json()["reason"]) == (403, "no-credential")
    assert "terok vault add work p" in reply.json()["message"]
    reply = vault.get("/", vault.token("q"))
    assert (reply.status, reply.json()["reason"]) == (403, "no-route")


def test_headers_of_a_route_are_merged(make_vault: Make, upstream: Upstream) -> None:
    oauth = auth("Authorization", "Bearer ")._replace(
        headers={"X-Extra": "1"}, merge={"anthropic-beta": "oauth-2025-04-20"}
    )
    vault = make_vault(auth={"api-key": oauth}, headers={"X-All": "2"})
    assert vault.get("/", vault.add("p"), anthropic_beta="mine,oauth-2025-04-20", X_All="9").status == 200
    seen = upstream.seen[-1]
    assert seen.header("anthropic-beta") == "mine,oauth-2025-04-20"
    assert (seen.header("x-extra"), seen.header("x-all")) == ("1", "2")


# --- upstreams that are difficult ---


def test_trailers_and_other_endings(vault: Vault) -> None:
    token = vault.add("p")
    for path, body in (
        ("/trailers", b"hello"),
        ("/until-close", b"until the end"),
        ("/half-close", b"half"),
        ("/drip", b"slow"),
    ):
        reply = vault.get(path, token)
        assert (reply.status, reply.body) == (200, body)
    with vault.raw() as sock:
        sock.sendall(
            f"GET /trailers HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nConnection: close\r\n\r\n".encode()
        )
        assert read_all(sock).endswith(b"5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n")


@pytest.mark.parametrize("path", ["/cut-body", "/cut-chunks", "/reset-body"])
def test_a_part_is_never_taken_for_the_whole(vault: Vault, upstream: Upstream, path: str) -> None:
    token = vault.add("p")
    client = vault.client()
    client.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = client.getresponse()
    assert answer.status == 200
    upstream.event("reset").set()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    client.close()
    assert wait_line(vault, lambda line: line["path"] == path)["reason"] == "upstream-lost"


def test_no_answer_is_an_error(vault: Vault) -> None:
    reply = vault.get("/nothing", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (502, "upstream-lost")


def test_100_continue_comes_from_the_upstream(vault: Vault) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        head = f"POST /go-on HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        sock.sendall(f"{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"hello")
        assert sock.recv(1000).endswith(b"got 5")


def test_a_final_answer_may_come_before_the_body(vault: Vault) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        head = f"POST /no-thanks HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 50000000\r\n\r\n"
        sock.sendall(head.encode() + b"x" * 100_000)
        assert b"413 Content Too Large" in read_all(sock)


def test_an_answer_that_a_reset_follows_is_not_lost(vault: Vault) -> None:
    token = vault.add("p")
    for _ in range(20):
        with vault.raw() as sock:
            head = f"POST /slam HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 50000000\r\n\r\n"
            try:
                sock.sendall(head.encode() + b"x" * 1_000_000)
            except OSError:
                pass  # the vault has answered and closed
            assert b"413 Content Too Large" in read_all(sock)


def test_early_hints_are_relayed(vault: Vault) -> None:
    token = vault.add("p")
    for version, hinted in (("1.1", True), ("1.0", False)):
        with vault.raw() as sock:
            head = f"GET /early-hints HTTP/{version}\r\nHost: x\r\nAuthorization: {token}\r\nConnection: close\r\n\r\n"
            sock.sendall(head.encode())
            answer = read_all(sock)
            assert (b"HTTP/1.1 103 Early Hints\r\nLink:" in answer) is hinted
            assert answer.endswith(b"hinted")


def test_early_hints_do_not_hand_the_credential_back(vault: Vault) -> None:
    answer = vault.get("/leaking-hints", vault.add("p"))
    assert (answer.status, answer.headers["X-Terok-Reason"]) == (502, "echo")
    assert SECRET.encode() not in answer.body + repr(answer.headers).encode()


def test_a_refusal_closes_when_the_client_asked_for_that(vault: Vault) -> None:
    token = vault.add("p")
    for path, given in (("/leaking-hints", token), ("/echo", "guessed")):
        with vault.raw() as sock:
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {given}\r\nConnection: close\r\n\r\n"
            sock.sendall(head.encode())
            assert b"X-Terok-Reason: " in read_all(sock)


def test_an_old_client_gets_no_chunks(vault: Vault) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(f"GET /trailers HTTP/1.0\r\nAuthorization: {token}\r\n\r\n".encode())
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
        assert body == b"hello"
        assert b"chunked" not in head


def test_redirects_are_handed_on(vault: Vault, upstream: Upstream) -> None:
    reply = vault.get("/redirect", vault.add("p"))
    assert reply.status == 302
    assert reply.headers["Location"].endswith("/small")
    assert len(upstream.seen) == 1


def test_cookies_stay_out(vault: Vault) -> None:
    assert "Set-Cookie" not in vault.get("/cookie", vault.add("p")).headers


def test_head_and_its_length(vault: Vault) -> None:
    reply = vault.get("/x", vault.add("p"), "HEAD")
    assert (reply.status, reply.headers["Content-Length"], reply.body) == (200, "4711", b"")


def test_a_dead_kept_connection_is_tried_once_more(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    dying = threading.Event()

    def die_once(server: Upstream, talk: Any, request: Any) -> bool:
        """Ends a kept connection when the second request comes on it."""
        talk.read_body(request)
        if not dying.is_set() and len(server.seen) == 2:
            dying.set()
            return False
        talk.answer(b"alive")
        return True

    upstream.handlers["/die"] = die_once
    assert vault.get("/die", token).body == b"alive"
    assert vault.get("/die", token).body == b"alive"
    assert dying.is_set() and len(upstream.seen) == 3


def test_a_post_is_not_sent_twice_unless_it_has_a_key(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    seen: list[str] = []

    def die_second(server: Upstream, talk: Any, request: Any) -> bool:
        talk.read_body(request)
        seen.append(request.header("idempotency-key") or "")
        if (
            request.connection == upstream.connections
            and len([r for r in server.seen if r.connection == request.connection]) == 2
        ):
            return False
        talk.answer(b"alive")
        return True

    upstream.handlers["/post"] = die_second
    assert vault.get("/post", token, "POST", b"1").status == 200
    assert vault.get("/post", token, "POST", b"2").status == 502
    assert vault.get("/post", token, "POST", b"3").status == 200
    assert vault.get("/post", token, "POST", b"4", Idempotency_Key="k").status == 200
    assert seen == ["", "", "", "k", "k"]


# --- no request can be read as two ---


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "X: a\nTransfer-Encoding: chunked\r\n\r\n",
        "X: a\r\n folded\r\n\r\n",
        "Content-Length: 3\r\n\r\nabcGET /second HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_ambiguous_requests_are_refused_and_the_connection_closed(vault: Vault, upstream: Upstream, lines: str) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(f"POST /small HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{lines}".encode())
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer
    assert vault.audit()[-1]["verdict"] == "refused"
    assert not [request for request in upstream.seen if request.path != "/small"]
    assert not upstream.seen or not upstream.seen[0].body


def test_bytes_behind_a_running_request_close_the_connection(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    head = f"GET /silent HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
    with vault.raw() as sock:
        sock.sendall(head)
        assert upstream.event("asked").wait(10)
        sock.sendall(head)
        answer = read_all(sock)
        upstream.event("speak").set()
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1
    assert len(upstream.seen) == 1


def test_a_kept_connection_carries_request_after_request(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    client = vault.client()
    for number in range(20):
        client.request("POST", f"/x/{number}", body=b"y" * number, headers={"Authorization": f"Bearer {token}"})
        assert json.loads(client.getresponse().read())["size"] == number
    client.close()
    assert upstream.connections == 1


# --- the books ---


def test_each_request_is_one_line_and_the_chain_holds(vault: Vault) -> None:
    token = vault.add("p")
    vault.get('/a"b?secret=1', token, "POST", b"12345")
    vault.get("/small", "bad")
    for lines in (vault.audit(), vault.ledger()):
        first, second = lines
        assert (first["container"], first["scope"], first["provider"]) == ("box", "work", "p")
        assert (first["method"], first["path"], first["status"], first["bytes_in"]) == ("POST", '/a"b', 200, 5)
        assert first["bytes_out"] > 0 and first["ms"] >= 0 and first["time"].endswith("Z")
        assert second["reason"] == "unknown-token"
    assert journal.verify(vault.layout.vault_audit) == (2, "")
