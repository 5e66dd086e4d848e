"""The strict HTTP/1.1 codec: what is refused, and by which rule."""

from __future__ import annotations

import pytest

from terok_host.sidecars.kit import bodies, limits
from terok_host.sidecars.kit.codec import (
    CHUNKED,
    UNTIL_CLOSE,
    Request,
    parse_answer,
    parse_request,
    split_head,
)
from terok_host.sidecars.kit.refusal import Refused
from terok_host.sidecars.vault.limits import HEAD_MAX

HOST = b"Host: x\r\n"


def request(lines: bytes, first: bytes = b"POST /p HTTP/1.1\r\n") -> Request:
    """Read a head given without its empty line."""
    head = first + lines + b"\r\n"
    assert split_head(head, HEAD_MAX) == len(head)
    return parse_request(head)


def rule_of(head: bytes) -> str:
    """The rule by which a head is refused."""
    with pytest.raises(Refused) as caught:
        end = split_head(head, HEAD_MAX)
        assert end, "not complete"
        parse_request(head[:end])
    return caught.value.refusal.rule


def test_a_request_is_read() -> None:
    head = b"POST /a%2Fb?c=d HTTP/1.1\r\nHost: api.test:443\r\nContent-Length: 12\r\nX-Odd:\t two words \t\r\n\r\n"
    found = parse_request(head)
    assert (found.method, found.target, found.minor, found.length) == (b"POST", b"/a%2Fb?c=d", 1, 12)
    assert found.headers[2] == (b"x-odd", b"X-Odd", b"two words", b"X-Odd: two words\r\n")
    assert found.keep
    assert repr(found) == "<Request POST '/a%2Fb?c=d' length=12>"


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        (HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "two-lengths"),
        (HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "two-lengths"),
        (HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n", "content-length-twice"),
        (HOST + b"Content-Length: 5\r\ncontent-length: 6\r\n", "content-length-twice"),
        (HOST + b"Content-Length: 5, 5\r\n", "content-length"),
        (HOST + b"Content-Length: +5\r\n", "content-length"),
        (HOST + b"Content-Length: 0x5\r\n", "content-length"),
        (HOST + b"Content-Length: -1\r\n", "content-length"),
        (HOST + b"Content-Length:\r\n", "content-length"),
        (HOST + b"Content-Length: 9999999999999999999\r\n", "content-length"),
        (HOST + b"Content-Length : 5\r\n", "header-name"),
        (HOST + b"Content-Length\x0b: 5\r\n", "control-character"),
        (HOST + b"Transfer-Encoding: gzip, chunked\r\n", "transfer-encoding"),
        (HOST + b"Transfer-Encoding: chunked, identity\r\n", "transfer-encoding"),
        (HOST + b"Transfer-Encoding: xchunked\r\n", "transfer-encoding"),
        (HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "transfer-encoding"),
        (HOST + b"Transfer-Encoding:\x0bchunked\r\n", "control-character"),
        (HOST + b"Transfer-Encoding: \r\n chunked\r\n", "header-line"),
        (HOST + b"X: a\r\n b\r\n", "header-line"),
        (HOST + b"\tX: a\r\n", "header-name"),
        (HOST + b"X: a\nY: b\r\n", "control-character"),
        (HOST + b"X: a\rY: b\r\n", "control-character"),
        (HOST + b"X: a\x00b\r\n", "control-character"),
        (HOST + b"X: a\x7fb\r\n", "control-character"),
        (HOST + b": empty\r\n", "header-name"),
        (HOST + b"no colon\r\n", "header-line"),
        (HOST + b"X[]: a\r\n", "header-name"),
        (HOST + b"X\xff: a\r\n", "header-name"),
        (HOST + HOST, "host-twice"),
        (b"Host: a b\r\n", "host-form"),
        (b"Host: a/b\r\n", "host-form"),
        (b"Host: user@a\r\n", "host-form"),
        (b"Host: a:b\r\n", "host-form"),
        (b"X: y\r\n", "no-host"),
        (HOST + b"Expect: 200-ok\r\n", "expectation"),
        (HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", "upgrade-body"),
    ],
)
def test_headers_that_two_programs_could_read_differently(lines: bytes, rule: str) -> None:
    assert rule_of(b"POST /p HTTP/1.1\r\n" + lines + b"\r\n") == rule


@pytest.mark.parametrize(
    ("first", "rule"),
    [
        (b"GET http://evil.test/ HTTP/1.1", "target-form"),
        (b"GET //evil.test/ HTTP/1.1", None),  # origin form: only a path
        (b"CONNECT evil.test:443 HTTP/1.1", "target-form"),
        (b"GET evil.test:443 HTTP/1.1", "target-form"),
        (b"OPTIONS * HTTP/1.1", "target-form"),
        (b"GET /a#b HTTP/1.1", "target-character"),
        (b"GET /a\\b HTTP/1.1", "target-character"),
        (b"GET /a b HTTP/1.1", "request-line"),
        (b"GET  /a HTTP/1.1", "request-line"),
        (b"GET /a HTTP/1.1 ", "request-line"),
        (b" GET /a HTTP/1.1", "request-line"),
        (b"GET /a HTTP/2.0", "request-line"),
        (b"GET /a HTTP/1.10", "request-line"),
        (b"GET /a http/1.1", "request-line"),
        (b"GET /a", "request-line"),
        (b"GET\t/a HTTP/1.1", "request-line"),
        (b"GET /\xc3\xa4 HTTP/1.1", "request-line"),
        (b"G(T / HTTP/1.1", "request-line"),
        (b"", "request-line"),
    ],
)
def test_request_lines(first: bytes, rule: str | None) -> None:
    head = first + b"\r\n" + HOST + b"\r\n"
    if rule is None:
        assert parse_request(head).target == b"//evil.test/"
    else:
        assert rule_of(head) == rule


def test_http_1_0_has_no_chunks_and_closes() -> None:
    assert not request(HOST, b"GET / HTTP/1.0\r\n").keep
    assert request(b"Connection: keep-alive\r\n", b"GET / HTTP/1.0\r\n").keep
    assert rule_of(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") == "transfer-encoding"


def test_connection_options() -> None:
    assert not request(HOST + b"Connection: x, Close\r\n").keep
    assert (
        request(HOST + b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n", b"GET / HTTP/1.1\r\n").upgrade == b"websocket"
    )
    assert request(HOST + b"Upgrade: websocket\r\n", b"GET / HTTP/1.1\r\n").upgrade == b""


@pytest.mark.parametrize("start", [b"\n", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\nHost: x\n\n"])
def test_a_bare_lf_is_refused_before_the_head_is_complete(start: bytes) -> None:
    assert rule_of(start) == "bare-lf"


def test_an_oversize_head_is_refused_before_it_is_complete() -> None:
    head = b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_MAX
    with pytest.raises(Refused) as caught:
        split_head(head, HEAD_MAX)
    assert (caught.value.refusal.status, caught.value.refusal.rule) == (431, "head-size")
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(limits.HEADERS_MAX + 1))
    assert rule_of(b"GET / HTTP/1.1\r\n" + lines + b"\r\n") == "header-count"


def test_an_incomplete_head_is_waited_for() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert all(split_head(head[:size], HEAD_MAX) == 0 for size in range(len(head)))
    assert split_head(head + b"rest", HEAD_MAX) == len(head)


# --- answers ---


@pytest.mark.parametrize(
    ("head", "method", "length", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b"GET", 7, True),
        (b"HTTP/1.1 200\r\nContent-Length: 7\r\n\r\n", b"GET", 7, True),
        (b"HTTP/1.1 200 \r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n", b"GET", 7, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b"HEAD", 0, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"GET", 0, True),
        (b"HTTP/1.1 204 No\r\n\r\n", b"GET", 0, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", b"GET", CHUNKED, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"GET", UNTIL_CLOSE, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", b"GET", 7, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n", b"GET", 7, False),
    ],
)
def test_answers_are_framed(head: bytes, method: bytes, length: int, keep: bool) -> None:
    answer = parse_answer(head, method)
    assert (answer.length, answer.keep) == (length, keep)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: seven\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n",
    ],
)
def test_answers_whose_framing_cannot_be_trusted(head: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_answer(head, b"GET")
    assert caught.value.refusal.status == 502
    assert caught.value.refusal.rule.startswith("upstream-")


# --- bodies ---


def test_counted_bodies() -> None:
    body = bodies.Counted(5)
    assert body.feed(b"abc") == b"abc" and not body.done and not body.end()
    assert body.feed(b"defgh") == b"de" and body.done and body.rest == b"fgh"
    assert bodies.Counted(0).done


def test_chunked_bodies() -> None:
    wire = b"5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET /"
    body = bodies.Chunked()
    assert body.feed(wire) == b"hello0123456789"
    assert body.done and body.rest == b"GET /"
    assert body.trailers == [(b"x-sum", b"X-Sum", b"1", b"X-Sum: 1\r\n")]


@pytest.mark.parametrize(
    "wire",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"-5\r\nhello",
        b"0x5\r\nhello",
        b" 5\r\nhello",
        b"5 5\r\nhello",
        b"\r\nhello",
        b"g\r\n",
        b"1000000000000000\r\n",
        b"5;" + b"a" * limits.CHUNK_LINE_MAX,
        b"5;\x00\r\nhello",
        b"0\r\nX: a\nY: b\r\n\r\n",
        b"0\r\n X: a\r\n\r\n",
        b"0\r\nX: " + b"a" * limits.TRAILERS_MAX,
    ],
)
def test_chunks_that_two_programs_could_read_differently(wire: bytes) -> None:
    with pytest.raises(Refused):
        bodies.Chunked().feed(wire)
    with pytest.raises(Refused):
        body = bodies.Chunked()
        for byte in wire:
            body.feed(bytes((byte,)))


def test_a_chunk_is_never_the_last_by_accident() -> None:
    assert bodies.chunk(b"") == b""
    assert bodies.chunk(b"x" * 16) == b"10\r\n" + b"x" * 16 + b"\r\n"
