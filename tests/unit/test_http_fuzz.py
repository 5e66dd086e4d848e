"""The parsers against arbitrary bytes: grown from the known smuggling shapes, compared with h11."""

from __future__ import annotations

from contextlib import suppress

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from terok_host.sidecars.kit import bodies
from terok_host.sidecars.kit.codec import CHUNKED, Request, parse_answer, parse_request, split_head
from terok_host.sidecars.kit.refusal import Refused
from terok_host.sidecars.store.credential import Credential
from terok_host.sidecars.vault.headers import CLIENT_AUTH, HOP_BY_HOP, request_lines
from terok_host.sidecars.vault.inject import Auth, Loaded
from terok_host.sidecars.vault.limits import ANSWER_HEAD_MAX, HEAD_MAX
from terok_host.sidecars.vault.tokens import candidates, parameter_name, strip_query
from tests.standins.vault import auth

SHAPES = [
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nX: X\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\n: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nGET /x HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Authorization, close\r\nAuthorization: Bearer x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b'5;x="\r\n"\r\nhello\r\n0\r\n\r\n',
    b"5\nhello\r\n0\r\n\r\n",
    b"2\r\nab\r\n0\r\nX: y\r\n\r\nrest",
    b"0\r\nContent-Length: 5\r\n\r\nhello",
    b"ffffffffffffffff\r\n",
]


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A smuggling shape with some bytes exchanged, taken out or put in."""
    data = bytearray(draw(st.sampled_from(SHAPES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        piece = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b",", b"\x0b", b"\xa0", b"0"])
        )
        data[at : at + draw(st.integers(0, 3))] = piece
    return bytes(data)


def read(data: bytes) -> Request | None:
    """The request at the beginning of `data`, when there is one that is accepted."""
    with suppress(Refused):
        end = split_head(data, HEAD_MAX)
        return parse_request(data[:end]) if end else None
    return None


@settings(max_examples=600, deadline=None)
@given(heads() | st.binary(max_size=300))
@example(SHAPES[0])
def test_what_is_accepted_h11_reads_the_same_way(data: bytes) -> None:
    request = read(data)
    if request is None:
        return
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(data[: split_head(data, HEAD_MAX)])
    event = theirs.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (request.method, request.target)
    assert [name for name, _ in event.headers] == [lower for lower, _, _, _ in request.headers]
    assert all(b"\r" not in value and b"\n" not in value for _, _, value, _ in request.headers)


@settings(max_examples=400, deadline=None)
@given(heads())
def test_what_goes_upstream_reads_as_one_request_without_the_clients_credentials(data: bytes) -> None:
    request = read(data)
    if request is None:
        return
    way = Auth(auth("Authorization", "Bearer "), {}, {})
    lines = request_lines(request, frozenset(), way) + Loaded(Credential("api-key", "real"), 1, []).lines(way)
    framing = b"Transfer-Encoding: chunked\r\n" if request.length == CHUNKED else b""
    head = b"GET / HTTP/1.1\r\nHost: u\r\n" + lines + framing + b"\r\n"
    assert split_head(head, HEAD_MAX) == len(head)
    forwarded = parse_request(head)
    names = [lower for lower, _, _, _ in forwarded.headers]
    assert names.count(b"authorization") == 1
    assert not set(names) & ((HOP_BY_HOP | CLIENT_AUTH) - {b"authorization", b"transfer-encoding"})
    assert names.count(b"transfer-encoding") == (request.length == CHUNKED)
    assert b"content-length" not in names


def chunked(pieces: list[bytes]) -> tuple[object, ...]:
    """What the reader makes of a body that arrives in pieces."""
    body = bodies.Chunked()
    payload = b""
    for piece in pieces:
        if body.done:
            return payload, True, body.rest + b"".join(pieces[pieces.index(piece) :]), body.trailers
        try:
            payload += body.feed(piece)
        except Refused:
            return ("refused",)
    return payload, body.done, body.rest, body.trailers


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(CHUNKS) | st.binary(max_size=60), st.integers(1, 9), st.integers(0, 8), st.binary(max_size=2))
def test_how_a_chunked_body_is_cut_makes_no_difference(wire: bytes, step: int, at: int, change: bytes) -> None:
    wire = wire[:at] + change + wire[at + len(change) :]
    whole = bodies.Chunked()
    try:
        payload = whole.feed(wire)
    except Refused:
        payload = b""
        refused = True
    else:
        refused = False
    cut = bodies.Chunked()
    got, left = b"", wire
    try:
        while left and not cut.done:
            got += cut.feed(left[:step])
            left = left[step:]
    except Refused:
        assert refused
        return
    if not refused:
        assert (got, cut.done, cut.rest + left) == (payload, whole.done, whole.rest)
        assert cut.trailers == whole.trailers
    else:
        # refused as a whole for bytes behind the point where the cut one still waits, never after it was done
        assert not cut.done


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_answers_never_crash_the_parser(data: bytes) -> None:
    for prefix in (b"", b"HTTP/1.1 200 OK\r\n"):
        with suppress(Refused):
            end = split_head(prefix + data, ANSWER_HEAD_MAX)
            if end:
                parse_answer((prefix + data)[:end], b"GET")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_token_places_never_crash(value: bytes) -> None:
    for scheme in (b"", b"Basic ", b"Bearer ", b"token "):
        list(candidates(scheme + value))
    assert strip_query(value, frozenset()) == value
    left = strip_query(value, frozenset((b"key",)))
    assert not any(parameter_name(part.partition(b"=")[0]) == b"key" for part in left.split(b"&"))
