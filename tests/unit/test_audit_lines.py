"""The one reader and the one renderer of audit logs."""

from __future__ import annotations

import json
from pathlib import Path

from terok_host.runtime.kit.audit_lines import line, read


def test_rotated_lines_come_first_and_what_is_no_entry_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    (tmp_path / "audit.jsonl.1").write_bytes(b'{"event": "one"}\n\xff\xfe\n[1]\n')
    log.write_text('{"event": "two"}\n{"event": "cut')
    assert [entry["event"] for entry in read(str(log))] == ["one", "two"]
    assert list(read(str(tmp_path / "nothing"))) == []


def test_no_control_character_of_a_container_reaches_the_terminal() -> None:
    hostile = "a\x1b[2Jb\nc\x9bd\u202e"
    entries: tuple[dict[str, object], ...] = (
        {"event": hostile, "verdict": hostile, "time": hostile, "source": hostile, "container": hostile},
        {"address": hostile, "name": hostile, "port": 1, "proto": hostile},
        {"method": hostile, "path": hostile, "status": 200},
        {"reason": hostile, hostile: [hostile]},
    )
    for entry in entries:
        assert line(entry).isprintable()


def test_what_people_see() -> None:
    entry: dict[str, object] = {
        "time": "T",
        "source": "shield",
        "event": "connection",
        "verdict": "refused",
        "address": "192.0.2.1",
    }
    entry |= {"name": "a.test", "port": 443, "proto": "tcp", "reason": "not allowed", "empty": ""}
    assert line(entry) == 'T shield connection refused a.test 192.0.2.1:443/tcp reason="not allowed"'
    asked = {"time": "T", "container": "box", "method": "GET", "path": "/v1", "status": 200, "scope": "work"}
    assert line({**asked, "chain": "0" * 64}) == "T box GET /v1 200 scope=work"
    assert json.dumps(asked)  # the caller's entry is as it was
