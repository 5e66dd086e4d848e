"""Damaged files of terok's own: a sentence and an exit code for each, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from terok_host.runtime import cli
from terok_host.supervisor.ground.errors import Exit
from tests.lab.house import House

DAMAGES = {
    "bytes": b'\xff\xfe{"a": [\0',
    "another document": b'{"schema": 1, "x": [1, null, {"a": "b"}]}',
    "empty": b"",
}
LINKS = {"modules", "terok-status-says-why"}
"""Of the hooks: a link, and byte code of which Python judges the version itself."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_may_be_damaged(
    house: House, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    house.terok("vault", "add", name, "anthropic", stdin=b"sk-ant-api03-" + b"a" * 40)
    house.terok("prepare", name, "--scope", name)
    house.terok("shield", "allow", name, "allowed.test")
    monkeypatch.setattr(os, "environ", house.env)
    verbs = (
        ("status", name), ("doctor",), ("shield", "status", name), ("prepare", name, "--scope", name), ("metrics",),
        ("vault", "status"), ("vault", "usage"), ("explain", name, "https://api.anthropic.com/"), ("logs", name),
    )  # fmt: skip
    files = [path for path in sorted(Path(house.layout.data).rglob("*")) if path.is_file() and path.name not in LINKS]
    files = [path for path in files if not path.name.endswith(("-shm", "-wal"))]  # SQLite makes and removes them
    assert len(files) > 20
    for path in files:
        content, mode = path.read_bytes(), path.stat().st_mode
        for words in verbs:
            path.write_bytes(DAMAGES[damage])
            try:
                code = cli.run(words)
            except SystemExit:  # a damaged hook: its message is a sentence too
                code = Exit.FAILURE
            except Exception as error:
                raise AssertionError(f"{path.name} damaged: terok {' '.join(words)}") from error
            finally:
                path.write_bytes(content)
                path.chmod(mode)
            assert 0 <= code <= Exit.LOCKED, (path, words)
    capsys.readouterr()
    house.terok("cleanup", name)
    house.terok("vault", "remove", name, "anthropic")
