"""The usage counter, the ledger and the hash-chained journal, by themselves."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path

import pytest

from terok_host.sidecars.vault.books import journal
from terok_host.sidecars.vault.books.journal import Journal, verify
from terok_host.sidecars.vault.books.ledger import MODELS_MAX, OTHER_MODEL, Counts, Ledger, Limit
from terok_host.sidecars.vault.books.usage import Counter, Tokens

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
GOOGLE = {
    "candidates": [{"content": {"parts": [{"text": "x"}]}}],
    "usageMetadata": {
        "promptTokenCount": 40,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 5,
        "cachedContentTokenCount": 30,
        "totalTokenCount": 55,
    },
    "modelVersion": "gemini-2.5-flash",
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


@pytest.mark.parametrize(
    ("kind", "text", "model", "tokens"),
    [
        (b"application/json", {"model": "claude-sonnet-4-6", **ANTHROPIC}, "claude-sonnet-4-6", Tokens(15, 7, 5)),
        (
            b"application/json",
            {"model": "m-1", "usage": {"input_tokens": 1, "cache_creation_input_tokens": 20, "output_tokens": 2}},
            "m-1",
            Tokens(21, 2, 0, 20),
        ),
        (b"application/json", {"model": "gpt-5.5", "text": "x" * 200_000, **OPENAI}, "gpt-5.5", Tokens(11, 3, 4)),
        (b"application/json", {"text": 'a "model": "b"', **OPENAI}, "", Tokens(11, 3, 4)),
        (b"application/json", {"model": 'x", "verdict": "', **OPENAI}, "", Tokens(11, 3, 4)),
        (b"application/json", GOOGLE, "gemini-2.5-flash", Tokens(40, 15, 30)),
        (b"text/event-stream", f"data: {json.dumps(GOOGLE)}\r\n\r\n", "gemini-2.5-flash", Tokens(40, 15, 30)),
        (
            b"text/event-stream",
            'data: {"message":{"model":"claude-x","usage":{"input_tokens":25,"output_tokens":1}}}\n\n'
            'data: {"delta":{"text":"\\"model\\": \\"y\\""},"usage":{"output_tokens":15}}\n\n',
            "claude-x",
            Tokens(25, 15, 0),
        ),
    ],
)
def test_the_model_is_read_beside_the_usage(
    kind: bytes, text: str | dict[str, object], model: str, tokens: Tokens
) -> None:
    whole = text if isinstance(text, str) else json.dumps(text)
    for size in (len(whole), 5000, 700):
        counter = Counter.fitting(kind)
        assert counter is not None
        for at in range(0, len(whole), size):
            counter.feed(whole[at : at + size].encode())
        assert (counter.end(), counter.model) == (tokens, model)


# --- ledger ---


def test_tokens_are_counted_by_model(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    ledger = Ledger(path)
    counts = Counts(ledger, "box")
    for number in range(MODELS_MAX + 5):
        counts.add("work", "p", 1, 0, 0, 100, 5, 10)
        counts.add_model("work", "p", f"model-{number}", 100, 5, 10, 2)
        counts.add("work", "p", 1, 0, 0, 100, 5, 10)
        counts.add_model("work", "p", "model-0", 100, 5, 10, 2)
    assert counts.flush() and counts.flush()
    reader = Ledger(path, read_only=True)
    rows = {row.model: row for row in reader.models()}
    assert len(rows) == MODELS_MAX + 1
    assert rows["model-0"][4:] == tuple(tokens * (MODELS_MAX + 6) for tokens in (100, 5, 10, 2))
    assert rows[OTHER_MODEL].input_tokens == 500
    assert reader.models(since=time.time() + 7200) == []
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.set_limit(Limit("work", "day", 1, 1))
    reader.close()
    ledger.close()


def test_a_file_of_an_older_version_gets_the_tables_it_lacks(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    old = Ledger(path)
    old.add({("work", "box", "p", 1): [1, 2, 3, 4, 5, 6]})
    old.close()
    raw = sqlite3.connect(path)
    raw.executescript("DROP TABLE models; DROP TABLE declined")
    raw.close()
    new = Ledger(path, read_only=True)
    assert new.rows()[0].requests == 1 and new.models() == [] and new.reached(time.time()) == []
    new.close()


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
