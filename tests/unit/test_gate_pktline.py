"""Tests of git's framing and the command list of a push."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.gate import pktline
from terok_host.sidecars.gate.pktline import Command, CommandReader, ProtocolError, Push, Splitter, encode, valid_ref

A, B, ZERO = "a" * 40, "b" * 40, "0" * 40


def head(*lines: bytes) -> bytes:
    return b"".join(encode(line) for line in lines) + b"0000"


def read(data: bytes, *, commands_max: int = 10) -> Push | None:
    return CommandReader(commands_max=commands_max).feed(data)


def test_a_push_is_read_before_its_pack() -> None:
    data = head(
        b"shallow " + B.encode(),
        f"{ZERO} {A} refs/heads/x\0 report-status side-band-64k agent=git/2".encode(),
        f"{A} {ZERO} refs/tags/y\n".encode(),
    )
    reader = CommandReader(commands_max=5)
    assert reader.feed(data[:50]) is None
    push = reader.feed(data[50:] + b"PACK....")
    assert push is not None
    assert push.commands == (Command(ZERO, A, "refs/heads/x"), Command(A, ZERO, "refs/tags/y"))
    assert push.capabilities == {"report-status": "", "side-band-64k": "", "agent": "git/2"}
    assert push.shallow == (B,)
    assert push.has_pack
    assert reader.rest == b"PACK...."
    assert push.commands[0].creates and push.commands[1].deletes


def test_the_probe_is_a_push_of_nothing() -> None:
    push = read(b"0000")
    assert push is not None and push.commands == () and not push.has_pack


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"00zz", "bad length"),
        (b"+123", "bad length"),
        (b" 012", "bad length"),
        (b"0x12", "bad length"),
        (b"0001", "bad length"),
        (b"ffff", "bad length"),
        (head(b"push-cert\0x"), "signed"),
        (head(b"hello"), "neither"),
        (head(f"{A} {B}".encode()), "neither"),
        (head(f"{A} {B[:-1]} refs/heads/x".encode()), "neither"),
        (head(f"{A.upper()} {B} refs/heads/x".encode()), "neither"),
        (head(f"{A}{A[:24]} {B}{B[:24]} refs/heads/x".encode()), "neither"),
        (head(f"{ZERO} {ZERO} refs/heads/x".encode()), "neither created"),
        (head(f"{A} {B} refs/heads/../x".encode()), "malformed"),
        (head(f"{A} {B} HEAD".encode()), "malformed"),
        (head(f"{A} {B} refs/heads/x y".encode()), "malformed"),
        (head(f"{A} {B} refs/heads/x".encode(), f"{B} {A} refs/heads/x".encode()), "twice"),
        (head(f"{A} {B} refs/heads/x".encode(), f"{A} {B} refs/heads/y\0 atomic".encode()), "later ref"),
        (head(*(f"{A} {B} refs/heads/{n}".encode() for n in range(11))), "10 refs"),
        (head(f"{A} {B} refs/heads/x".encode(), f"shallow {A}".encode()), "neither"),
    ],
)
def test_what_is_not_understood_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        read(data)


def test_an_endless_list_of_shallow_roots_is_refused() -> None:
    line = encode(f"shallow {A}".encode())
    reader = CommandReader(commands_max=1)
    with pytest.raises(ProtocolError, match="too long"):
        for _ in range(30_000):
            reader.feed(line)


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("refs/heads/main", True),
        ("refs/heads/agent/some.thing-1_2", True),
        ("refs/heads/ümlaut", True),
        ("refs/heads/\udcff", True),
        ("refs/main", False),
        ("heads/main", False),
        ("refs/heads/", False),
        ("refs/heads/x/", False),
        ("refs/heads//x", False),
        ("refs/heads/.x", False),
        ("refs/heads/x.", False),
        ("refs/heads/x.lock", False),
        ("refs/heads/x.lock/y", False),
        ("refs/heads/a..b", False),
        ("refs/heads/a@{b", False),
        ("refs/heads/a\nb", False),
        ("refs/heads/a\0b", False),
        ("refs/heads/a\x1bb", False),
        ("refs/heads/a b", False),
        *[(f"refs/heads/a{character}b", False) for character in "~^:?*[\\\x7f"],
        ("refs/heads/" + "x" * 201, False),
        ("refs/heads/" + "x/" * 260 + "x", False),
    ],
)
def test_ref_names(name: str, valid: bool) -> None:
    assert valid_ref(name) is valid


def test_four_zeros_as_a_payload_are_no_flush() -> None:
    splitter = Splitter()
    splitter.feed(encode(b"0000") + b"0000")
    assert splitter.take() is not pktline.FLUSH
    assert splitter.take() is pktline.FLUSH
    assert splitter.take() is None


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(1, 50))
def test_splitting_does_not_depend_on_how_bytes_arrive(payloads: list[bytes], size: int) -> None:
    data = b"".join(encode(payload) for payload in payloads)
    splitter, found = Splitter(), []
    for at in range(0, len(data), size):
        splitter.feed(data[at : at + size])
        while (line := splitter.take()) is not None:
            found.append(line)
    assert found == payloads and splitter.rest == b""


@given(st.binary(max_size=400))
def test_any_bytes_are_a_push_or_refused(data: bytes) -> None:
    try:
        read(data)
    except ProtocolError:
        pass


def test_what_receive_pack_gets_names_no_ref_of_the_client() -> None:
    push = Push((Command(ZERO, A, "refs/heads/x"), Command(B, A, "refs/heads/y")), {"quiet": "", "atomic": ""}, (B,))
    assert pktline.staged(push, list(push.commands), "refs/in/") == head(
        b"shallow " + B.encode(),
        f"{ZERO} {A} refs/in/0\0 report-status side-band-64k object-format=sha1 quiet".encode(),
        f"{ZERO} {A} refs/in/1".encode(),
    )


def test_a_report_survives_its_own_reader() -> None:
    data = pktline.report("ok", [("refs/heads/x", ""), ("refs/heads/y", "not\nthis  one")], side_band=False)
    assert pktline.parse_report(data) == ("ok", {"refs/heads/x": "", "refs/heads/y": "not this one"})
    wrapped = pktline.report("ok", [("refs/heads/x", "")], side_band=True)
    assert wrapped == encode(b"\x01" + pktline.report("ok", [("refs/heads/x", "")], side_band=False)) + b"0000"


@pytest.mark.parametrize("data", [b"", b"0000", encode(b"unpack ok\n"), encode(b"ok refs/heads/x\n") + b"0000"])
def test_half_a_report_is_none(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        pktline.parse_report(data)


def test_a_long_message_is_split_over_pkt_lines() -> None:
    data = pktline.band(2, b"x" * 70_000)
    splitter = Splitter()
    splitter.feed(data)
    first, second = splitter.take(), splitter.take()
    assert first is not None and second is not None
    assert (len(first), len(second)) == (pktline.PAYLOAD_MAX, 70_002 - pktline.PAYLOAD_MAX)
