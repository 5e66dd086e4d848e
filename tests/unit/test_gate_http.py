"""Tests of the gate's HTTP: what could be read in two ways is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.gate.serving import http
from terok_host.sidecars.gate.serving.http import Chunked, HttpError, Length, parse_head


def request(*fields: str, line: str = "GET /p.git/info/refs?service=git-upload-pack HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: x", *fields]).encode("latin-1")


def test_a_request_as_git_sends_it() -> None:
    found = parse_head(request("User-Agent: git/2.39.5", "Accept: */*", "Git-Protocol: version=2"))
    assert (found.method, found.path, found.query) == ("GET", "/p.git/info/refs", "service=git-upload-pack")
    assert found.headers["git-protocol"] == "version=2"
    assert found.length == 0 and not found.has_body and not found.closes


def test_bodies() -> None:
    post = "POST /p.git/git-upload-pack HTTP/1.1"
    assert parse_head(request("Content-Length: 12", line=post)).length == 12
    chunked = parse_head(request("Transfer-Encoding: chunked", "Expect: 100-continue", line=post))
    assert chunked.length is None and chunked.has_body and chunked.wants_continue
    assert parse_head(request("Connection: keep-alive, Close")).closes


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (request(line="GET /x HTTP/1.0"), 505),
        (request(line="GET /x HTTP/2.0"), 400),
        (request(line="GET  /x HTTP/1.1"), 400),
        (request(line="get /x HTTP/1.1"), 400),
        (request(line="GET http://other/x HTTP/1.1"), 400),
        (request(line="GET x HTTP/1.1"), 400),
        (request(line="GET /x\ty HTTP/1.1"), 400),
        (request(line="GET /\xff HTTP/1.1"), 400),
        (request(line="GET /" + "x" * 3000 + " HTTP/1.1"), 400),
        (b"GET /x HTTP/1.1\r\nHost: x\nA: b", 400),
        (b"GET /x HTTP/1.1\nHost: x", 400),
        (b"GET /x HTTP/1.1\r\nA: b", 400),
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
        (request("Content-Length: 9999999999999999"), 400),
        (request("Transfer-Encoding: gzip, chunked"), 501),
        (request("Transfer-Encoding: identity"), 501),
        (request("Expect: more"), 417),
        (request(*(f"A{n}: b" for n in range(80))), 431),
    ],
)
def test_malformed_heads_are_refused(data: bytes, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse_head(data)
    assert caught.value.status == status


@given(st.binary(max_size=500))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        parse_head(data)
    except HttpError:
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
    assert http.tokens(field) == tokens


@given(st.lists(st.binary(min_size=1, max_size=100)), st.integers(1, 40))
def test_chunks_in_any_pieces(chunks: list[bytes], size: int) -> None:
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX: y\r\n\r\n"
    decoder = Chunked()
    found = b"".join(decoder.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert found == b"".join(chunks) and decoder.done


@pytest.mark.parametrize(
    "data",
    [
        b"1\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"1\r\nx\n0\r\n\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b" 1\r\n",
        b"0x1\r\n",
        b"\r\n",
        b"1ffffffffffff\r\n",
        b"1" + b";" * 100 + b"\r\n",
        b"0" * 100,
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n\r\nGET / HTTP/1.1\r\n",
        b"0\r\n" + b"A: b\r\n" * 2000,
    ],
)
def test_malformed_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(HttpError):
        Chunked().feed(data)


def test_bytes_behind_a_body_are_refused() -> None:
    body = Length(3)
    assert body.feed(b"ab") == b"ab" and not body.done
    with pytest.raises(HttpError):
        body.feed(b"cd")


def test_a_cgi_head() -> None:
    data = b"Status: 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 5"
    assert http.parse_cgi(data) == (403, {"Content-Type": "text/plain"})
    with pytest.raises(ValueError, match="malformed"):
        http.parse_cgi(b"no header")
