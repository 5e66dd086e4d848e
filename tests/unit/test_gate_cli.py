"""Tests of `terok gate`: the program itself, against an HTTPS forge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.store import keys
from terok_host.supervisor.ground.errors import Exit
from terok_host.supervisor.ground.layout import Layout
from tests.standins.forge import PASSWORD, HttpsForge
from tests.standins.gate import Rig, commit, git, make_upstream
from tests.standins.stores import unlocked

PROGRAM = Path(sys.executable).parent / "terok"


class Operator:
    """Somebody at a shell, with a vault and a forge."""

    def __init__(self, base: Path) -> None:
        self.base = base
        # a layout with the directories that both the program's variables and the rig's own end up with
        self.env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin",
            "HOME": str(base),
            "XDG_DATA_HOME": str(base / "share"),
            "XDG_RUNTIME_DIR": str(base),
            "XDG_CONFIG_HOME": str(base / "config"),
        }
        (base / "config" / "terok").mkdir(parents=True)
        paths = f"paths: {{data: {base}/data, runtime: {base}/run}}\n"
        (base / "config" / "terok" / "config.yml").write_text(paths)
        self.layout = Layout(str(base / "data"), str(base / "run"), str(base / "config" / "terok"))

    def terok(self, *words: str, code: int = Exit.OK) -> str:
        """Run the program; returns what it printed (stderr when it is meant to fail)."""
        done = subprocess.run(
            [str(PROGRAM), "gate", *words], env=self.env, cwd=self.base, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.stderr if code else done.stdout

    def raw(self, *words: str) -> bytes:
        """Run the program; returns the bytes that it printed."""
        command = [str(PROGRAM), "gate", *words]
        return subprocess.run(command, env=self.env, cwd=self.base, capture_output=True, check=True, timeout=60).stdout

    def json(self, *words: str) -> Any:
        """Run the program with --json."""
        return json.loads(self.terok(*words, "--json"))


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    made = Operator(tmp_path)
    keys.create_vault(made.layout)
    with unlocked(made.layout) as store:
        store.put("credential", "proj", "localhost", PASSWORD.encode(), {"auth": "basic"})
    return made


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[HttpsForge]:
    (tmp_path / "forge").mkdir()
    git("config", "http.receivepack", "true", cwd=make_upstream(tmp_path / "forge" / "up.git"))
    made = HttpsForge(tmp_path / "forge", tmp_path)
    yield made
    made.close()


@pytest.fixture
def mirrored(operator: Operator, forge: HttpsForge) -> Operator:
    out = operator.terok("add", "proj", f"{forge.url}/up.git", "--ca-file", str(forge.ca_file), "--refresh", "0")
    assert "3 branches and tags, mode gatekeeping" in out
    return operator


def pushed(operator: Operator, branch: str = "agent/x") -> str:
    """Let a container push a branch; returns its tip."""
    rig = Rig(operator.base)
    rig.start()
    try:
        work = operator.base / "work"
        git("clone", "-q", rig.url(), work, cwd=operator.base)
        git("checkout", "-q", "-b", branch, cwd=work)
        tip = commit(work, "evil\x1b[31m.txt", "hello \x1b]0;title\x07\n", "say \x1b[2Jhello")
        git("push", "-q", "origin", branch, cwd=work)
    finally:
        rig.stop()
    return tip


def test_add_says_where_and_is_done_once(mirrored: Operator, forge: HttpsForge) -> None:
    (row,) = mirrored.json("list")
    assert (row["scope"], row["mode"], row["proposals"]) == ("proj", "gatekeeping", 0)
    assert "has a gate already" in mirrored.terok("add", "proj", f"{forge.url}/up.git", code=Exit.REFUSED)
    path = mirrored.terok("path", "proj").strip()
    assert git("rev-parse", "refs/heads/main", cwd=Path(path)).stdout
    assert oct(os.stat(path).st_mode)[-3:] == "700"
    assert git("symbolic-ref", "HEAD", cwd=Path(path)).stdout.strip() == "refs/heads/main"


def test_an_add_that_fails_leaves_nothing(operator: Operator, forge: HttpsForge) -> None:
    operator.terok("add", "proj", f"{forge.url}/none.git", "--ca-file", str(forge.ca_file), code=Exit.FAILURE)
    assert operator.json("list") == []
    error = operator.terok("add", "other", f"{forge.url}/up.git", "--ca-file", str(forge.ca_file), code=Exit.FAILURE)
    assert "terok vault" in error
    operator.terok("add", "proj", "https://a:b@forge.test/x", code=Exit.USAGE)
    operator.terok("add", "../x", f"{forge.url}/up.git", code=Exit.USAGE)


def test_review(mirrored: Operator, forge: HttpsForge) -> None:
    tip = pushed(mirrored)
    listed = mirrored.terok("list", "proj")
    assert "refs/heads/agent/x" in listed and "create" in listed and "agent" in listed
    (proposal,) = mirrored.json("list", "proj")["proposals"]
    assert (proposal["number"], proposal["new"], proposal["who"]) == (1, tip, "agent")
    shown = mirrored.terok("diff", "proj", "1")
    assert "hello" in shown and "\x1b" not in shown and "\x07" not in shown
    assert mirrored.json("diff", "proj", "1")["patch"].count("\x1b]0;title") == 1
    assert "is done" in mirrored.terok("approve", "proj", "1")
    assert git("rev-parse", "agent/x", cwd=forge.root / "up.git").stdout.strip() == tip
    mirrored.terok("approve", "proj", "1", code=Exit.NOT_FOUND)
    events = [entry["event"] for entry in mirrored.json("log", "proj")]
    assert events[:1] == ["sync"] or events[0] == "add"
    assert events[-2:] == ["push", "approve"]
    assert "approve" in mirrored.terok("log", "proj")


def test_a_ref_names_its_proposal_and_json_is_utf8_whatever_it_is_called(mirrored: Operator) -> None:
    tip = pushed(mirrored, branch="agent/\udcff\udcc3x")
    raw = mirrored.raw("list", "proj", "--json")
    (proposal,) = json.loads(raw.decode("utf-8"))["proposals"]
    assert (proposal["ref"], proposal["new"]) == ("refs/heads/agent/\\xff\\xc3x", tip)
    mirrored.terok("approve", "proj", "agent/none", code=Exit.NOT_FOUND)
    assert "is done" in mirrored.terok("approve", "proj", "agent/\\xff\\xc3x")
    log = mirrored.raw("log", "proj", "--json")
    assert "refs/heads/agent/\\xff\\xc3x" in [entry.get("ref") for entry in json.loads(log.decode("utf-8"))]


def test_a_branch_and_a_number_are_told_apart(mirrored: Operator) -> None:
    pushed(mirrored)
    mirrored.terok("diff", "proj", "refs/heads/agent/x")
    mirrored.terok("reject", "proj", "agent/x")
    mirrored.terok("reject", "proj", "2", code=Exit.NOT_FOUND)


def test_reject_and_restore(mirrored: Operator) -> None:
    tip = pushed(mirrored)
    mirrored.terok("reject", "proj", "1")
    (lost,) = mirrored.json("restore", "proj")
    assert (lost["ref"], lost["tip"]) == ("refs/heads/agent/x", tip)
    assert tip[:12] in mirrored.terok("restore", "proj")
    mirrored.terok("restore", "proj", lost["identity"])
    assert [each["source"] for each in mirrored.json("list", "proj")["proposals"]] == ["operator"]
    mirrored.terok("restore", "proj", "nothing", code=Exit.NOT_FOUND)


def test_policy_and_settings(mirrored: Operator) -> None:
    assert mirrored.json("policy", "proj")["create"] == ["refs/heads/{container}/*"]
    mirrored.terok("policy", "proj", "--create", "refs/tags/v*", "--force", "", "--no-protect")
    found = mirrored.json("policy", "proj")
    assert (found["create"], found["force"], found["protect"]) == (["refs/tags/v*"], [], False)
    mirrored.terok("policy", "proj", "--create", "main", code=Exit.USAGE)
    mirrored.terok("set", "proj", "--mode", "online", "--limit", "pack_bytes=1000000")
    found = mirrored.json("set", "proj")
    assert found["mode"] == "online" and found["limits"] == {"pack_bytes": 1000000}
    mirrored.terok("set", "proj", "--limit", "nothing=1", code=Exit.USAGE)


def test_sync_follows_and_says_what_waits(mirrored: Operator, forge: HttpsForge) -> None:
    up = forge.root / "up.git"
    assert "already up to date" in mirrored.terok("sync", "proj")
    git("update-ref", "refs/heads/stable", "refs/heads/main", cwd=up)
    git("update-ref", "refs/heads/main", "refs/heads/main~1", cwd=up)
    git("symbolic-ref", "HEAD", "refs/heads/stable", cwd=up)
    out = mirrored.terok("sync", "proj")
    assert "refs/heads/stable" in out and "done" in out and "waits for approval" in out
    assert mirrored.json("set", "proj")["default_branch"] == "refs/heads/stable"
    mirrored.terok("approve", "proj", "1")
    assert mirrored.json("list", "proj")["proposals"] == []


def test_remove_asks_when_work_would_be_lost(mirrored: Operator) -> None:
    pushed(mirrored)
    mirrored.terok("remove", "proj", code=Exit.REFUSED)
    mirrored.terok("remove", "proj", "--yes")
    assert mirrored.json("list") == []
    mirrored.terok("path", "proj", code=Exit.NOT_FOUND)
