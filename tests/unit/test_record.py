"""The supervisor's record and the messages that the guard looks at."""

from __future__ import annotations

import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from terok_host.supervisor import record
from terok_host.supervisor.wall import guard


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "supervisor.json")
    record.write(path, {"pid": 7, "phase": "ready"})
    assert record.read(path) == {"schema": 1, "pid": 7, "phase": "ready"}
    assert (tmp_path / "supervisor.json").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["supervisor.json"]


def test_what_is_not_a_record_is_none(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.json"
    assert record.read(str(path)) is None
    for content in (b"", b"[]", b'{"schema": 99}', b"\xff"):
        path.write_bytes(content)
        assert record.read(str(path)) is None


def test_every_process_in_a_record_is_found() -> None:
    data = {
        "pid": 1,
        "start_time": 10,
        "standby": {"pid": 2, "start_time": 20},
        "sidecars": {"vault": {"pid": 3, "start_time": 30}, "ssh": {"pid": None, "start_time": None}, "odd": 7},
    }
    assert record.processes(data) == [("supervisor", 1, 10), ("standby", 2, 20), ("vault", 3, 30)]


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
