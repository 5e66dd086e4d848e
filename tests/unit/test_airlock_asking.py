"""Questions of the relay: bounds, coalescing, what counts as an answer, what a hostile file does to its reader."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.airlock import asking, questions
from terok_host.sidecars.airlock.asking import Asking
from terok_host.sidecars.airlock.policy import Policy
from terok_host.sidecars.airlock.questions import Decision, Question
from terok_host.sidecars.kit.reactor import Reactor
from terok_host.sidecars.shield.model import ASK, UP
from terok_host.sidecars.shield.targets import parse


class Desk:
    """An Asking whose files and audit lines a test sees, and whose clock it moves."""

    def __init__(self, directory: Path) -> None:
        self.reactor = Reactor(strict=True)
        self.pending, self.decisions = directory / "pending.json", directory / "decisions.json"
        self.lines: list[tuple[str, dict[str, object]]] = []
        note: Callable[..., None] = lambda event, **fields: self.lines.append((event, fields))  # noqa: E731
        self.asking = Asking(self.reactor, str(self.pending), str(self.decisions), lambda: 1000.0, note)
        self.settled: list[str] = []

    def hold(self, name: str = "new.example", port: int = 443) -> str:
        return self.asking.hold(name, port, lambda why: self.settled.append(why))

    def shown(self) -> list[Question]:
        """What the operator sees, once the relay has written it."""
        self.reactor.later(asking._WRITE_SECONDS * 2, self.reactor.stop)
        self.reactor.run()
        return questions.decode(self.pending.read_bytes(), os.getpid())

    def answer(self, decision: Decision) -> None:
        self.decisions.write_bytes(questions.encode_decision(decision))
        self.asking.look()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_connections_to_one_name_and_port_are_one_question(desk: Desk) -> None:
    assert [desk.hold(), desk.hold(), desk.hold(port=80)] == ["", "", ""]
    assert sorted((one.name, one.port, one.held) for one in desk.shown()) == [
        ("new.example", 80, 1),
        ("new.example", 443, 2),
    ]
    assert [event for event, _ in desk.lines] == ["ask", "ask"]


@pytest.mark.parametrize(("allowed", "why"), [(True, ""), (False, "refused by the operator")])
def test_an_answer_settles_every_connection_once(desk: Desk, allowed: bool, why: str) -> None:
    desk.hold()
    desk.hold()
    (question,) = desk.shown()
    desk.answer(Decision(question.id, "new.example", 443, allowed))
    desk.asking.look()
    assert desk.settled == [why, why]
    assert desk.shown() == []


@pytest.mark.parametrize("wrong", [{"id": "0" * 12}, {"name": "other.example"}, {"port": 80}, {"allowed": 1}])
def test_an_answer_to_another_question_settles_nothing(desk: Desk, wrong: dict[str, object]) -> None:
    desk.hold()
    (question,) = desk.shown()
    right = {"id": question.id, "name": "new.example", "port": 443, "allowed": True}
    desk.decisions.write_text(json.dumps({**right, **wrong}))
    desk.asking.look()
    assert desk.settled == []


def test_an_old_answer_is_none_to_the_next_question(desk: Desk) -> None:
    desk.hold()
    (question,) = desk.shown()
    desk.answer(Decision(question.id, "new.example", 443, True))
    desk.hold()
    desk.asking.look()
    assert desk.settled == [""]


def test_a_refused_name_is_not_asked_about_again_at_once(desk: Desk) -> None:
    desk.hold()
    (question,) = desk.shown()
    desk.answer(Decision(question.id, "new.example", 443, False))
    assert "a moment ago" in desk.hold()
    assert desk.hold(port=80) == ""


def test_undecided_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "HOLD_SECONDS", 0.05)
    desk.hold()
    assert desk.shown() == []
    assert desk.settled == [asking._UNDECIDED]
    assert desk.lines[-1][1]["verdict"] == "undecided"


def test_a_flood_of_names_is_bounded(desk: Desk) -> None:
    answers = [desk.hold(f"n{number}.example") for number in range(500)]
    assert answers.count("") == asking.QUESTIONS_MAX
    assert len(desk.shown()) == asking.QUESTIONS_MAX
    assert desk.pending.stat().st_size < questions.FILE_MAX


def test_names_that_come_and_go_are_bounded_by_the_minute(desk: Desk) -> None:
    asked = 0
    for number in range(300):
        settle: Callable[[str], None] = lambda why: None  # noqa: E731
        if not desk.asking.hold(f"n{number}.example", 443, settle):
            asked += 1
            desk.asking.withdraw(f"n{number}.example", 443, settle)
    assert asked == asking.ASKED_A_MINUTE
    assert len(desk.lines) == 2 * asking.ASKED_A_MINUTE


def test_connections_that_wait_are_bounded(desk: Desk) -> None:
    answers = [desk.hold() for _ in range(asking.HELD_MAX + 10)]
    assert answers.count("") == asking.HELD_MAX
    assert "too many" in answers[-1]


def test_a_relay_that_starts_shows_no_questions_of_the_one_before(tmp_path: Path) -> None:
    first = Desk(tmp_path)
    first.hold()
    assert first.shown()
    assert Desk(tmp_path).shown() == []


def test_without_a_file_to_show_them_in_nothing_is_asked(tmp_path: Path) -> None:
    blind = Asking(Reactor(), "", str(tmp_path / "decisions.json"), lambda: 0.0, lambda *_, **__: None)
    assert blind.hold("new.example", 443, lambda why: None)


@given(
    st.binary(max_size=300)
    | st.lists(st.dictionaries(st.text(), st.integers() | st.text())).map(json.dumps).map(str.encode)
)
def test_a_hostile_file_is_no_question(text: bytes) -> None:
    assert questions.decode(text, 1) == []


@pytest.mark.parametrize(
    "change",
    [{"name": "*.com"}, {"name": "$(x).example"}, {"name": "\x1b[2Jx.example"}, {"name": "203.0.113.7"}, {"port": 0},
     {"port": True}, {"id": "../../x"}, {"held": "9"}, {"until": "soon"},
     {"until": float("inf")}, {"since": float("nan")}, {"until": 10**400}],
)  # fmt: skip
def test_only_plain_host_names_are_shown(change: dict[str, object]) -> None:
    row = {**Question("0" * 12, "new.example", 443, 1.0, 2.0, 1)._asdict(), **change}
    assert questions.decode(json.dumps({"relay": 1, "questions": [row]}).encode(), 1) == []


def test_questions_of_another_relay_are_none() -> None:
    text = questions.encode([Question("0" * 12, "new.example", 443, 1.0, 2.0, 1)], 7)
    assert len(questions.decode(text, 7)) == 1
    assert questions.decode(text, 8) == []


@given(st.text(max_size=80), st.integers(1, 65535))
def test_what_is_asked_about_can_be_allowed(name: str, port: int) -> None:
    verdict = Policy("box", mode=ASK).judge_name(name, port, 0.0)
    assert not verdict.allowed
    assert verdict.ask == (questions.target_of(name, port) is not None)


def test_denials_and_ended_asking_are_final() -> None:
    denied = Policy("box", mode=ASK, denied=(parse("new.example"),))
    assert not denied.judge_name("new.example", 443, 0.0).ask
    assert Policy("box", mode=ASK).judge_name("new.example", 443, 0.0).ask
    assert not Policy("box", mode=ASK, until=5.0).judge_name("new.example", 443, 6.0).ask
    assert not Policy("box", mode=UP).judge_name("new.example", 443, 0.0).ask


@pytest.mark.parametrize("port", [80, 443, 8080])
@pytest.mark.parametrize(
    "name",
    ["host.containers.internal", "metadata.google.internal", "x.localhost", "x.local", "metadata", "a.arpa"],
)
def test_a_yes_cannot_open_this_host_or_its_network(name: str, port: int) -> None:
    verdict = Policy("box", mode=ASK).judge_name(name, port, 0)
    assert not verdict.allowed and not verdict.ask
    assert verdict.allow == "" or verdict.allow.startswith("terok shield allow box ")
