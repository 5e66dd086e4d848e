"""Connections to names that nothing allows, held until the operator has decided (`terok shield ask`).

Rules of this file:
- nothing of a question leaves the machine before it is decided;
- what is undecided, too much, or left over from a relay that died is refused;
- the container can make neither the questions, nor the log of them, nor memory grow without bound.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...supervisor.ground import durable
from . import questions
from .questions import Question

if TYPE_CHECKING:
    from ..kit.reactor import Reactor, Timer
    from .notify import Notifier

HOLD_SECONDS = 60.0
"""How long a connection waits for a decision."""
QUESTIONS_MAX = 32
HELD_MAX = 256
"""Connections that wait, of all questions together."""
ASKED_A_MINUTE = 60
REFUSED_SECONDS = 60.0
"""How long a name that was refused once is refused without asking again: clients try again at once."""
_WRITE_SECONDS = 0.1
_UNDECIDED = f"not allowed, and not decided within {HOLD_SECONDS:g} s"

Settle = Callable[[str], None]
"""Called once: empty when the connection may go on, else why not."""


class _Waiting:
    """One question and the connections that wait for its answer."""

    __slots__ = ("id", "name", "port", "since", "until", "holders", "timer")

    def __init__(self, name: str, port: int, since: float, timer: Timer) -> None:
        self.id = secrets.token_hex(6)
        self.name, self.port, self.since, self.timer = name, port, since, timer
        self.until = since + HOLD_SECONDS
        self.holders: set[Settle] = set()

    def __repr__(self) -> str:
        return f"<Waiting {self.id} {self.name}:{self.port} {len(self.holders)}>"

    def question(self) -> Question:
        return Question(self.id, self.name, self.port, self.since, self.until, len(self.holders))


class Asking:
    """The questions of one container.

    Args:
        reactor: the loop.
        pending: where questions are shown, `pending.json`; empty: nowhere, so nothing is asked.
        decisions: where the answer is read, `decisions.json`.
        clock: seconds since the epoch.
        note: writes an audit line: event, and its fields.
        notifier: tells the operator about each question; None: `notify.command` is not set.
    """

    def __init__(
        self,
        reactor: Reactor,
        pending: str,
        decisions: str,
        clock: Callable[[], float],
        note: Callable[..., None],
        notifier: Notifier | None = None,
    ) -> None:
        self._reactor, self._pending, self._decisions = reactor, pending, decisions
        self._clock, self._note, self._notifier = clock, note, notifier
        self._waiting: dict[tuple[str, int], _Waiting] = {}
        self._refused: dict[tuple[str, int], float] = {}
        self._asked: list[float] = []
        self._writer: Timer | None = None
        self._show_now()

    def hold(self, name: str, port: int, settle: Settle) -> str:
        """Ask about a name and port, or join the question about them.

        Args:
            name, port: what the connection leads to; `questions.target_of` has a target for them.
            settle: called once with the answer, unless it is withdrawn before.

        Returns:
            Empty, or why nothing is asked; `settle` is not called then.
        """
        key, now = (name, port), self._reactor.now
        if self._refused.get(key, 0.0) > now:
            return "not allowed, and refused a moment ago"
        waiting = self._waiting.get(key)
        if sum(len(one.holders) for one in self._waiting.values()) >= HELD_MAX:
            return "not allowed, and too many connections wait for a decision"
        if waiting is None:
            self._asked = [moment for moment in self._asked if moment > now - 60]
            if not self._pending or len(self._waiting) >= QUESTIONS_MAX or len(self._asked) >= ASKED_A_MINUTE:
                return "not allowed, and too many questions wait for a decision"
            self._asked.append(now)
            timer = self._reactor.later(HOLD_SECONDS, lambda: self._end(key, _UNDECIDED, "undecided"))
            waiting = self._waiting[key] = _Waiting(name, port, self._clock(), timer)
            self._note("ask", verdict="asked", name=name, port=port, proto="tcp", id=waiting.id)
            if self._notifier is not None:
                self._notifier.announce(waiting.id, name, port, waiting.until)
        waiting.holders.add(settle)
        self._show()
        return ""

    def withdraw(self, name: str, port: int, settle: Settle) -> None:
        """The connection is gone; a question that no connection waits for ends."""
        waiting = self._waiting.get((name, port))
        if waiting is None or settle not in waiting.holders:
            return
        waiting.holders.discard(settle)
        if not waiting.holders:
            self._end((name, port), "", "withdrawn")
        self._show()

    def answered(self, name: str, port: int, why: str) -> None:
        """The policy has decided: `why` is empty when it allows the name now, else why it refuses it."""
        self._end((name, port), why, "refused" if why else "allowed")

    def look(self) -> None:
        """The operator may have answered: read the decision, and carry it out if its question still waits."""
        try:
            with open(self._decisions, "rb") as file:
                decision = questions.decode_decision(file.read(questions.FILE_MAX))
        except OSError:
            return
        waiting = self._waiting.get((decision.name, decision.port)) if decision else None
        if decision is None or waiting is None or waiting.id != decision.id:
            return
        if decision.allowed:
            self._end((decision.name, decision.port), "", "allowed-once")
            return
        if len(self._refused) >= QUESTIONS_MAX * 4:
            self._refused.pop(min(self._refused, key=self._refused.__getitem__))
        self._refused[decision.name, decision.port] = self._reactor.now + REFUSED_SECONDS
        self._end((decision.name, decision.port), "refused by the operator", "refused")

    def _end(self, key: tuple[str, int], why: str, how: str) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        waiting.timer.cancel()
        self._note("answer", verdict=how, name=key[0], port=key[1], proto="tcp", id=waiting.id)
        for settle in waiting.holders:
            settle(why)
        self._show_now()  # who has answered must not see it again

    def _show(self) -> None:
        if self._writer is None and self._pending:
            self._writer = self._reactor.later(_WRITE_SECONDS, self._show_now)

    def _show_now(self) -> None:
        self._writer = None
        if not self._pending:
            return
        shown = questions.encode([waiting.question() for waiting in self._waiting.values()], os.getpid())
        try:
            durable.replace(self._pending, shown, durable=False, only_writer=True)
        except OSError as error:  # then it cannot be decided, and ends by its time
            print(f"airlock: questions could not be shown: {error.strerror}", file=sys.stderr)


def directory(path: str) -> str:
    """Make the directory of `pending.json`; returns the file's path, empty when it cannot be made."""
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    except OSError:
        return ""
    return path
