"""Downloads that a provider redirects to its storage: passed without a credential; other hosts are refused by name."""

from __future__ import annotations

import base64
from collections.abc import Callable
from hashlib import sha256

import pytest

from terok_host.sidecars.kit.codec import parse_request
from terok_host.sidecars.kit.refusal import Refusal
from terok_host.sidecars.vault import headers
from terok_host.sidecars.vault.decide import Plan
from terok_host.sidecars.vault.inject import NOTHING
from terok_host.sidecars.vault.storage import decide_storage, routes_of
from terok_host.sidecars.vault.tokens import Grant, Places
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, provider

GRANT = Grant("work", "p")
HOST = "assets.test"
SIGNED = "/a%20b/c?X-Amz-Signature=00ff&access_token=signed&key=x"


def ask(line: str, *lines: str, host: str = HOST) -> Plan | Refusal | None:
    head = "\r\n".join([f"{line} HTTP/1.1", f"Host: {host}", *lines, "", ""])
    routes = routes_of([(GRANT, provider("https://up.test", storage=[HOST]))])
    places = Places(headers.CLIENT_AUTH - headers.COOKIES, frozenset((b"key",)))
    lookup = {sha256(b"good").digest(): GRANT}.get
    return decide_storage(parse_request(head.encode()), places, lookup, routes, {"up.test"}.__contains__)


def test_a_download_goes_to_the_storage_host_as_it_was_signed_and_without_a_credential() -> None:
    for line in ((), ("Authorization: Bearer good",), ("Authorization: Basic " + basic("x:good"), "Cookie: a=b")):
        plan = ask(f"GET {SIGNED}", "Range: bytes=0-", *line)
        assert isinstance(plan, Plan)
        endpoint = plan.target.endpoint
        assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.allow_private) == (HOST, 443, True, False)
        assert plan.path == SIGNED.encode() and plan.lines == b"Range: bytes=0-\r\n" and not plan.ours
        assert NOTHING.lines(plan.target.auth) == b""
    assert isinstance(ask("HEAD /x", host="ASSETS.test:443"), Plan)


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("line", ["POST /x", "PUT /x", "DELETE /x", "OPTIONS /x"])
def test_storage_is_only_read(line: str) -> None:
    refusal = ask(line)
    assert isinstance(refusal, Refusal) and refusal.status == 403


@pytest.mark.parametrize("line", ["Authorization: Bearer stolen", "X-Api-Key: stolen", "Private-Token: stolen"])
def test_no_other_credential_goes_there(line: str) -> None:
    refusal = ask("GET /x", line)
    assert isinstance(refusal, Refusal) and refusal.rule == "foreign-credential" and "stolen" not in refusal.why


@pytest.mark.parametrize(
    "host", ["evil.test", "x.assets.test", "assets.test.evil.test", "objects.githubusercontent.com"]
)
def test_any_other_host_is_refused_by_its_name(host: str) -> None:
    refusal = ask("GET /x", host=host)
    assert isinstance(refusal, Refusal) and refusal.rule == "unknown-host" and host in refusal.why


@pytest.mark.parametrize("host", ["127.0.0.1:9419", "localhost", "[::1]:9419", "up.test", "198.51.100.7"])
def test_what_is_for_the_vault_is_decided_there(host: str) -> None:
    assert ask("GET /x", host=host) is None


def test_a_request_with_a_token_is_decided_by_the_token() -> None:
    assert ask("GET /x", "Authorization: Bearer good", host="evil.test") is None


def test_in_the_process(make_vault: Callable[..., Vault], upstream: Upstream) -> None:
    vault = make_vault(storage=["localhost"])
    token = vault.add("p")
    # the storage host is asked, and refused only for its private address: it gets no permission of the provider's
    reply = vault.get("/small", "", Host="localhost")
    assert (reply.status, reply.headers["X-Terok-Reason"]) == (403, "private-address")
    reply = vault.get("/small", "", Host="evil.test")
    assert reply.headers["X-Terok-Reason"] == "unknown-host" and "evil.test" in reply.json()["message"]
    assert vault.audit()[-1]["reason"] == "unknown-host"
    assert vault.get("/small", token, Host="api.test").status == 200
    assert [request.path for request in upstream.seen] == ["/small"]
