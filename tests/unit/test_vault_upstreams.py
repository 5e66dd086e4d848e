"""Where an upstream may be, whether it is who it says, and what its answers must not carry."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.standins.upstream import Upstream
from tests.standins.vault import SECRET, Vault, provider, read_all, wait_line
from tests.unit.conftest import Authority

Make = Callable[..., Vault]


# --- where the upstream is ---


def test_private_addresses_are_refused_after_resolution(make_vault: Make, upstream: Upstream) -> None:
    vault = make_vault(allow_private=False)
    reply = vault.get("/", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (403, "private-address")
    assert not upstream.seen


def test_metadata_is_refused_even_then(make_vault: Make) -> None:
    upstreams = provider("http://169.254.169.254").upstreams
    vault = make_vault(upstreams=upstreams)
    reply = vault.get("/", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (403, "private-address")
    assert "metadata" in reply.json()["message"]


def test_certificates_are_verified(make_vault: Make, authority: Authority, upstream: Upstream) -> None:
    with Upstream(authority.server("elsewhere.test")) as wrong:
        vault = make_vault(upstreams=provider(f"https://localhost:{wrong.port}").upstreams)
        reply = vault.get("/", vault.add("p"))
        assert (reply.status, reply.json()["reason"]) == (502, "upstream-certificate")
        assert not wrong.seen


def test_an_unknown_authority_is_refused(make_vault: Make, upstream: Upstream) -> None:
    vault = make_vault(ca_bundle=None)
    reply = vault.get("/", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (502, "upstream-certificate")
    assert not upstream.seen


def test_an_upstream_that_is_not_there(make_vault: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    vault = make_vault(upstreams=provider(f"https://localhost:{port}").upstreams)
    reply = vault.get("/", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (502, "upstream-connect")
    vault.write_routes({"p": provider(f"https://no-such-name.invalid:{port}")})
    reply = vault.get("/", vault.token("p"))
    assert (reply.status, reply.json()["reason"]) == (502, "upstream-name")


# --- the echo guard ---


@pytest.mark.parametrize(
    "how", ["raw", "base64", "base641", "base642", "urlsafe1", "percent", "basic", "header", "gzip", "brotli"]
)
def test_an_echoed_secret_is_an_error(vault: Vault, how: str) -> None:
    reply = vault.get(f"/leak/{how}", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (502, "content-coding" if how == "brotli" else "echo")
    assert SECRET.encode() not in reply.body
    assert vault.audit()[-1]["reason"] == reply.json()["reason"]


@pytest.mark.parametrize("how", ["split", "slow"])
def test_a_secret_in_two_chunks_is_cut(vault: Vault, how: str) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(f"GET /leak/{how} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        answer = read_all(sock)
    assert not answer.endswith(b"0\r\n\r\n")
    assert SECRET[:12].encode() not in answer
    assert wait_line(vault, lambda line: line["path"] == f"/leak/{how}")["reason"] == "echo"
