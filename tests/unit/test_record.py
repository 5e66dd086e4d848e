"""The supervisor's record and the messages that the guard looks at."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from terok_host.supervisor import record
from terok_host.supervisor.ground import durable, pids
from terok_host.supervisor.record import Process, Record, Row
from terok_host.supervisor.wall import guard


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "supervisor.json")
    row = Row(Process(3, 30), "running", 1.5, 2, "exit code 1", gave_up=True)
    written = Record(
        "box", "0123abcd", Process(9, 90), Process(7, 70), Process(8, 80), "ready", 1.25, "it failed",
        troubles=("the disk is full",), asked=(("terok.scope", "work"),),
        sockets=("/run/x/vault.sock",), services=(("vault", row), ("ssh", Row())),
    )  # fmt: skip
    record.write(path, written)
    assert record.read(path) == written
    assert (tmp_path / "supervisor.json").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["supervisor.json"]


def test_what_is_not_a_record_is_none(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.json"
    assert record.read(str(path)) is None
    for content in (b"", b"[]", b'{"schema": 99}', b"\xff"):
        path.write_bytes(content)
        assert record.read(str(path)) is None


def test_every_process_in_a_record_is_found_and_what_makes_no_sense_is_not(tmp_path: Path) -> None:
    data = {
        "schema": 1,
        "pid": 1,
        "start_time": 10,
        "standby": {"pid": 2, "start_time": 20},
        "sidecars": {"vault": {"pid": 3, "start_time": 30}, "ssh": {"pid": True, "start_time": "x"}, "odd": 7},
    }
    (tmp_path / "supervisor.json").write_text(json.dumps(data))
    known = record.read(str(tmp_path / "supervisor.json"))
    assert known is not None and not known.alive()
    assert list(known.processes()) == [
        ("supervisor", Process(1, 10)),
        ("standby", Process(2, 20)),
        ("vault", Process(3, 30)),
    ]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5))
def test_no_value_in_a_record_confuses_its_reader(value: object) -> None:
    keys = list(Record("").document())
    for key in keys:
        record._decode({"schema": 1, key: value, "sidecars": {"vault": value if key == "sidecars" else {key: value}}})


def test_a_container_is_alive_while_its_init_is(tmp_path: Path) -> None:
    own = Process(os.getpid(), pids.start_time(os.getpid()))
    assert Record("box", container=own).alive()
    assert not Record("box", container=Process(own.pid, own.start_time + 1)).alive()


def test_a_temporary_record_of_a_killed_writer_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.json"
    (tmp_path / ("supervisor.json" + durable.TEMPORARY)).write_text("half a rec")
    record.write(str(path), Record("box"))
    assert [file.name for file in tmp_path.iterdir()] == ["supervisor.json"]


def message(kind: int, size: int = 20) -> bytes:
    return struct.pack("=IHHII", size, 10 << 8 | kind, 0, 0, 0) + bytes(size - 16)


def test_changed_elements_do_not_matter_and_everything_else_does() -> None:
    elements = message(12) + message(14) + message(15)
    assert not guard.matters(elements)
    for kind in (0, 2, 3, 5, 6, 8, 9, 11):
        assert guard.matters(elements + message(kind))


@given(st.binary(max_size=200))
def test_no_bytes_confuse_the_guard(data: bytes) -> None:
    guard.matters(data)
