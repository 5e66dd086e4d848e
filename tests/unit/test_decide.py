"""Token, provider, route: what a request is allowed, as pure decisions."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

import pytest

from terok_host.sidecars.kit.codec import parse_answer, parse_request
from terok_host.sidecars.kit.refusal import Refusal
from terok_host.sidecars.store.credential import Credential
from terok_host.sidecars.vault import headers
from terok_host.sidecars.vault.books.rates import Rates
from terok_host.sidecars.vault.decide import Plan, decide
from terok_host.sidecars.vault.headers import answer_lines, merge_list, readable_codings, request_lines
from terok_host.sidecars.vault.inject import Auth, Loaded
from terok_host.sidecars.vault.routes import Route, endpoint_of, pattern
from terok_host.sidecars.vault.tokens import Grant, Places
from terok_host.supervisor.ground.errors import TerokError
from tests.standins.vault import auth, provider

GRANT = Grant("work", "p")
PLACES = Places(headers.CLIENT_AUTH - headers.COOKIES, frozenset((b"key",)))


def ask(first: bytes = b"GET /v1/x", route: Route | None = None, **fields: str) -> Plan | Refusal:
    """Decide about a request with these headers; the token `good` is p's, `other` is q's."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    request = parse_request(first + b" HTTP/1.1\r\nHost: h\r\n" + lines.encode() + b"\r\n")
    known = {sha256(b"good").digest(): GRANT, sha256(b"other").digest(): Grant("work", "q")}
    made = route or Route("p", provider("https://up.test"), "api-key")
    return decide(request, PLACES, known.get, lambda grant: made)


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "fields",
    [
        {"Authorization": "Bearer good"},
        {"authorization": "bearer good"},
        {"Authorization": "token good"},
        {"Authorization": "good"},
        {"Authorization": basic("x-access-token:good")},
        {"Authorization": basic("good:x-oauth-basic")},
        {"Authorization": basic("good:")},
        {"Authorization": basic("__token__:good")},
        {"Proxy_Authorization": "Bearer good"},
        {"x_api_key": "good"},
        {"X_Goog_Api_Key": "good"},
        {"PRIVATE_TOKEN": "good"},
        {"x_api_key": "good", "Authorization": "Bearer good"},
    ],
)
def test_the_token_is_found_wherever_clients_put_it(fields: dict[str, Any]) -> None:
    plan = ask(**fields)
    assert isinstance(plan, Plan)
    assert (plan.grant.scope, plan.route.name, plan.path) == ("work", "p", b"/v1/x")


def test_the_token_is_found_in_the_query_and_taken_out() -> None:
    plan = ask(b"GET /v1/x?a=1&key=good&b=%2F")
    assert isinstance(plan, Plan)
    assert plan.path == b"/v1/x?a=1&b=%2F"


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "no-token"),
        ({"Authorization": ""}, "no-token"),
        ({"Authorization": "Bearer bad"}, "unknown-token"),
        ({"Authorization": "Basic !!!"}, "no-token"),
        ({"Cookie": "token=good"}, "no-token"),
        ({"Authorization": "Bearer good", "x_api_key": "other"}, "two-tokens"),
    ],
)
def test_no_token_no_service(fields: dict[str, Any], rule: str) -> None:
    refusal = ask(**fields)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.rule) == (401, rule)
    assert refusal.why and refusal.allow


@pytest.mark.parametrize(
    "path",
    [
        b"/a/../b", b"/..", b"/a/%2e%2e/b", b"/a/.%2E/b", b"/a/./b", b"/%2e", b"/a%2f..%2fb", b"/a/..;x/b",
        b"/a/..%5cb", b"/a%00", b"/a%0d%0ab", b"/a%zz", b"/a%2",
        b"/a%%41", b"/a%252Fb", b"/a%C0%AFb", b"/a%7f", b"/a%ff", b"/a%2F.", b"//..", b"/a/.%2e%3Bx",
    ],
)  # fmt: skip
def test_paths_that_mean_another_path_are_refused(path: bytes) -> None:
    refusal = ask(b"GET " + path, Authorization="Bearer good")
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.rule) == (400, "path-form")


@pytest.mark.parametrize("path", [b"/group%2Fproject", b"/a..b/c...d", b"/.well-known/x", b"/a;b=c", b"/%C3%A4"])
def test_percent_encoding_is_kept(path: bytes) -> None:
    plan = ask(b"GET " + path, Authorization="Bearer good")
    assert isinstance(plan, Plan)
    assert plan.path == path


def route(**changes: Any) -> Route:
    return Route("p", provider("https://up.test/base", **changes), "api-key")


RULES = [
    {"name": "no-admin", "action": "deny", "methods": ["*"], "paths": ["/v1/admin/**"]},
    {"name": "read", "action": "allow", "methods": ["GET", "HEAD"], "paths": ["/v1/**"]},
    {"name": "send", "action": "allow", "methods": ["POST"], "paths": ["/v1/*/messages"]},
]


@pytest.mark.parametrize(
    ("first", "rule"),
    [
        (b"GET /v1/x/y", None),
        (b"POST /v1/a/messages", None),
        (b"POST /v1/a/b/messages", "rule:default"),
        (b"POST /v1/messages", "rule:default"),
        (b"DELETE /v1/x", "rule:default"),
        (b"GET /v2/x", "rule:default"),
        (b"GET /v1/admin/keys", "rule:no-admin"),
        (b"PUT /v1/x", "rule:default"),
    ],
)
def test_rules_decide_by_method_and_path(first: bytes, rule: str | None) -> None:
    found = ask(first, route(rules=RULES), Authorization="Bearer good")
    if rule is None:
        assert isinstance(found, Plan)
        assert found.path.startswith(b"/base/v1/")
    else:
        assert isinstance(found, Refusal)
        assert (found.status, found.rule) == (403, rule)
        assert rule.removeprefix("rule:") in found.why


def test_several_upstreams_by_prefix_and_host() -> None:
    def upstream(url: str, prefix: str, **changes: Any) -> dict[str, Any]:
        return {"url": url, "prefix": prefix, "host": None, "strip": False, "auth": None, "auth_as": None, **changes}

    made = route(
        upstreams=[
            upstream("https://chat.test/back", "/backend-api/", strip=True),
            upstream("https://uploads.test", "/", host="uploads.h"),
            upstream("https://never.test", "/", auth=["oauth"]),
            upstream("https://api.test", "/v1/"),
        ]
    )
    for first, host, origin, path in (
        (b"GET /backend-api/x", "h", b"chat.test", b"/back/x"),
        (b"GET /v1/x", "h", b"api.test", b"/v1/x"),
        (b"GET /v1/x", "uploads.h:80", b"uploads.test", b"/v1/x"),
    ):
        request = parse_request(first + b" HTTP/1.1\r\nAuthorization: good\r\nHost: " + host.encode() + b"\r\n\r\n")
        plan = decide(request, PLACES, {sha256(b"good").digest(): GRANT}.get, lambda grant: made)
        assert isinstance(plan, Plan)
        assert (plan.target.origin, plan.path) == (origin, path)
    refusal = ask(b"GET /other", made, Authorization="Bearer good")
    assert isinstance(refusal, Refusal) and refusal.rule == "upstream"


def test_bodies_and_switches_that_the_route_does_not_allow() -> None:
    refusal = ask(b"POST /x", route(body_max=10), Authorization="Bearer good", Content_Length="11")
    assert isinstance(refusal, Refusal) and (refusal.status, refusal.rule) == (413, "body-max")
    assert isinstance(ask(b"POST /x", route(body_max=10), Authorization="Bearer good", Content_Length="10"), Plan)
    fields: dict[str, Any] = {"Authorization": "Bearer good", "Connection": "Upgrade", "Upgrade": "websocket"}
    assert isinstance(ask(**fields), Plan)
    refusal = ask(b"GET /x", route(websocket=False), **fields)
    assert isinstance(refusal, Refusal) and refusal.rule == "upgrade"
    refusal = ask(**{**fields, "Upgrade": "h2c"})
    assert isinstance(refusal, Refusal) and refusal.rule == "upgrade"


def test_patterns() -> None:
    assert pattern("/v1/*/x.y") == rb"/v1/[^/]*/x\.y"
    assert pattern("/**") == rb"/.*"


@pytest.mark.parametrize("url", ["ftp://x", "https://", "https://u:p@x", "https://x/?q", "https://x:y/", "http://x"])
def test_upstreams_are_https_urls(url: str) -> None:
    with pytest.raises(TerokError):
        endpoint_of(url, ca="", allow_private=False)


def test_rates() -> None:
    plan = ask(route=route(rate={"per_minute": 2, "concurrent": 1}), Authorization="Bearer good")
    assert isinstance(plan, Plan)
    rates = Rates()
    assert rates.take(plan, 0.0) is None
    refusal = rates.take(plan, 1.0)
    assert refusal is not None and (refusal.status, refusal.rule) == (429, "concurrent")
    rates.leave(plan)
    assert rates.take(plan, 2.0) is None
    rates.leave(plan)
    refusal = rates.take(plan, 30.0)
    assert refusal is not None and (refusal.rule, refusal.retry_after) == ("per-minute", 30)
    assert rates.take(plan, 60.5) is None


# --- headers ---


def test_what_crosses_to_the_upstream() -> None:
    request = parse_request(
        b"POST /x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\nx-api-key: good\r\nCookie: a=b\r\nVia: x\r\n"
        b"Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x\r\n"
        b"Accept-Encoding: gzip, br;q=1.0, zstd\r\nanthropic-beta: a,b\r\nX-Private: t\r\nContent-Length: 0\r\n"
        b"Accept: */*\r\nUser-Agent: me\r\nSec-WebSocket-Extensions: permessage-deflate\r\nUser-Agent: twice\r\n\r\n"
    )
    way = auth("x-api-key", "")
    sent = Auth(way, {"User-Agent": "ours"}, {"Anthropic-Beta": "b,c", "More": "d"})
    loaded = Loaded(Credential("api-key", "real"), 1, [b"real"])
    lines = request_lines(request, frozenset((b"x-private",)), sent) + loaded.lines(sent)
    assert lines.decode().splitlines() == [
        "Accept-Encoding: gzip",
        "anthropic-beta: a,b,c",
        "Accept: */*",
        "More: d",
        "User-Agent: ours",
        "x-api-key: real",
    ]


def test_what_crosses_to_the_client() -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nSet-Cookie: a=b\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nAlt-Svc: h3\r\nContent-Type: a/b\r\nRetry-After: 5\r\n\r\n"
    )
    assert answer_lines(parse_answer(head, b"GET")) == b"Content-Type: a/b\r\nRetry-After: 5\r\n"


def test_lists() -> None:
    assert merge_list(b"a, b", b"b,c") == b"a,b,c"
    assert merge_list(b"", b"c") == b"c"
    assert readable_codings(b"br, gzip;q=0.5, deflate , *") == b"gzip;q=0.5, deflate"
    assert readable_codings(b"br") == b"identity"
