"""What a relay asks its operator: the files in which a question and its answer travel. Pure.

The relay writes `pending.json`, the only file of the bundle besides the log that it may write; it parses what the
container sends, so its readers trust none of it. The answer, `decisions.json`, is the operator's. It names
the question by id, name and port, and counts only when all three are those of a question that waits: what was shown is
what is decided.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from ..shield import hints
from ..shield.targets import WEB, WEB_PORTS, Ports, Target

FILE_MAX = 64 << 10
"""Bytes of a file that are read."""
TIME_MAX = 1e11
"""Seconds since the epoch; an infinite number, or none, is no time."""
_ID = re.compile(r"[0-9a-f]{12}")


class Question(NamedTuple):
    """One name and port that connections wait for.

    Attributes:
        id: random, never used again.
        name: a plain host name, as the connections show it.
        port: TCP port.
        since, until: when it was asked, and when it ends undecided (seconds since the epoch).
        held: how many connections wait.
    """

    id: str
    name: str
    port: int
    since: float
    until: float
    held: int

    @property
    def target(self) -> Target:
        """What allows it."""
        target = target_of(self.name, self.port)
        assert target is not None  # none is asked about that has no target
        return target


class Decision(NamedTuple):
    """The operator's answer to one question: its connections alone, once."""

    id: str
    name: str
    port: int
    allowed: bool


_NOT_ASKED = ("localhost", "local", "internal", "arpa", "invalid", "onion", "home", "lan")
"""Names below these lead to this host (`host.containers.internal`), to metadata services or into a local network. They
are allowed by `terok shield allow` alone: a yes to a question that a container puts must not open them."""


def target_of(name: str, port: int) -> Target | None:
    """What a yes would allow, as `terok shield allow` takes it; None: nothing is asked about this name."""
    if "." not in name or name.rpartition(".")[2] in _NOT_ASKED:
        return None
    return hints.name_target(name, WEB if port in WEB_PORTS else Ports("tcp", port, port))


def encode(questions: Sequence[Question], relay: int) -> bytes:
    """The content of `pending.json`; `relay` is the process that holds the connections."""
    return json.dumps({"relay": relay, "questions": [question._asdict() for question in questions]}).encode()


def decode(text: bytes, relay: int) -> list[Question]:
    """Read `pending.json` of a relay; what is not a question as `encode` writes it is left out.

    Args:
        text: the file.
        relay: the process that serves now: what one before it has left is no question any more.
    """
    try:
        document = json.loads(text)
        rows = document["questions"] if document["relay"] == relay else []
        return [question for row in rows if isinstance(row, dict) and (question := _question(row)) is not None]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _question(row: dict[str, object]) -> Question | None:
    try:
        question = Question(**row)  # type: ignore[arg-type]  # checked below
    except TypeError:
        return None
    times = (question.since, question.until)
    sound = (
        isinstance(question.id, str)
        and _ID.fullmatch(question.id)
        and isinstance(question.name, str)
        and type(question.port) is int
        and 0 < question.port < 65536
        and type(question.held) is int
        and all(type(moment) in (int, float) and 0 <= moment < TIME_MAX for moment in times)
    )
    return question if sound and target_of(question.name, question.port) is not None else None


def encode_decision(decision: Decision) -> bytes:
    """The content of `decisions.json`."""
    return json.dumps(decision._asdict()).encode()


def decode_decision(text: bytes) -> Decision | None:
    """Read `decisions.json`; None when it holds no decision."""
    try:
        row = json.loads(text)
        decision = Decision(**row)
    except (ValueError, TypeError):
        return None
    return decision if isinstance(decision.allowed, bool) else None
