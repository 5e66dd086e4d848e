"""Tests of the gate's HTTP: what could be read in two ways is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.gate.serving import backend
from terok_host.sidecars.gate.serving import request as gate_request
from terok_host.sidecars.gate.serving.request import HEAD_MAX, Request, read_request
from terok_host.sidecars.kit.codec import CHUNKED, split_head
from terok_host.sidecars.kit.refusal import Refused


def request(*fields: str, line: str = "GET /p.git/info/refs?service=git-upload-pack HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: x", *fields, "", ""]).encode("latin-1")


def read(data: bytes) -> Request | None:
    """As a connection reads it; None when the head is not complete."""
    end = split_head(data, HEAD_MAX)
    return read_request(data[:end]) if end else None


def whole(data: bytes) -> Request:
    found = read(data)
    assert found is not None
    return found


def test_a_request_as_git_sends_it() -> None:
    found = whole(request("User-Agent: git/2.39.5", "Accept: */*", "Git-Protocol: version=2"))
    assert (found.method, found.path, found.query) == ("GET", "/p.git/info/refs", "service=git-upload-pack")
    assert found.headers["git-protocol"] == "version=2"
    assert found.length == 0 and not found.expects and found.keep


def test_bodies() -> None:
    post = "POST /p.git/git-upload-pack HTTP/1.1"
    assert whole(request("Content-Length: 12", line=post)).length == 12
    chunked = whole(request("Transfer-Encoding: chunked", "Expect: 100-continue", line=post))
    assert chunked.length == CHUNKED and chunked.expects
    assert not whole(request("Connection: keep-alive, Close")).keep


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(line="GET /x HTTP/1.0"), 505),
        (request(line="GET /x HTTP/2.0"), 400),
        (request(line="GET  /x HTTP/1.1"), 400),
        (request(line="GET http://other/x HTTP/1.1"), 400),
        (request(line="GET x HTTP/1.1"), 400),
        (request(line="GET /x\ty HTTP/1.1"), 400),
        (request(line="GET /\xff HTTP/1.1"), 400),
        (request(line="GET /" + "x" * 3000 + " HTTP/1.1"), 400),
        (b"GET /x HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\nHost: x\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nA: b\r\n\r\n", 400),
        (request("A : b"), 400),
        (request("A"), 400),
        (request(" A: b"), 400),
        (request("A: b\r c"), 400),
        (request("A: b\0c"), 400),
        (request("A: 1", "a: 2"), 400),
        (request("Host: y"), 400),
        (request("Content-Length: 1", "Content-Length: 1"), 400),
        (request("Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (request("Content-Length: +1"), 400),
        (request("Content-Length: 1, 1"), 400),
        (request("Content-Length: 0x1"), 400),
        (request("Content-Length: 9999999999999999999"), 400),
        (request("Transfer-Encoding: gzip, chunked"), 400),
        (request("Transfer-Encoding: identity"), 400),
        (request("Expect: more"), 417),
        (request(*(f"A{n}: b" for n in range(200))), 431),
    ],
)
def test_malformed_heads_are_refused(data: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        whole(data)
    assert caught.value.refusal.status == status


@given(st.binary(max_size=500))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        read(data)
    except Refused:
        pass


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("field", "tokens"),
    [
        ("Bearer abc", ["abc"]),
        ("bearer  abc ", ["abc"]),
        ("Bearer ", []),
        (basic("abc:"), ["abc"]),
        (basic("abc"), ["abc"]),
        (basic("user:abc"), ["user", "abc"]),
        (basic(":abc"), ["abc"]),
        (basic(":"), []),
        ("Basic !!!", []),
        ("Digest abc", []),
        ("", []),
    ],
)
def test_tokens(field: str, tokens: list[str]) -> None:
    assert gate_request.tokens(field) == tokens


def test_a_cgi_head() -> None:
    data = b"Status: 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 5"
    assert backend.parse_cgi(data) == (403, {"Content-Type": "text/plain"})
    with pytest.raises(ValueError, match="malformed"):
        backend.parse_cgi(b"no header")
