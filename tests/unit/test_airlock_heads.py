"""Requests on one HTTP connection of the airlock: each names the host, and bytes pass as they came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.airlock.heads import HEAD_MAX, Requests
from terok_host.sidecars.kit.refusal import Refused

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: A.Example:80\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n"
OTHER = b"GET /2 HTTP/1.1\r\nHost: b.example\r\n\r\n"
SWITCH = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def judge(name: str) -> None:
    if name != "a.example":
        raise Refused(403, "other-name", name)


def watcher(port: int = 80) -> Requests:
    return Requests(judge, port)


@given(st.lists(st.sampled_from([GET, POST, CHUNKS]), min_size=1, max_size=5), st.integers(1, 90))
def test_bytes_pass_as_they_came(requests: list[bytes], size: int) -> None:
    stream, passing = b"".join(requests), watcher()
    passed = b"".join(passing.feed(stream[at : at + size]) for at in range(0, len(stream), size))
    assert passed == stream and passing.started == len(requests)


@given(st.lists(st.sampled_from([GET, POST, CHUNKS]), max_size=3), st.integers(1, 90))
def test_no_byte_of_another_hosts_request_passes(before: list[bytes], size: int) -> None:
    stream, passing, passed = b"".join(before) + OTHER, watcher(), b""
    with pytest.raises(Refused, match="b.example"):
        for at in range(0, len(stream), size):
            passed += passing.feed(stream[at : at + size])
    assert b"".join(before).startswith(passed)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example:81\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example.\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example,b.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a.example\n\n",
        b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nX: " + b"x" * HEAD_MAX + b"\r\n\r\n",
    ],
)
def test_heads_that_are_refused(head: bytes) -> None:
    with pytest.raises(Refused):
        watcher().feed(head)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_verdict(data: bytes) -> None:
    for start in (b"", GET, POST[:-3], CHUNKS[:90]):
        try:
            watcher().feed(start + data)
        except Refused:
            pass


def test_what_follows_a_switch_waits_for_the_answer() -> None:
    passing = watcher()
    assert passing.feed(SWITCH + OTHER) == SWITCH and passing.switching
    assert passing.feed(b"more") == b""
    with pytest.raises(Refused):
        passing.stayed()
    passing = watcher()
    assert passing.feed(SWITCH + b"\x81\x05hello") == SWITCH
    assert passing.switched() == b"\x81\x05hello"
    assert passing.feed(OTHER) == OTHER


def test_only_the_first_request_may_switch() -> None:
    passing = watcher()
    assert passing.feed(GET + SWITCH) == GET + SWITCH
    assert not passing.switching
    with pytest.raises(Refused):
        passing.feed(OTHER)
