"""The one file writer: whole or not at all, private until complete, and no temporary file left behind."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from terok_host.supervisor.ground import durable, process


def test_content_and_exact_mode_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        durable.replace(str(path), "tëxt\n", mode=0o644)
    finally:
        os.umask(before)
    assert path.read_text() == "tëxt\n"
    assert path.stat().st_mode & 0o7777 == 0o644
    durable.replace(str(path), b"\xff", durable=False)
    assert path.read_bytes() == b"\xff"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        durable.replace(str(path), "half \ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / ("file" + durable.TEMPORARY)).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        durable.replace(str(tmp_path / "file"), "x", only_writer=True)
    assert victim.read_text() == "untouched"


def test_readers_see_one_whole_content_while_two_processes_write(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    contents = [letter * 20000 for letter in "ab"]
    durable.replace(path, contents[0])

    def write(content: str) -> int:
        for _ in range(200):
            durable.replace(path, content, durable=False)
        return 0

    writers = [process.fork(partial(write, content)) for content in contents]
    left = set(writers)
    while left:
        assert Path(path).read_text() in contents
        left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
    assert os.listdir(tmp_path) == ["file"]
