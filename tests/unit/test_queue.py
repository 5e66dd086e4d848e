"""`terok pending` and `terok decide`: one queue over real question files, a real desk of signatures and a real gate."""

from __future__ import annotations

import io
import json
import os
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.runtime import values
from terok_host.runtime.kit.env import Env, Output
from terok_host.runtime.queue import cli, items
from terok_host.runtime.shield import asked
from terok_host.sidecars.airlock import questions
from terok_host.sidecars.airlock.questions import Question
from terok_host.sidecars.gate import state
from terok_host.sidecars.shield import bundle as files
from terok_host.sidecars.shield.dnsmasq import Features
from terok_host.sidecars.shield.model import Model
from terok_host.sidecars.shield.state import State
from terok_host.sidecars.ssh.confirm import ANSWER, Desk, Pending
from terok_host.supervisor import record
from terok_host.supervisor.ground import pids
from terok_host.supervisor.ground.errors import Exit, TerokError
from terok_host.supervisor.record import Process, Record, Row
from tests.standins.gate import Rig, commit, git, make_upstream

ID = "0a1b2c3d4e5f"
EVIL = "refs/heads/agent/x\N{RIGHT-TO-LEFT OVERRIDE}y"


class Operator:
    """A person with terok's directories, and what the two verbs print."""

    def __init__(self, base: Path) -> None:
        (base / "config" / "terok").mkdir(parents=True)
        paths = f"paths: {{data: {base}/data, runtime: {base}/run}}\n"
        (base / "config" / "terok" / "config.yml").write_text(paths)
        self.environ = {"HOME": str(base), "XDG_CONFIG_HOME": str(base / "config"), "XDG_RUNTIME_DIR": str(base)}
        self.messages = ""
        self.layout = self.env(io.StringIO(), json_output=False).layout

    def env(self, stream: io.StringIO, *, json_output: bool) -> Env:
        return Env(self.environ, out=Output(json_output=json_output, stream=stream), messages=io.StringIO())

    def pending(self, name: str | None = None, *, code: int = Exit.OK) -> str:
        """What people see."""
        stream = io.StringIO()
        env = self.env(stream, json_output=False)
        assert cli.pending(Namespace(name=name), env) == code
        assert isinstance(env.messages, io.StringIO)
        self.messages = env.messages.getvalue()
        return stream.getvalue()

    def rows(self, name: str | None = None) -> list[dict[str, Any]]:
        """What programs see."""
        stream = io.StringIO()
        cli.pending(Namespace(name=name), self.env(stream, json_output=True))
        rows: list[dict[str, Any]] = json.loads(stream.getvalue())
        return rows

    def decide(self, identifier: str, answer: str, *, duration: str | None = None, always: bool = False) -> str:
        stream = io.StringIO()
        words = Namespace(id=identifier, answer=answer, duration=duration, once=False, always=always)
        assert cli.decide(words, self.env(stream, json_output=False)) == Exit.OK
        return stream.getvalue()

    def hold(self, container: str, identifier: str = ID, name: str = "files.example.com") -> None:
        """A container that runs, whose relay (this process) shows a question."""
        bundle = self.layout.bundle(container)
        os.makedirs(os.path.dirname(bundle.airlock_pending))
        own = Process(os.getpid(), pids.start_time(os.getpid()))
        relay = (("airlock", Row(own, "running")),)
        record.write(bundle.record, Record(container, container=own, supervisor=own, phase="ready", services=relay))
        shield = State((), (), Model(), {}, Features((2, 90)), addresses={})
        Path(bundle.shield).write_text(files.encode(shield))
        now = time.time()
        question = Question(identifier, name, 443, now, now + 60, 2)
        Path(bundle.airlock_pending).write_bytes(questions.encode([question], os.getpid()))

    def sign(self, container: str = "signing", key: str = "work key") -> tuple[Desk, Pending]:
        """A container that wants a signature."""
        desk = Desk(self.layout.bundle(container).confirm)
        shown: dict[str, object] = {
            "key": key,
            "fingerprint": "SHA256:x",
            "host": "forge.test",
            "user": "git",
            "namespace": None,
        }
        return desk, desk.ask(shown, time.monotonic())


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
def gate(operator: Operator, tmp_path: Path) -> Iterator[Rig]:
    """A gate whose container has pushed a branch, with a name that a terminal would show as another one."""
    (tmp_path / "forge").mkdir()
    upstream = make_upstream(tmp_path / "forge" / "up.git")
    rig = Rig(tmp_path)
    assert rig.home.root == operator.layout.gate_home("proj").root
    rig.configure(upstream)
    rig.start()
    try:
        work = tmp_path / "work"
        git("clone", "-q", rig.url(), work, cwd=tmp_path)
        commit(work, "new.txt", "hello\n")
        git("push", "-q", "origin", f"HEAD:{EVIL}", cwd=work)
        yield rig
    finally:
        rig.stop()


def refused(operator: Operator, *words: str, **options: Any) -> TerokError:
    with pytest.raises(TerokError) as caught:
        operator.decide(*words, **options)
    return caught.value


def test_nothing_waits(operator: Operator) -> None:
    assert operator.pending() == "Nothing waits.\n"
    assert operator.rows() == []
    assert refused(operator, ID, "allow").code == Exit.NOT_FOUND


def test_every_kind_is_in_one_queue_with_its_command(operator: Operator, gate: Rig) -> None:
    operator.hold("box")
    _, signature = operator.sign()
    rows = operator.rows()
    assert [(row["kind"], row["container"], row["allow"], row["deny"]) for row in rows] == [
        ("connection", "box", f"terok shield decide {ID} allow", f"terok shield decide {ID} deny"),
        ("signature", "signing", f"terok ssh confirm {signature.id} --yes", f"terok ssh confirm {signature.id} --no"),
        ("proposal", "agent", "terok gate approve proj 1", "terok gate reject proj 1"),
    ]
    assert (rows[2]["id"], rows[2]["until"], rows[2]["look"]) == ("proj/1", None, "terok gate diff proj 1")
    assert [row["kind"] for row in operator.rows("signing")] == ["signature"]
    text = operator.pending()
    assert all(row["id"] in text and row["allow"] in text for row in rows)
    assert set(items.SOURCES) == {row["kind"] for row in rows}
    offered = values.offered("waiting", operator.env(io.StringIO(), json_output=False), [])
    assert offered == sorted(row["id"] for row in rows)


def test_what_a_container_chose_does_not_reach_the_terminal(operator: Operator, gate: Rig) -> None:
    assert operator.rows()[0]["what"].startswith(f"create {EVIL} to ")
    shown = operator.pending() + operator.decide("proj/1", "deny")
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown
    assert "agent/x\N{REPLACEMENT CHARACTER}y" in shown


def test_allow_approves_a_proposal(operator: Operator, gate: Rig, tmp_path: Path) -> None:
    assert operator.decide("proj/1", "allow").startswith("Allowed for agent: create refs/heads/agent/x")
    refs = git("for-each-ref", "--format=%(refname)", cwd=tmp_path / "forge" / "up.git").stdout
    assert EVIL in refs
    assert operator.rows() == []
    assert refused(operator, "proj/1", "allow").code == Exit.NOT_FOUND


def test_deny_rejects_a_proposal(operator: Operator, gate: Rig, tmp_path: Path) -> None:
    operator.decide("proj/1", "deny")
    assert EVIL not in git("for-each-ref", "--format=%(refname)", cwd=tmp_path / "forge" / "up.git").stdout
    assert state.State.peek(gate.home).proposals == {}


@pytest.mark.parametrize(("answer", "signed"), [("allow", True), ("deny", False)])
def test_a_signature_is_answered(operator: Operator, answer: str, *, signed: bool) -> None:
    desk, signature = operator.sign()
    operator.decide(signature.id, answer)
    assert desk.read(signature) is signed
    desk.clear(signature)
    assert refused(operator, signature.id, answer).code == Exit.NOT_FOUND


def test_a_signature_whose_signer_has_ended_is_not_shown(operator: Operator) -> None:
    _, signature = operator.sign()
    path = Path(operator.layout.bundle("signing").confirm) / f"{signature.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"expires": time.time() - 1}))
    assert operator.rows() == []
    assert path.with_suffix(ANSWER).exists()


def test_once_answers_the_question_that_was_shown(operator: Operator) -> None:
    operator.hold("box")
    assert operator.decide(ID, "deny") == "Denied for box: connect to files.example.com (port 443), once\n"
    decision = questions.decode_decision(Path(operator.layout.bundle("box").airlock_decisions).read_bytes())
    assert decision == questions.Decision(ID, "files.example.com", 443, False)


def test_an_id_that_occurs_twice_decides_nothing(operator: Operator) -> None:
    operator.hold("box")
    operator.hold("rogue", name="evil.example.com")
    error = refused(operator, ID, "allow")
    assert error.code == Exit.REFUSED
    with pytest.raises(TerokError, match="decides none"):
        asked.find(operator.layout, ID)
    for container in ("box", "rogue"):
        assert not os.path.exists(operator.layout.bundle(container).airlock_decisions)


@pytest.mark.parametrize("options", [{"duration": "5m"}, {"always": True}])
def test_only_a_connection_is_allowed_for_a_time_or_for_good(operator: Operator, options: dict[str, Any]) -> None:
    desk, signature = operator.sign()
    error = refused(operator, signature.id, "allow", **options)
    assert (error.code, error.fix) == (Exit.USAGE, f"terok decide {signature.id} allow")
    assert not desk.read(signature)
    assert refused(operator, signature.id, "deny", duration="5m").code == Exit.USAGE


def test_a_gate_that_cannot_be_read_hides_nothing_else(operator: Operator, gate: Rig) -> None:
    operator.hold("box")
    os.makedirs(os.path.join(operator.layout.gate, "no scope"))
    Path(gate.home.state).write_text("{")
    assert ID in operator.pending(code=Exit.FAILURE)
    assert "gate proj cannot be read" in operator.messages
