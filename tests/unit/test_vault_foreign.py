"""No other credential crosses beside the injected one: it would make an allowed host a way out."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

import pytest

from terok_host.sidecars.kit.codec import parse_request
from terok_host.sidecars.kit.refusal import Refusal
from terok_host.sidecars.vault import headers
from terok_host.sidecars.vault.decide import Plan, decide
from terok_host.sidecars.vault.routes import Route
from terok_host.sidecars.vault.tokens import Grant, Places
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, auth, provider

QUERY = ["access_token", "private_token", "job_token"]


def ask(target: str, *lines: str, token: str = "Authorization: Bearer good", **changes: Any) -> Plan | Refusal:
    """Decide about a request that carries the phantom token `good`."""
    head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", token, *lines, "", ""])
    changes = {"foreign_query": QUERY, "foreign_headers": ["openai-organization"], **changes}
    route = Route("p", provider("https://up.test", **changes), "api-key")
    places = Places(headers.CLIENT_AUTH - headers.COOKIES, frozenset((b"key",)))
    lookup = {sha256(b"good").digest(): Grant("work", "p")}.get
    return decide(parse_request(head.encode()), places, lookup, lambda grant: route)


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "line",
    [
        "x-api-key: stolen", "X_Api_Key: stolen", "X-Authorization: Bearer stolen", "PRIVATE-TOKEN: stolen",
        "Private_Token: stolen", "JOB-TOKEN: stolen", "Proxy-Authorization: Basic " + basic("me:stolen"),
        "Authorization: Bearer stolen", "Authorization: Digest stolen", "Authorization: Basic !!", "apikey: stolen",
        "X-Amz-Security-Token: stolen", "OpenAI-Organization: org-theirs", "openai_organization: org-theirs",
        "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-stolen",
        "Sec-WebSocket-Protocol: realtime, openai-organization.org-theirs",
    ],
)  # fmt: skip
def test_a_second_credential_in_a_header_is_refused(line: str) -> None:
    refusal = ask("/x", line)
    assert isinstance(refusal, Refusal) and (refusal.status, refusal.rule) == (403, "foreign-credential")
    assert line.partition(":")[0] in refusal.allow
    assert "stolen" not in refusal.why + refusal.allow


@pytest.mark.parametrize(
    "query",
    [
        "key=stolen", "k%65y=stolen", "KEY=stolen", "a=1&%6bey=stolen", "key=good&key=stolen", "private_token=stolen",
        "private%5Ftoken=stolen", "job_token=", "access_token=good", "access_token[]=x", "a=1;access_token=stolen",
        "+access_token=x", "_method=DELETE", "X-HTTP-Method-Override=PUT",
    ],
)  # fmt: skip
def test_a_second_credential_in_the_query_is_refused(query: str) -> None:
    refusal = ask(f"/x?{query}")
    assert isinstance(refusal, Refusal) and refusal.rule == "foreign-credential"
    assert "stolen" not in refusal.why + refusal.allow


@pytest.mark.parametrize("spelling", ["key", "k%65y", "KEY", "Ke%79"])
def test_the_token_in_the_query_is_found_and_taken_out_in_every_spelling(spelling: str) -> None:
    plan = ask(f"/x?a=%2F&{spelling}=g%6Fod&b=1", token="Accept: */*")
    assert isinstance(plan, Plan) and plan.path == b"/x?a=%2F&b=1"


@pytest.mark.parametrize(
    "line",
    [
        "x-api-key: good", "X_Api_Key: good", "Authorization: Basic " + basic("x-access-token:good"), "x-api-key:",
        "Cookie: session=theirs", "Sec-WebSocket-Protocol: realtime, graphql-transport-ws", "X-Request-Id: key",
    ],
)  # fmt: skip
def test_what_is_no_second_credential_passes(line: str) -> None:
    plan = ask("/x?keys=1&monkey=2", line)
    assert isinstance(plan, Plan)
    assert b"good" not in plan.lines and b"theirs" not in plan.lines


@pytest.mark.parametrize("named", ["Authorization", "anthropic-beta", "close, X-Team"])
def test_connection_may_not_name_what_the_vault_adds(named: str) -> None:
    way = auth("Authorization", "Bearer ")._replace(merge={"anthropic-beta": "oauth"}, headers={"X-Team": "blue"})
    refusal = ask("/x", f"Connection: {named}", auth={"api-key": way})
    assert isinstance(refusal, Refusal) and (refusal.status, refusal.rule) == (400, "connection-names")
    plan = ask("/x", "Connection: X-Other", "X-Other: 1", "X-More: 2", auth={"api-key": way})
    assert isinstance(plan, Plan) and b"X-Other" not in plan.lines and b"X-More" in plan.lines


def test_a_header_that_the_route_sets_is_replaced_and_not_refused() -> None:
    way = auth("Authorization", "Bearer ")._replace(headers={"OpenAI-Organization": "ours"})
    plan = ask("/x", "OpenAI-Organization: theirs", auth={"api-key": way})
    assert isinstance(plan, Plan) and b"theirs" not in plan.lines


def test_nothing_goes_upstream(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(f"GET /small HTTP/1.1\r\nHost: h\r\nx-api-key: {token}\r\nX_Private_Token: x\r\n\r\n".encode())
        assert b"403" in sock.recv(4096).partition(b"\r\n")[0]
    assert not upstream.seen
    assert vault.audit()[-1]["reason"] == "foreign-credential"
