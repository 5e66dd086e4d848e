"""`terok top` without its terminal: what is read, bounded and ordered, over real state bundles, logs and counts."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from terok_host.runtime.kit.table import plain
from terok_host.runtime.top import columns, text, traffic
from terok_host.runtime.top.columns import Column
from terok_host.runtime.top.gather import Watch
from terok_host.runtime.top.model import Container, Destination, Refusal, Service, Snapshot, Usage, order
from terok_host.runtime.top.tail import LINE_MAX, PART, Tail
from terok_host.runtime.top.traffic import Traffic
from terok_host.sidecars.vault.books.ledger import Ledger
from terok_host.supervisor.ground import audit
from tests.standins.decisions import Operator

EVIL = "x\x1b[2J[red]\N{RIGHT-TO-LEFT OVERRIDE}\r\n[/] \ud800"


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def watch(operator: Operator, prices: str | None = None) -> Watch:
    return Watch(operator.env(io.StringIO(), json_output=False), prices)


def look(operator: Operator) -> Snapshot:
    watching = watch(operator)
    try:
        return watching.look(time.time())
    finally:
        watching.close()


# --- the snapshot ---


def test_a_snapshot_has_what_status_usage_and_queue_have(operator: Operator) -> None:
    operator.hold("box")
    operator.use("work", 7, 90)
    bundle = operator.layout.bundle("box")
    Path(bundle.meta).write_text(json.dumps({"scope": "work", "network": "airlock"}))
    audit.append(bundle.audit, "shield", "connection", verdict="refused", name=EVIL, port=443, reason="not allowed")
    snapshot = look(operator)
    (row,) = snapshot.containers
    assert (row.name, row.state, row.network, row.scope) == ("box", "running", "airlock", "work")
    assert row.memory > 1_000_000  # this process stands for the supervisor
    assert (row.usage.requests, row.usage.tokens, row.usage.unpriced, row.refused) == (7, 90, 90, 1)
    assert [item.kind for item in snapshot.queue] == ["connection"]
    assert snapshot.refusals[0].what.startswith("x\x1b[2J") and snapshot.refusals[0].container == "box"
    document = json.loads(json.dumps(snapshot.plain()))
    assert document["containers"][0]["usage"]["requests"] == document["usage"]["requests"] == 7
    assert document["queue"][0]["allow"].startswith("terok shield decide ")


def test_a_container_that_goes_is_no_longer_shown(operator: Operator) -> None:
    operator.hold("box")
    watching = watch(operator)
    assert watching.look(time.time()).container("box") is not None
    shutil.rmtree(operator.layout.bundle("box").root)
    assert watching.look(time.time()).containers == ()
    watching.close()


def test_a_new_container_of_the_same_name_has_no_old_refusals(operator: Operator) -> None:
    operator.hold("box")
    bundle = operator.layout.bundle("box")
    audit.append(bundle.audit, "shield", "connection", verdict="refused", name="a.example", port=443)
    watching = watch(operator)
    assert watching.look(time.time()).containers[0].refused == 1
    os.rename(bundle.root, f"{bundle.root}-gone")
    operator.hold("box")
    shutil.rmtree(f"{bundle.root}-gone")
    assert watching.look(time.time()).containers[0].refused == 0
    watching.close()


def test_the_order_and_the_words() -> None:
    rows = [
        Container("e", "stopped"),
        Container("d", "running"),
        Container("c", "running", troubles=("x",)),
        Container("b", "unsupervised"),
        Container("a", "UNPROTECTED"),
    ]
    assert [row.name for row in order(rows)] == ["a", "b", "c", "d", "e"]
    box = Container(
        "box", "running", services=(Service("vault", "on demand", None, 0), Service("gate", "running", 5, 1))
    )
    bare = Snapshot(0.0, (Container("a", "UNPROTECTED", fix="terok heal a"), box))
    assert text.containers(bare)[0].style == text.BAD and text.about(bare.containers[0]).endswith("Fix: terok heal a")
    assert text.summary(bare).startswith("1 UNPROTECTED  1 running")
    assert text.about(box) == "running gate, on demand vault"


def test_one_that_is_damaged_hides_no_other(operator: Operator) -> None:
    operator.hold("box")
    os.makedirs(os.path.join(operator.layout.containers, "no name"))
    odd = Path(operator.layout.containers) / "odd"
    for name in ("meta.json", "supervisor.json", "audit.jsonl", "hook-error.log"):
        (odd / name).mkdir(parents=True)
    (Path(operator.layout.containers) / "worse").mkdir()
    (Path(operator.layout.containers) / "worse" / "meta.json").write_text(
        '{"profiles": 5, "scope": [1], "network": {}}'
    )
    snapshot = look(operator)
    assert {row.name for row in snapshot.containers} == {"box", "odd", "worse"}
    assert snapshot.container("box") is not None and json.dumps(snapshot.plain())
    text.containers(snapshot)


# --- logs ---


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    line = json.dumps({"event": "old", "pad": "x" * 950}).encode() + b"\n"
    with open(path, "wb") as file:
        file.truncate(100 << 20)  # a hole, without a newline in it
        file.seek(0, os.SEEK_END)
        file.write(line * 1000 + b'{"event": "last"}\n{"event": "unfini')
    tail = Tail(str(path))
    began = time.monotonic()
    entries = tail.new()
    assert time.monotonic() - began < 2
    assert 200 < len(entries) < PART // 950 and entries[-1] == {"event": "last"} and tail.truncated
    with open(path, "ab") as file:
        file.write(b'shed"}\n')
    assert tail.new() == [{"event": "unfinished"}]
    assert tail.new() == []


def test_a_hostile_log_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    deep = b"[" * 5000
    huge = b'{"event": "' + b"x" * LINE_MAX + b'"}'
    lines = [deep, huge, b"\xff\xfe", b"[1]", b"null", b'{"port": NaN, "event": 5}', b'{"event": "fine"}']
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert [entry["event"] for entry in Tail(str(path)).new()] == [5, "fine"]
    with open(path, "ab") as file:
        file.write(b"x" * (3 * PART))  # a line that does not end
    tail = Tail(str(path))
    assert tail.new() == []
    with open(path, "ab") as file:
        file.write(b'x\n{"event": "next"}\n')
    assert tail.new() == [{"event": "next"}]


@pytest.mark.parametrize("kind", ["absent", "directory", "fifo", "link"])
def test_what_is_no_log_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audit.jsonl"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").write_text('{"event": "x"}\n')
        path.symlink_to(tmp_path / "other")
    assert Tail(str(path)).new() == []


def test_a_log_that_was_emptied_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"event": "one"}\n{"event": "two"}\n')
    tail = Tail(str(path))
    assert len(tail.new()) == 2
    path.write_text('{"event": "3"}\n')
    assert tail.new() == [{"event": "3"}]


def test_bytes_by_destination() -> None:
    seen = Traffic("box")
    place: dict[str, object] = {"name": "files.example", "address": "198.51.100.1", "port": 443}
    for identity in (1, 2):
        seen.add({"event": "connection", "verdict": "allowed", "id": identity, **place})
    seen.add({"event": "closed", "id": 1, "sent": 10, "received": 2000, **place})
    seen.add({"event": "connection", "verdict": "brokered", "id": 3, "name": "api.example", "port": 443})
    seen.add({"source": "vault", "event": "request", "upstream": "api.example", "bytes_in": 5, "bytes_out": 7})
    assert seen.destinations() == (
        Destination("files.example:443", 2, 1, 10, 2000),
        Destination("api.example:443", 1, 1, 5, 7),
    )
    seen.add({"event": "connection", "verdict": "allowed", "id": 1, **place})  # the next relay counts from 1
    assert sum(row.open for row in seen.destinations()) == 1


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["event", "verdict", "id", "name", "port", "sent", "count", "source", "bytes_in", "time"]),
            st.one_of(
                st.sampled_from(["connection", "closed", "allowed", "refused", "vault", "request"]),
                st.integers(),
                st.floats(),
                st.booleans(),
                st.none(),
                st.lists(st.integers(), max_size=2),
                st.text(max_size=5),
            ),
        ),
        max_size=30,
    )
)
def test_any_entry_is_taken_in(entries: list[dict[str, object]]) -> None:
    seen = Traffic("box")
    for entry in entries:
        seen.add(entry)
    assert all(row.sent >= 0 and row.received >= 0 for row in seen.destinations())
    text.refusals(seen.refusals)
    text.destinations(seen.destinations())


def test_what_is_kept_is_bounded() -> None:
    seen = Traffic("box")
    for number in range(5000):
        host = {"name": f"n{number}.example", "port": 443}
        seen.add({"event": "connection", "verdict": "allowed", "id": number + 1, **host})
        seen.add({"event": "connection", "verdict": "refused", **host})
    assert len(seen.destinations()) <= traffic.PLACES_MAX + 1
    assert sum(row.open for row in seen.destinations()) <= traffic.OPEN_MAX
    assert (len(seen.refusals), seen.refused) == (traffic.REFUSALS_MAX, 5000)


# --- what is shown ---


@given(st.text(max_size=60), st.integers(1, 120))
def test_no_cell_leaves_its_width_or_carries_a_control_character(word: str, width: int) -> None:
    shown = columns.crop(columns.cell(word), width)
    assert shown == plain(shown)
    assert cell_len(shown) == width


@given(
    st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), max_size=5),
    st.integers(12, 100),
)
def test_columns_fit(rows: list[list[str]], width: int) -> None:
    made = (Column("A", 3), Column("LONG", 2, right=True), Column("C", 3))
    cells = [[columns.cell(word) for word in row] for row in rows]
    sizes = columns.widths(made, cells, width)
    assert sum(sizes) + 4 <= width
    assert all(cell_len(columns.laid_out(made, row, sizes)) == sum(sizes) + 4 for row in cells)


def test_hostile_words_are_shown_harmless() -> None:
    refusal = Refusal(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, 2)
    row = Container(EVIL, EVIL, EVIL, EVIL, troubles=(EVIL,), error=EVIL)
    lines = [*text.refusals([refusal]), *text.containers(Snapshot(0.0, (row,)))]
    shown = [text.about(row), text.refused(refusal), *(word for line in lines for word in line.cells)]
    assert all(word == plain(word) for word in shown)


def test_numbers() -> None:
    assert [text.count(number) for number in (0, 999, 1000, 99_960, 999_501)] == ["0", "999", "1.0k", "100k", "1.0M"]
    assert [text.size(number) for number in (5, 12_345)] == ["5 B", "12.3 kB"]
    priced = Snapshot(0.0, (Container("a", "running", usage=Usage(1, 10, 10, 0, 1234.5, 3)),))
    assert text.money(priced) == "$1,234.50+"
    assert text.money(Snapshot(0.0, (Container("a", "running", usage=Usage(1, 10, 10, 0, 0.0, 20)),))) == "-"


def test_the_ledger_is_not_made_by_looking(operator: Operator) -> None:
    operator.hold("box")
    look(operator)
    assert not os.path.exists(operator.layout.vault_usage)
    Ledger(operator.layout.vault_usage).close()
    assert look(operator).usage == Usage()
