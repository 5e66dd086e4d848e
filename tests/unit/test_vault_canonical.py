"""Rules judge the canonical form of exactly what is sent: no other spelling of a denied path gets through."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.kit.codec import parse_request
from terok_host.sidecars.kit.refusal import Refusal
from terok_host.sidecars.vault import headers
from terok_host.sidecars.vault.canonical import canonical, readings
from terok_host.sidecars.vault.decide import Plan, decide
from terok_host.sidecars.vault.routes import Route
from terok_host.sidecars.vault.tokens import Grant, Places
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, provider

DENY = [
    {"name": "no-keys", "action": "deny", "methods": ["POST"], "paths": ["/user/keys", "/repos/*/*/hooks"]},
    {"name": "no-deletion", "action": "deny", "methods": ["DELETE"], "paths": ["/repos/*/*"]},
    {"name": "any", "action": "allow", "methods": ["*"], "paths": ["/**"]},
]
ALLOW = [{"name": "mine", "action": "allow", "methods": ["*"], "paths": ["/repos/me/project/**", "/v1/*"]}]


def upstream_of(url: str, prefix: str, **changes: Any) -> dict[str, Any]:
    return {"url": url, "prefix": prefix, "host": None, "strip": False, "auth": None, "auth_as": None, **changes}


def ask(first: str, rules: list[dict[str, Any]], *lines: str, **changes: Any) -> Plan | Refusal:
    """Decide about a request with a good token."""
    head = "\r\n".join([f"{first} HTTP/1.1", "Host: h", "Authorization: Bearer good", *lines, "", ""])
    places = Places(headers.CLIENT_AUTH - headers.COOKIES, frozenset())
    route = Route("p", provider("https://up.test", rules=rules, **changes), "api-key")
    lookup = {sha256(b"good").digest(): Grant("work", "p")}.get
    return decide(parse_request(head.encode()), places, lookup, lambda grant: route)


def rule_of(decision: Plan | Refusal) -> str:
    return decision.rule if isinstance(decision, Refusal) else ""


@pytest.mark.parametrize(
    "path",
    [
        b"/a/../b", b"/a/./b", b"/..", b"/a/%2e%2e/b", b"/a/.%2E", b"/a/..;x/b", b"/a%2F..%2Fb", b"/a/..%3Bx",
        b"/%C0%AFa", b"/%ff", b"/a%E2%82", b"/%252e%252e/a", b"/a%00", b"/a%0Ab", b"/a%5Cb", b"/%zz", b"/a%2",
    ],
)  # fmt: skip
def test_what_servers_may_read_in_two_ways_has_no_canonical_form(path: bytes) -> None:
    """Dots, escapes that are no UTF-8 (overlong forms among them) or no escapes, control characters, the backslash."""
    assert canonical(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/user/keys", "/user/k%65ys", "/user/%6Beys", "/user/keys/", "/user/keys//", "//user/keys", "/user//keys",
        "/user/keys.json", "/user/keys.xml", "/user%2Fkeys", "/user%2fkeys", "/User/Keys", "/user/keys;a=b",
        "/user;x/keys", "/user/keys%3Bx", "/user/keys/.json", "/%2Fuser/keys", "/user/keys%20", "/user/keys%2F",
        "/user/keys.json/", "/user/keys.", "/repos/me/proj/hooks/", "/repos/ME/proj/hooks.json", "/repos/a%2Fb/hooks",
    ],
)  # fmt: skip
def test_no_spelling_of_a_denied_path_gets_through(path: str) -> None:
    assert rule_of(ask(f"POST {path}", DENY)) == "rule:no-keys"
    assert rule_of(ask(f"POST {path}", DENY, encoded_slash=True)) == "rule:no-keys"


@pytest.mark.parametrize(
    "path",
    ["/user/keyset", "/users/keys", "/user/keys/1", "/repos/me/proj/hooks/1", "/a/user/keys", "/user/keys/x.js"],
)
def test_other_paths_stay_allowed(path: str) -> None:
    plan = ask(f"POST {path}", DENY)
    assert isinstance(plan, Plan) and plan.path == path.encode()


def test_the_prefix_is_cut_before_the_rules_judge() -> None:
    upstreams = [upstream_of("https://git.test", "/git.test/", strip=True), upstream_of("https://api.test", "/")]
    for path in ("/git.test/user/keys", "/git.test//user/keys", "/git.test/%2Fuser/keys"):
        assert rule_of(ask(f"POST {path}", DENY, upstreams=upstreams)) == "rule:no-keys"
    plan = ask("POST /git.test/me/project", DENY, upstreams=upstreams)
    assert isinstance(plan, Plan) and (plan.target.origin, plan.path) == (b"git.test", b"/me/project")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/repos/me/project/x", True),
        ("/repos/me/proj%65ct/x", True),
        ("/repos//me/project/x", True),
        ("/repos/ME/project/x", False),
        ("/repos/me%2Fproject/x", False),
        ("/v1/a", True),
        ("/v1/a%2Fb", False),
        ("/v1/a/", False),
    ],
)
def test_a_permission_counts_for_the_path_that_it_names(path: str, allowed: bool) -> None:
    assert isinstance(ask(f"GET {path}", ALLOW), Plan) is allowed


def test_a_provider_may_say_that_an_escaped_slash_is_part_of_a_segment() -> None:
    rules = [{"name": "mine", "action": "allow", "methods": ["*"], "paths": ["/projects/me%2fproject/**"]}]
    assert isinstance(ask("GET /projects/me%2Fproject/x", rules, encoded_slash=True), Plan)
    assert rule_of(ask("GET /projects/me%2Fproject/x", rules)) == "rule:default"


@pytest.mark.parametrize("method", ["TRACE", "get", "PURGE", "MOVE", "CONNECTX"])
def test_methods_that_are_not_known_are_refused(method: str) -> None:
    refusal = ask(f"{method} /x", DENY)
    assert isinstance(refusal, Refusal) and (refusal.status, refusal.rule) == (405, "method")
    named = [{"name": "named", "action": "allow", "methods": [method.upper()], "paths": ["/**"]}]
    assert isinstance(ask(f"{method.upper()} /x", named), Plan)


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        (["Content-Type: application/x-www-form-urlencoded", "Content-Length: 14"], "rule:no-deletion"),
        (["Content-Type: Multipart/Form-Data; boundary=x", "Content-Length: 14"], "rule:no-deletion"),
        (["Content-Length: 14"], "rule:no-deletion"),
        (["Content-Type: application/json", "Content-Length: 14"], ""),
        (["Content-Length: 0"], ""),
    ],
)
def test_a_form_may_turn_a_post_into_another_method(lines: list[str], rule: str) -> None:
    assert rule_of(ask("POST /repos/me/project", DENY, *lines)) == rule


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "X-HTTP-Method", "x-method-override", "X_HTTP_Method_Override", "X-Original-URL"]
)
def test_what_would_override_the_method_or_path_stays_here(name: str) -> None:
    plan = ask("POST /x", DENY, f"{name}: DELETE", "X-Other: 1")
    assert isinstance(plan, Plan) and plan.lines == b"X-Other: 1\r\n"


@given(st.text("/.%2Ff5cCeEuskx;", min_size=1, max_size=12))
def test_a_canonical_path_is_its_own_canonical_form(text: str) -> None:
    path = canonical(b"/" + text.encode())
    if path is not None:
        assert canonical(path) == path
        assert b"//" not in path and path[:1] == b"/"
        assert readings(path)[0] == path
        assert all(reading[:1] == b"/" for reading in readings(path))


def test_the_upstream_gets_the_form_that_was_judged(vault: Vault, upstream: Upstream) -> None:
    vault.get("//echo/%7Euser//%2fx%c3%a4?a=%7E", vault.add("p"))
    assert upstream.seen[-1].path == "/echo/~user/%2Fx%C3%A4?a=%7E"
