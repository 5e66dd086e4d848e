"""The echo guard, the usage counter, the ledger and the hash-chained journal, by themselves."""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
import urllib.parse
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terok_host.sidecars.kit.refusal import Refused
from terok_host.sidecars.vault.books import journal
from terok_host.sidecars.vault.books.journal import Journal, verify
from terok_host.sidecars.vault.books.ledger import Counts, Ledger, Limit
from terok_host.sidecars.vault.books.usage import Counter, Tokens
from terok_host.sidecars.vault.echo import HOLD_MIN, Guard, Inflater, cores_of, patterns

SECRET = b'sk-live-AbC/123+xyz="q\\7TgV'


def sent(pieces: list[bytes], secret: bytes = SECRET) -> bytes | None:
    """What the guard lets through; None when it found the secret."""
    guard = Guard(patterns([secret]))
    try:
        return b"".join(guard.feed(piece) for piece in pieces) + guard.feed(b"", last=True)
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
    "basic": base64.b64encode(b"someone:" + SECRET),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_guard_finds_every_form(form: str) -> None:
    text = b"before " + FORMS[form] + b" behind"
    assert sent([text]) is None
    for size in range(1, 12):
        assert sent([text[at : at + size] for at in range(0, len(text), size)]) is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.binary(min_size=8, max_size=60), st.from_regex(rb"[0-9A-Za-z+/_-]{8,60}", fullmatch=True)))
)
def test_every_pattern_has_a_core_in_it(secrets: list[bytes]) -> None:
    wanted = patterns(secrets)
    cores = cores_of(wanted)
    assert all(any(core in each for core in cores) for each in wanted)
    assert all(Guard(wanted).inside(b"." + each + b".") for each in wanted)
    assert all(len(core) >= HOLD_MIN for core in cores)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.lists(st.integers(0, 120), max_size=6), st.binary(max_size=40))
def test_however_it_is_split(form: str, cuts: list[int], before: bytes) -> None:
    text = before + FORMS[form] + b"!"
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert sent([text[a:b] for a, b in zip(places, places[1:], strict=False)]) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([SECRET[:3], SECRET[:-1], SECRET[1:], b"x", b"sk-live-", b"\n\n"]), max_size=12))
def test_what_is_no_secret_passes_whole(pieces: list[bytes]) -> None:
    if SECRET not in b"".join(pieces):
        assert sent(pieces) == b"".join(pieces)


def test_no_more_than_a_prefix_passes_before_the_cut() -> None:
    guard = Guard(patterns([SECRET]))
    passed = guard.feed(b"key: " + SECRET[: HOLD_MIN - 1])
    assert passed == b"key: " + SECRET[: HOLD_MIN - 1]
    assert guard.feed(SECRET[HOLD_MIN - 1 : 20]) == b""
    assert guard.holds
    with pytest.raises(Refused):
        guard.feed(SECRET[20:])


def test_an_event_is_never_held_back() -> None:
    guard = Guard(patterns([SECRET]))
    event = b'data: {"text": "sk-live-"}\n\n'
    assert guard.feed(event) == event


def test_short_secrets_are_not_looked_for() -> None:
    assert patterns([b"short"]) == ()


def test_compressed_bodies_are_looked_into() -> None:
    for data in (gzip.compress(b"a" * 999) + gzip.compress(b"b"), zlib.compress(b"a" * 999 + b"b")):
        inflater = Inflater()
        assert b"".join(inflater.feed(data[at : at + 7]) for at in range(0, len(data), 7)) == b"a" * 999 + b"b"
    with pytest.raises(Refused):
        Inflater().feed(b"not compressed at all")
    with pytest.raises(Refused):
        Inflater().feed(gzip.compress(b"\0" * (80 << 20), 9))


# --- usage ---

ANTHROPIC = {
    "type": "message",
    "content": [],
    "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 7},
}
OPENAI = {
    "choices": [],
    "usage": {
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}
RESPONSES = {
    "output": [],
    "usage": {"input_tokens": 20, "input_tokens_details": {"cached_tokens": 6}, "output_tokens": 9},
}
ANTHROPIC_EVENTS = (
    'event: message_start\ndata: {"message":{"id":"m","usage":{"input_tokens":25,"output_tokens":1}}}\n\n'
    'event: content_block_delta\ndata: {"delta":{"text":"a \\"usage\\": {\\"output_tokens\\": 999}"}}\n\n'
    'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":15}}\n\n'
    'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
OPENAI_EVENTS = (
    'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\n'
    'data: {"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
)
RESPONSES_EVENTS = 'event: response.completed\ndata: {"response":{"usage":{"input_tokens":30,"output_tokens":4}}}\n\n'


@pytest.mark.parametrize(
    ("kind", "text", "tokens"),
    [
        (b"application/json", json.dumps(ANTHROPIC), Tokens(15, 7, 5)),
        (b"application/json; charset=utf-8", json.dumps(OPENAI, indent=1), Tokens(11, 3, 4)),
        (b"application/json", json.dumps(RESPONSES), Tokens(20, 9, 6)),
        (b"application/json", json.dumps({"text": 'a "usage": {"output_tokens": 5}'}), Tokens()),
        (b"application/json", "x" * 200_000 + json.dumps(OPENAI), Tokens(11, 3, 4)),
        (b"application/json", '{"usage": [1]}', Tokens()),
        (b"application/json", '{"usage": {"input_tokens": true, "output_tokens": -5}}', Tokens()),
        (b"application/json", '{"usage": {"input', Tokens()),
        (b"text/event-stream", ANTHROPIC_EVENTS, Tokens(25, 15, 0)),
        (b"text/event-stream; charset=utf-8", OPENAI_EVENTS, Tokens(8, 2, 0)),
        (b"text/event-stream", RESPONSES_EVENTS.rstrip("\n"), Tokens(30, 4, 0)),
        (b"text/event-stream", ANTHROPIC_EVENTS.replace("\n", "\r\n"), Tokens(25, 15, 0)),
    ],
)
def test_usage_is_read_from_every_shape(kind: bytes, text: str, tokens: Tokens) -> None:
    for size in (len(text), 1000, 17):
        counter = Counter.fitting(kind)
        assert counter is not None
        for at in range(0, len(text), size):
            counter.feed(text[at : at + size].encode())
        assert counter.end() == tokens


def test_other_types_have_no_usage() -> None:
    assert Counter.fitting(b"text/plain") is None
    assert Counter.fitting(b"application/problem+json") is not None


# --- ledger ---


def test_the_ledger_adds_up_and_limits(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    ledger, other = Ledger(path), Ledger(path)
    now = time.time()
    mine, theirs = Counts(ledger, "one"), Counts(other, "two")
    assert mine.exceeded("work", now) is None
    assert mine.add("work", "p", 1, 10, 20, 100, 5, 0)
    assert not mine.add("work", "p", 1, 10, 20, 100, 5, 0)
    theirs.add("work", "p", 1, 0, 0, 0, 50, 0)
    assert mine.flush() and theirs.flush()
    rows = ledger.rows(scope="work")
    assert [(row.container, row.requests, row.input_tokens, row.output_tokens) for row in rows] == [
        ("one", 2, 200, 10),
        ("two", 1, 0, 50),
    ]
    other.set_limit(Limit("work", "day", None, 261))
    assert mine.exceeded("work", now + 2) is None
    mine.add("work", "p", 1, 0, 0, 1, 0, 0)
    reached = mine.exceeded("work", now + 2)
    assert reached is not None
    assert reached[1] > now
    assert mine.exceeded("elsewhere", now + 2) is None
    other.set_limit(Limit("work", "day", None, None))
    assert mine.exceeded("work", now + 4) is None
    with pytest.raises(ValueError, match="hour"):
        ledger.set_limit(Limit("work", "year", 1, 1))
    assert os.stat(path).st_mode & 0o777 == 0o600
    ledger.close()
    other.close()


# --- journal ---


def bodies(count: int, first: int = 0) -> list[bytes]:
    return [b'{"n": %d' % number for number in range(first, first + count)]


def test_the_journal_is_json_lines_with_a_chain(tmp_path: Path) -> None:
    path = str(tmp_path / "audit.jsonl")
    one, two = Journal(path), Journal(path)
    for number in range(6):
        (one if number % 2 else two).append(bodies(2, 2 * number))
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert [line["n"] for line in lines] == list(range(12))
    assert verify(path) == (12, "")
    assert os.stat(path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: [*lines[:3], *lines[4:]], "does not follow"),
        (lambda lines: [*lines[:3], lines[3].replace(b'"n": 3', b'"n": 9'), *lines[4:]], "does not follow"),
        (lambda lines: lines[:-1], "end"),
        (lambda lines: lines[1:], "not the first"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "not the first"),
        (lambda lines: [*lines, lines[-1]], "does not follow"),
        (lambda lines: [*lines[:2], b'{"n": 2}\n', *lines[2:]], "no chain"),
        (lambda lines: [], "end"),
    ],
)
def test_every_change_is_found(tmp_path: Path, change: object, says: str) -> None:
    path = tmp_path / "audit.jsonl"
    Journal(str(path)).append(bodies(8))
    assert callable(change)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    assert says in verify(str(path)).wrong


def test_the_journal_rotates_and_the_chain_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SIZE_MAX", 2000)
    path = str(tmp_path / "audit.jsonl")
    made = Journal(path)
    for number in range(30):
        made.append(bodies(1, number))
    assert verify(path) == (30, "")
    assert Path(path + ".1").stat().st_size > 2000
    for number in range(30, 99):
        made.append(bodies(1, number))
    verdict = verify(path)
    assert verdict.wrong == "" and verdict.lines < 99
    assert Path(path).stat().st_size < 2200


def test_a_writer_killed_between_line_and_head_is_made_good(tmp_path: Path) -> None:
    path = str(tmp_path / "audit.jsonl")
    made = Journal(path)
    made.append(bodies(3))
    head = Path(path + ".head").read_bytes()
    made.append(bodies(1, 3))
    Path(path + ".head").write_bytes(head)
    Journal(path).append(bodies(1, 4))
    assert verify(path) == (5, "")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    Journal(str(path)).append(bodies(1))
    before = path.read_bytes()
    pid = os.fork()
    if pid == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, len(before) + 20))
        try:
            Journal(str(path)).append(bodies(1, 1))
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert path.read_bytes() == before
    assert verify(str(path)) == (1, "")
