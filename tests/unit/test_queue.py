"""`terok pending` and `terok decide`: one queue over real question files, a real desk of signatures and a real gate."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.runtime import values
from terok_host.runtime.queue import items
from terok_host.runtime.shield import asked
from terok_host.sidecars.airlock import questions
from terok_host.sidecars.gate import state
from terok_host.sidecars.ssh.confirm import ANSWER
from terok_host.sidecars.vault.books.ledger import Counts, Ledger, Limit
from terok_host.supervisor.ground.errors import Exit, TerokError
from tests.standins.decisions import ID, Operator
from tests.standins.gate import Rig, commit, git, make_upstream

EVIL = "refs/heads/agent/x\N{RIGHT-TO-LEFT OVERRIDE}y"


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
    operator.use("work", 3, 0, limit=Limit("work", "day", 2, None))
    rows = operator.rows()
    assert [(row["kind"], row["container"], row["allow"], row["deny"]) for row in rows] == [
        ("connection", "box", f"terok shield decide {ID} allow", f"terok shield decide {ID} deny"),
        ("signature", "signing", f"terok ssh confirm {signature.id} --yes", f"terok ssh confirm {signature.id} --no"),
        ("limit", "", "terok vault limit work --requests 5 --period day", "terok decide work/limit deny"),
        ("proposal", "agent", "terok gate approve proj 1", "terok gate reject proj 1"),
    ]
    assert (rows[3]["id"], rows[3]["until"], rows[3]["look"]) == ("proj/1", None, "terok gate diff proj 1")
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


# --- limits ---


def test_a_limit_that_is_reached_is_raised(operator: Operator) -> None:
    """The vault that counts sees it without a restart, at its next look."""
    operator.use("work", 8, 0, limit=Limit("work", "hour", 10, None))
    assert operator.rows() == []
    ledger = Ledger(operator.layout.vault_usage)
    vault = Counts(ledger, "box")
    operator.use("work", 3, 0)
    now = time.time()
    assert vault.exceeded("work", now) is not None
    (row,) = operator.rows()
    assert row["what"] == "use more than 10 requests each hour in the scope work"
    assert row["look"] == "terok vault usage --scope work"
    assert operator.decide("work/limit", "allow", raise_by=5).startswith("Allowed: use more than 10 requests")
    assert vault.exceeded("work", now + 2) is None
    assert ledger.limit("work") == Limit("work", "hour", 16, None)
    ledger.close()
    assert operator.rows() == []


def test_a_limit_is_raised_by_as_much_as_it_allowed(operator: Operator) -> None:
    operator.use("work", 10, 600, limit=Limit("work", "day", 10, 500))
    error = refused(operator, "work/limit", "allow", raise_by=5)
    assert (error.code, error.fix) == (Exit.USAGE, "terok vault limit work --requests N --tokens N")
    (row,) = operator.rows()
    operator.decide("work/limit", "allow")
    assert row["allow"] == "terok vault limit work --requests 20 --tokens 1100 --period day"
    ledger = Ledger(operator.layout.vault_usage)
    assert ledger.limit("work") == Limit("work", "day", 20, 1100)
    ledger.close()


def test_a_limit_that_is_declined_stands_and_is_not_asked_about_again(operator: Operator) -> None:
    operator.use("work", 10, 0, limit=Limit("work", "day", 10, None))
    operator.decide("work/limit", "deny")
    assert operator.rows() == []
    ledger = Ledger(operator.layout.vault_usage)
    now = time.time()
    assert Counts(ledger, "box").exceeded("work", now) is not None
    assert ledger.reached(now + 86400) == []  # nothing was used in the next day
    ledger.set_limit(Limit("work", "day", 9, None))
    assert [row.limit.requests for row in ledger.reached(now)] == [9]
    ledger.set_limit(Limit("work", "day", 0, None))
    assert ledger.reached(now) == []  # a limit of 0 is a decision
    ledger.close()


def test_a_limit_that_was_changed_meanwhile_is_not_raised(operator: Operator) -> None:
    operator.use("work", 10, 0, limit=Limit("work", "day", 10, None))
    item = items.find(operator.layout, "work/limit")
    operator.use("work", 0, 0, limit=Limit("work", "day", 4, None))
    with pytest.raises(TerokError, match="changed meanwhile"):
        item.act(operator.env(io.StringIO(), json_output=False), items.Answer(True))


@pytest.mark.parametrize(("answer", "amount"), [("deny", 5), ("allow", 0), ("allow", 10**15)])
def test_what_raises_no_limit(operator: Operator, answer: str, amount: int) -> None:
    operator.use("work", 10, 0, limit=Limit("work", "day", 10, None))
    assert refused(operator, "work/limit", answer, raise_by=amount).code == Exit.USAGE
    _, signature = operator.sign()
    assert refused(operator, signature.id, "allow", raise_by=5).code == Exit.USAGE


def test_counts_that_cannot_be_read_hide_nothing_else(operator: Operator) -> None:
    operator.hold("box")
    os.makedirs(operator.layout.vault)
    Path(operator.layout.vault_usage).write_text("no database, but long enough to be looked at" * 100)
    assert ID in operator.pending(code=Exit.FAILURE)
    assert "limits cannot be read" in operator.messages
