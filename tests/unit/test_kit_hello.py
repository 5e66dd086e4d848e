"""The server name in a ClientHello: real ones of many clients, cut in every way, and hostile ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.kit.tls.hello import (
    BUFFER_MAX,
    HELLO_MAX,
    RECORDS_MAX,
    Incomplete,
    Malformed,
    looks_like_tls,
    read,
    server_name,
)

CORPUS = {
    client: base64.b64decode(text)
    for client, text in json.loads((Path(__file__).parents[1] / "standins" / "hellos.json").read_text()).items()
}
"""First flights that these clients sent, to a port of the same machine."""
NAMES = {"wget": "localhost", "gh": "localhost", "openssl-no-name": None}


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def sized(content: bytes, size: int) -> bytes:
    return number(len(content), size) + content


def extension(kind: int, content: bytes) -> bytes:
    return number(kind, 2) + sized(content, 2)


def sni(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, sized(b"".join(number(kind, 1) + sized(name, 2) for name in names), 2))


def message(*extensions: bytes, padding: int = 0) -> bytes:
    parts = [b"\x03\x03" + bytes(32), sized(b"", 1), sized(b"\x13\x01", 2), sized(b"\0", 1)]
    listed = b"".join(extensions) + (extension(21, bytes(padding)) if padding else b"")
    body = b"".join(parts) + sized(listed, 2)
    return b"\x01" + sized(body, 3)


def records(content: bytes, size: int = 1 << 14) -> bytes:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"\x16\x03\x01" + sized(piece, 2) for piece in pieces)


@pytest.mark.parametrize("client", sorted(CORPUS))
def test_real_hellos(client: str) -> None:
    data = CORPUS[client]
    assert looks_like_tls(data)
    assert server_name(data) == NAMES.get(client, "allowed.example.com")
    for end in range(len(data)):
        with pytest.raises(Incomplete):
            server_name(data[:end])
    inner = data[5:]
    for size in (len(inner) // 3, 100):
        assert server_name(records(inner, size)) == NAMES.get(client, "allowed.example.com")


@given(data=st.sampled_from(sorted(CORPUS.values())), at=st.integers(0, 2000), byte=st.integers(0, 255))
def test_damaged_hellos_end_in_a_verdict(data: bytes, at: int, byte: int) -> None:
    at %= len(data)
    try:
        server_name(data[:at] + bytes([byte]) + data[at + 1 :])
    except (Incomplete, Malformed):
        pass


@given(st.binary(max_size=400))
def test_any_bytes_end_in_a_verdict(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c"):
        try:
            server_name(start + data)
        except (Incomplete, Malformed):
            pass


def test_upper_case_is_the_same_name() -> None:
    assert server_name(records(message(sni(b"Allowed.Example.COM")))) == "allowed.example.com"
    assert server_name(records(message(sni(b"under_score.xn--bcher-kva.test")))) == "under_score.xn--bcher-kva.test"


@pytest.mark.parametrize(
    "name",
    [
        b"", b"a\0b.example", b"example.com.", b".example.com", b"a b", b"[::1]", b"a/b", "bücher.example".encode(),
        b"a" * 254, b"example.com\n", b"*.example.com",
    ],
)  # fmt: skip
def test_names_that_are_none(name: bytes) -> None:
    with pytest.raises(Malformed):
        server_name(records(message(sni(name))))


@pytest.mark.parametrize(
    "data",
    [
        records(message(sni(b"a.example", b"b.example"))),
        records(message(sni(b"a.example"), sni(b"a.example"))),
        records(message(sni(b"a.example", kind=1))),
        records(message(extension(0, b""))),
        records(message(extension(0, b"\0\0"))),
        records(message(sni(b"a.example")) + b"\x14"),
        records(b"\x02" + message()[1:]),
        records(b"\x01" + number(HELLO_MAX + 1, 3)),
        records(message(sni(b"a.example"), padding=RECORDS_MAX * 10), 8),
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x17\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x03\x01",
        b"SSH-2.0-OpenSSH",
    ],
)
def test_what_two_programs_could_read_differently(data: bytes) -> None:
    with pytest.raises(Malformed):
        server_name(data)


def protocols(*names: bytes) -> bytes:
    return extension(16, sized(b"".join(sized(name, 1) for name in names), 2))


def test_what_a_client_would_speak() -> None:
    assert read(records(message(sni(b"a.example"), protocols(b"h2", b"http/1.1")))) == (
        "a.example",
        (b"h2", b"http/1.1"),
    )
    assert read(records(message(protocols(b"h2")))) == (None, (b"h2",))
    assert read(records(message())).protocols == ()
    for wrong in (protocols(b""), extension(16, b"\0\3\2h"), extension(16, b"\0\1\1"), extension(16, b"\0\0x")):
        with pytest.raises(Malformed):
            read(records(message(wrong)))


def test_the_largest_hello() -> None:
    small = message(sni(b"a.example"))
    data = records(message(sni(b"a.example"), padding=HELLO_MAX - len(small) - 4))
    assert len(data) <= BUFFER_MAX
    assert server_name(data) == "a.example"
    with pytest.raises(Incomplete):
        server_name(data[:-1])
    with pytest.raises(Malformed):
        server_name(records(message(sni(b"a.example"), padding=HELLO_MAX - len(small) - 3)))


def test_a_hello_without_extensions_names_nobody() -> None:
    assert server_name(records(b"\x01" + sized(message()[4:-2], 3))) is None
