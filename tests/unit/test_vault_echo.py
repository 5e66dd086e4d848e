"""The echo guard, by itself: every form of a secret, however it is cut, compressed or escaped."""

from __future__ import annotations

import base64
import gzip
import json
import urllib.parse
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terok_host.sidecars.kit.refusal import Refused
from terok_host.sidecars.vault.guard.echo import HOLD_MIN, Guard, Patterns
from terok_host.sidecars.vault.guard.screen import Inflater, Screen

SECRET = b'sk-live-AbC/123+xyz="q\\7TgV'


def sent(pieces: list[bytes], secret: bytes = SECRET) -> bytes | None:
    """What the guard lets through; None when it found the secret."""
    screen = Screen(Patterns([secret]), compressed=False, plain=None, sure=True)
    try:
        return b"".join(screen.feed(piece, last=False) for piece in pieces) + screen.feed(b"", last=True)
    except Refused:
        return None


FORMS = {
    "raw": SECRET,
    "percent": urllib.parse.quote(SECRET.decode(), safe="").encode(),
    "percent-lower": urllib.parse.quote(SECRET.decode(), safe="").replace("%2F", "%2f").replace("%2B", "%2b")
    .replace("%3D", "%3d").replace("%5C", "%5c").encode(),
    "percent-all": "".join(f"%{byte:02X}" for byte in SECRET).encode(),
    "percent-all-lower": "".join(f"%{byte:02x}" for byte in SECRET).encode(),
    "json": json.dumps(SECRET.decode()).encode(),
    "json-slash": json.dumps(SECRET.decode()).replace("/", "\\/").encode(),
    **{f"base64-{n}": base64.b64encode(b"z" * n + SECRET + b"tail") for n in range(6)},
    **{f"urlsafe-{n}": base64.urlsafe_b64encode(b"z" * n + SECRET) for n in range(6)},
    "hex": SECRET.hex().encode(),
    "hex-upper": SECRET.hex().upper().encode(),
    **{f"base32-{n}": base64.b32encode(b"z" * n + SECRET + b"tail") for n in range(6)},
    "utf-16-le": SECRET.decode().encode("utf-16-le"),
    "utf-16-be": SECRET.decode().encode("utf-16-be"),
    "one-json-escape": SECRET.replace(b"+", b"\\u002B"),
    "json-letters": b"".join(b"\\u%04x" % byte if byte % 3 else b"%c" % byte for byte in SECRET),
    "json-twice": json.dumps(json.dumps({"key": SECRET.decode()}).replace("+", "\\u002b")).encode(),
    "one-percent-escape": SECRET.replace(b"k", b"%6b"),
    "percent-twice": SECRET.replace(b"/", b"%252F"),
    "c-escapes": b"".join(b"\\x%02x" % byte for byte in SECRET),
    "html": SECRET.replace(b"+", b"&#43;").replace(b"/", b"&#x2F;").replace(b'"', b"&#34;"),
    "base64-escaped": base64.b64encode(b"zz" + SECRET).replace(b"+", b"\\u002b").replace(b"/", b"\\/"),
    "basic": base64.b64encode(b"someone:" + SECRET),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_guard_finds_every_form(form: str) -> None:
    text = b"before " + FORMS[form] + b" behind"
    assert sent([text]) is None
    for size in range(1, 12):
        assert sent([text[at : at + size] for at in range(0, len(text), size)]) is None


@pytest.mark.parametrize("form", FORMS)
def test_heads_and_trailers_are_looked_through_in_every_form(form: str) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: https://evil.test/?k=" + FORMS[form] + b"\r\n\r\n"
    assert Patterns([SECRET]).anywhere(head)
    assert not Patterns([SECRET]).anywhere(head.replace(FORMS[form], b"none"))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.binary(min_size=8, max_size=60), st.from_regex(rb"[0-9A-Za-z+/_-]{8,60}", fullmatch=True)))
)
def test_every_pattern_has_a_core_in_it(secrets: list[bytes]) -> None:
    patterns = Patterns(secrets)
    assert all(any(core in form for core in patterns.cores) for form in patterns.wanted)
    assert all(patterns.inside(b"." + form + b".") for form in patterns.wanted)
    assert all(len(core) >= HOLD_MIN for core in patterns.cores)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.lists(st.integers(0, 120), max_size=6), st.binary(max_size=40))
def test_however_it_is_split(form: str, cuts: list[int], before: bytes) -> None:
    text = before + FORMS[form] + b"!"
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert sent([text[a:b] for a, b in zip(places, places[1:], strict=False)]) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([SECRET[:3], SECRET[:-1], SECRET[1:], b"x", b"sk-live-", b"\n\n"]), max_size=12))
def test_what_is_no_secret_passes_whole(pieces: list[bytes]) -> None:
    pieces.append(b".")
    if SECRET not in b"".join(pieces):
        assert sent(pieces) == b"".join(pieces)


def test_no_more_than_a_prefix_passes_before_the_cut() -> None:
    guard = Guard(Patterns([SECRET]))
    passed = guard.feed(b"key: " + SECRET[: HOLD_MIN - 1])
    assert passed == b"key: " + SECRET[: HOLD_MIN - 1]
    assert guard.feed(SECRET[HOLD_MIN - 1 : 20]) == b""
    assert guard.holds
    with pytest.raises(Refused):
        guard.feed(SECRET[20:])


def test_an_event_is_never_held_back() -> None:
    guard = Guard(Patterns([SECRET]))
    event = b'data: {"text": "sk-live-"}\n\n'
    assert guard.feed(event) == event


def test_short_secrets_are_not_looked_for() -> None:
    assert Patterns([b"short"]).wanted == ()


def raw_deflate(data: bytes) -> bytes:
    """Deflate without zlib's header, as some servers send it."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def inflated(data: bytes, step: int) -> bytes:
    """What an inflater makes of a body that arrives in steps."""
    inflater, out = Inflater(), b""
    for at in range(0, len(data), step):
        out += inflater.feed(data[at : at + step])
        while inflater.busy:
            out += inflater.feed(b"")
    return out


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_compressed_bodies_are_looked_into(pack: Callable[[bytes], bytes], step: int) -> None:
    text = b"a" * 999 + b"b"
    assert inflated(pack(text), step) == text
    for secret in (SECRET, SECRET.replace(b"+", b"\\u002B")):
        screen = Screen(Patterns([SECRET]), compressed=True, plain=None, sure=True)
        data, passed = pack(b"before " + secret + b" behind"), b""
        with pytest.raises(Refused) as caught:
            for at in range(0, len(data), step):
                passed += screen.feed(data[at : at + step], last=False)
            screen.feed(b"", last=True)
        assert caught.value.refusal.rule == "echo"


def test_several_streams_behind_each_other_are_one_body() -> None:
    assert inflated(gzip.compress(b"a" * 99) + gzip.compress(b"b"), 5) == b"a" * 99 + b"b"


def test_what_cannot_be_inflated_is_refused_as_that() -> None:
    with pytest.raises(Refused) as caught:
        Inflater().feed(b"not compressed at all")
    assert caught.value.refusal.rule == "content-coding"


@pytest.mark.parametrize("step", [1, 2, 1 << 20])
def test_gzip_that_does_not_say_so_is_looked_into(step: int) -> None:
    data = gzip.compress(b"before " + SECRET + b" behind")
    assert sent([data[at : at + step] for at in range(0, len(data), step)]) is None
    archive = gzip.compress(b"an archive of no interest" * 99)
    assert sent([archive[at : at + step] for at in range(0, len(archive), step)]) == archive
    broken = archive[:30] + b"not gzip any more" + archive[30:]
    assert sent([broken]) == broken


def test_a_bomb_takes_many_turns_and_no_memory() -> None:
    screen = Screen(Patterns([SECRET]), compressed=True, plain=None, sure=True)
    data = gzip.compress(b"\0" * (20 << 20), 9)
    assert screen.feed(data, last=True) == b""
    turns = 1
    while screen.busy:
        passed = screen.feed(b"", last=True)
        turns += 1
    assert passed == data
    assert turns > 70


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_answer_that_ends_inside_the_secret_forwards_nothing_of_it(share: float) -> None:
    part = SECRET[: int(len(SECRET) * share) + 1]
    for form in (part, part.hex().encode(), part.replace(b"-", b"%2D")):
        assert sent([b"text ", form]) is None
        assert sent([b"text " + form]) is None


def test_a_connection_that_ends_inside_the_secret_forwards_nothing_of_it() -> None:
    screen = Screen(Patterns([SECRET]), compressed=False, plain=None, sure=False)
    assert screen.feed(b"text " + SECRET[:6], last=False) == b"text "
    with pytest.raises(Refused):
        screen.feed(b"", last=True)
