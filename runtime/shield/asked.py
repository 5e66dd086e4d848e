"""`terok shield ask`, `pending`, `decide`: connections to unknown names that wait for the operator."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ...sidecars.airlock import questions
from ...sidecars.airlock.questions import Decision, Question
from ...sidecars.shield import bundle as files
from ...sidecars.shield import live
from ...supervisor import record
from ...supervisor.ground import durable
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle, Layout
from ..kit.alive import containers

ALLOW, DENY = "allow", "deny"


class Held(NamedTuple):
    """A question, and the container that it is about."""

    container: str
    question: Question

    def row(self, now: float) -> tuple[str, ...]:
        """Its line in the table for people."""
        asked = self.question
        left = max(0, round(asked.until - now))
        return asked.id, self.container, str(asked.target), str(asked.port), str(asked.held), f"{left} s"

    def plain(self) -> dict[str, object]:
        """The same for programs."""
        return {"container": self.container, "target": str(self.question.target), **self.question._asdict()}


HEADER = ("ID", "CONTAINER", "ALLOWS", "PORT", "HELD", "LEFT")


def pending(layout: Layout, name: str | None = None) -> list[Held]:
    """The questions that wait, of one container or of all, the oldest first."""
    questions = []
    for container in [name] if name else containers(layout):
        questions += [Held(container, question) for question in read(layout.bundle(container))]
    return sorted(questions, key=lambda held: held.question.since)


def read(bundle: Bundle) -> list[Question]:
    """What the relay shows; a relay writes this file, so it is read with care, and nothing when it is odd."""
    relay = _relay(bundle)
    try:
        fd = os.open(bundle.airlock_pending, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with open(fd, "rb") as file:
        text = file.read(questions.FILE_MAX)
    return [question for question in questions.decode(text, relay) if question.until > time.time()]


def find(layout: Layout, identifier: str) -> Held:
    """The question of an id; raises TerokError when none waits under it, or several: a relay may copy one."""
    matching = [held for held in pending(layout) if held.question.id == identifier]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise TerokError(
            f"Several containers ask under the ID {identifier[:20]!r}, so it decides none of their questions.",
            fix="terok shield allow NAME HOST, or terok shield deny NAME HOST",
            code=Exit.REFUSED,
        )
    raise TerokError(
        f"No question {identifier[:20]!r} waits; it may have ended.", fix="terok shield pending", code=Exit.NOT_FOUND
    )


def decide(bundle: Bundle, question: Question, answer: str, *, once: bool, seconds: float | None = None) -> None:
    """Answer a question.

    Args:
        bundle: the container's.
        question: as `pending` showed it: the name and port that are decided.
        answer: `allow` or `deny`.
        once: only for the connections that wait; else an entry is made as `terok shield allow` and `deny` do.
        seconds: how long the allowance lasts; None: for good.

    Raises:
        TerokError: it could not be done.
    """
    running = live.Running.find(bundle)
    if running is None:
        raise TerokError(f"{bundle.name} is not running.", code=Exit.NOT_FOUND)
    if once:
        decision = Decision(question.id, question.name, question.port, answer == ALLOW)
        with live.locked(bundle):
            durable.replace(bundle.airlock_decisions, questions.encode_decision(decision), only_writer=True)
            live.tell_relay(bundle, running, files.read_state(bundle).generation)
    elif answer == DENY:
        live.deny(bundle, running, [question.target])
    else:
        live.allow(bundle, running, [question.target], until=None if seconds is None else time.time() + seconds)
        if seconds is not None:
            from ...sidecars.shield.later import later

            later(seconds, bundle)


def _relay(bundle: Bundle) -> int:
    """The process that holds the container's connections; 0 when none does."""
    known = record.read(bundle.record)
    relay = known.service("airlock").process if known is not None and known.alive() else None
    fd = relay.open() if relay is not None else None
    if relay is None or fd is None:
        return 0
    os.close(fd)
    return relay.pid
