"""The agent protocol's codec: what it reads back, what it refuses, and that no bytes make it do anything else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terok_host.sidecars.ssh import wire
from terok_host.sidecars.ssh.wire import mpint, string

SESSION = bytes(range(32))
USERAUTH = (
    string(SESSION)
    + b"\x32"
    + string("git")
    + string("ssh-connection")
    + string("publickey")
    + b"\x01"
    + string("ssh-ed25519")
    + string(b"blob")
)
HOSTBOUND = USERAUTH.replace(string("publickey"), string("publickey-hostbound-v00@openssh.com")) + string(b"host")
SSHSIG = b"SSHSIG" + string("git") + string("") + string("sha512") + string(bytes(64))


def frame(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message


def sign(key: bytes = b"k", data: bytes = b"d", flags: int = 0) -> bytes:
    return b"\x0d" + string(key) + string(data) + struct.pack(">I", flags)


def bind(*, forwarded: bytes = b"\x00", session: bytes = SESSION) -> bytes:
    return b"\x1b" + string(wire.SESSION_BIND) + string(b"host") + string(session) + string(b"sig") + forwarded


@pytest.mark.parametrize(
    ("message", "request_"),
    [
        (b"\x0b", wire.ListKeys()),
        (sign(flags=4), wire.Sign(b"k", b"d", 4)),
        (bind(), wire.Bind(b"host", SESSION, b"sig", False)),
        (bind(forwarded=b"\x01"), wire.Bind(b"host", SESSION, b"sig", True)),
        (b"\x1b" + string("query"), wire.Query()),
        (b"\x1b" + string("other@example.test") + b"whatever", wire.Other("extension other@example.test")),
        (b"\x11" + b"a key to add", wire.Other("add-identity")),
        (b"\x13", wire.Other("remove-all-identities")),
        (b"\x16" + string("password"), wire.Other("lock")),
        (b"\x01", wire.Other("request-rsa-identities")),
        (b"\xff", wire.Other("message 255")),
    ],
)
def test_requests(message: bytes, request_: wire.Request) -> None:
    found = wire.parse_request(message)
    assert (type(found), found) == (type(request_), request_)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x0b\x00",
        b"\x0d",
        sign() + b"\x00",
        sign()[:-1],
        b"\x0d" + b"\xff\xff\xff\xff" + b"k",
        bind(forwarded=b""),
        bind(forwarded=b"\x02"),
        bind() + b"\x00",
        bind(session=b""),
        bind(session=bytes(19)),
        bind(session=bytes(65)),
        b"\x1b",
        b"\x1b" + string(b"\xff"),
        b"\x1b" + string("query\n"),
        b"\x1b" + string("query") + b"\x00",
    ],
)
def test_malformed_requests(message: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_request(message)


def test_what_is_signed() -> None:
    assert wire.parse_signable(USERAUTH) == wire.UserAuth(SESSION, "git", "ssh-ed25519", b"blob", None)
    assert wire.parse_signable(HOSTBOUND) == wire.UserAuth(SESSION, "git", "ssh-ed25519", b"blob", b"host")
    assert wire.parse_signable(SSHSIG) == wire.SshSig("git", "sha512")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"any text that somebody would like to have signed",
        USERAUTH + b"\x00",
        USERAUTH[:-1],
        HOSTBOUND + string(b"more"),
        USERAUTH + string(b"host"),  # a host key without the method that has one
        USERAUTH.replace(b"\x32", b"\x33"),
        USERAUTH.replace(b"\x01" + string("ssh-ed25519"), b"\x00" + string("ssh-ed25519")),
        USERAUTH.replace(string("ssh-connection"), string("ssh-userauth")),
        USERAUTH.replace(string("publickey"), string("hostbased")),
        USERAUTH.replace(string("git"), string("")),
        USERAUTH.replace(string("git"), string("git\n")),
        USERAUTH.replace(string(SESSION), string(b"short")),
        SSHSIG + b"\x00",
        SSHSIG[:-1],
        SSHSIG.replace(string("git"), string("")),
        SSHSIG.replace(string("sha512"), string("sha256")),
        SSHSIG.replace(string("sha512"), string("md5")),
        b"SSHSIG" + string("git") + string("reserved") + string("sha512") + string(bytes(64)),
    ],
)
def test_nothing_else_is_signed(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_signable(data)


@pytest.mark.parametrize(
    ("encoded", "value"), [(b"", 0), (b"\x7f", 127), (b"\x00\x80", 128), (b"\x01\x00", 256), (b"\x00\xff\xff", 65535)]
)
def test_numbers(encoded: bytes, value: int) -> None:
    assert wire.Reader(string(encoded)).mpint() == value
    assert mpint(value) == string(encoded)


@pytest.mark.parametrize("encoded", [b"\x00", b"\x80", b"\xff", b"\x00\x7f", b"\x00\x00\x80"])
def test_numbers_have_one_encoding(encoded: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.Reader(string(encoded)).mpint()


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.data())
def test_framing_does_not_depend_on_how_bytes_arrive(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, messages))
    framer, found = wire.Framer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        framer.feed(stream[:size])
        stream = stream[size:]
        while (message := framer.next()) is not None:
            found.append(message)
    assert found == messages
    assert framer.pending == 0


@pytest.mark.parametrize("size", [0, wire.MESSAGE_MAX + 1, 5 << 20, 0xFFFFFFFF])
def test_a_message_of_a_wrong_size_ends_the_stream_before_it_arrives(size: int) -> None:
    framer = wire.Framer()
    framer.feed(struct.pack(">I", size))
    with pytest.raises(wire.WireError):
        framer.next()


def test_the_largest_message() -> None:
    framer = wire.Framer()
    framer.feed(frame(bytes(wire.MESSAGE_MAX)))
    assert framer.next() == bytes(wire.MESSAGE_MAX)


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_a_request_or_a_wire_error(data: bytes) -> None:
    for parse in (wire.parse_request, wire.parse_signable):
        try:
            parse(data)
        except wire.WireError:
            pass


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from([USERAUTH, HOSTBOUND, SSHSIG, sign(), bind()]), st.data())
def test_a_changed_byte_gives_a_value_or_a_wire_error(good: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + data.draw(st.integers(0, 4)) :]
    for parse in (wire.parse_request, wire.parse_signable):
        try:
            parse(bad)
        except wire.WireError:
            pass


@given(st.binary(max_size=50), st.binary(max_size=500), st.integers(0, 0xFFFFFFFF))
def test_a_sign_request_reads_back(key: bytes, data: bytes, flags: int) -> None:
    assert wire.parse_request(sign(key, data, flags)) == wire.Sign(key, data, flags)


@given(st.integers(0, 1 << 4096))
def test_a_number_reads_back(value: int) -> None:
    assert wire.Reader(mpint(value)).mpint() == value
