"""Where an upstream may be, whether it is who it says, and what its answers must not carry."""

from __future__ import annotations

import gzip
import re
import socket
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.standins.authority import Authority
from tests.standins.upstream import Upstream
from tests.standins.vault import SECRET, Vault, provider, read_all, wait_line

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
    "how",
    ["raw", "base64", "base641", "base642", "urlsafe1", "percent", "basic", "header", "gzip", "brotli"]
    + ["json-escape", "hex", "gzip-silent", "deflate-raw"],
)
def test_an_echoed_secret_is_an_error(vault: Vault, how: str) -> None:
    reply = vault.get(f"/leak/{how}", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (502, "content-coding" if how == "brotli" else "echo")
    assert SECRET.encode() not in reply.body
    assert vault.audit()[-1]["reason"] == reply.json()["reason"]


@pytest.mark.parametrize("how", ["split", "slow", "trailer", "trailer-late"])
def test_a_secret_in_two_chunks_is_cut(vault: Vault, how: str) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(f"GET /leak/{how} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        answer = read_all(sock)
    assert not answer.endswith(b"0\r\n\r\n")
    assert SECRET[:12].encode() not in answer
    assert wait_line(vault, lambda line: line["path"] == f"/leak/{how}")["reason"] == "echo"


def test_an_upstream_that_fails_inside_the_secret_forwards_nothing_of_it(vault: Vault) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(f"GET /leak/half HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        answer = read_all(sock)
    assert b"your key is" in answer and not answer.endswith(b"0\r\n\r\n")
    assert SECRET[:4].encode() not in answer.partition(b"your key is")[2]


def test_a_raw_deflate_answer_passes(vault: Vault, upstream: Upstream) -> None:
    stream = zlib.compressobj(wbits=-15)
    body = stream.compress(b"hello" * 99) + stream.flush()
    upstream.documents["raw"] = ("text/plain", body, "Content-Encoding: deflate\r\n")
    reply = vault.get("/document/raw", vault.add("p"))
    assert (reply.status, reply.body) == (200, body)


def test_a_compressed_answer_does_not_stop_the_loop_for_others(vault: Vault, upstream: Upstream) -> None:
    token = vault.add("p")
    bomb = gzip.compress(b"\0" * (150 << 20), 9)
    upstream.documents["bomb"] = ("text/plain", bomb, "Content-Encoding: gzip\r\n")
    assert vault.get("/small", token).status == 200
    with vault.raw(60) as sock:
        sock.sendall(f"GET /document/bomb HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        served = 0
        sock.setblocking(False)
        received = b""
        while len(received) < len(bomb):
            assert vault.get("/small", token).status == 200
            served += 1
            with suppress(BlockingIOError):
                received += sock.recv(1 << 20)
    assert served > 10
    assert memory_peak(vault.pid) < 80 << 20


def memory_peak(pid: int) -> int:
    """The most bytes that a process had resident (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]  # the kernel always prints it
