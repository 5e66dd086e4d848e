"""What waits for the operator, of whatever kind: read from where each kind is kept, answered by the function it has.

Nothing is stored here. A kind is one row of `SOURCES`; its own verbs (`terok shield decide`, `terok gate approve`,
`terok ssh confirm`) use the same functions.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import NamedTuple

from ...sidecars.gate import config, refs, review, state
from ...sidecars.vault.books.ledger import period_start
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import gates
from ..kit.table import plain
from ..shield import asked
from ..ssh import questions
from . import reached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...sidecars.gate.state import Proposal
    from ...sidecars.vault.books.ledger import Reached
    from ...supervisor.ground.layout import Layout
    from ..kit.env import Env

CONNECTION, PROPOSAL, SIGNATURE, LIMIT = "connection", "proposal", "signature", "limit"


class Answer(NamedTuple):
    """The operator's word.

    Attributes:
        allowed: yes or no.
        always: a connection's name is allowed or denied for good.
        seconds: a connection's name is allowed for so long; None: no time was given.
        raise_by: a limit is raised by so much; None: as much again as it allows.
    """

    allowed: bool
    always: bool = False
    seconds: int | None = None
    raise_by: int | None = None


class Item(NamedTuple):
    """One thing that waits.

    Attributes:
        id: what `terok decide` takes.
        kind: a key of `SOURCES`.
        container: its name; empty when no container asks.
        what: what would be allowed, in words; a container may have chosen some of them.
        since, until: when it was asked, and when it ends undecided (seconds since the epoch; infinite: never).
        look: the command that shows more; empty when there is none.
        allow, deny: the commands that the answers are equal to; empty when one cannot be shown.
        act: carries an answer out.
    """

    id: str
    kind: str
    container: str
    what: str
    since: float
    until: float
    look: str
    allow: str
    deny: str
    act: Callable[[Env, Answer], None]

    def row(self, now: float) -> tuple[str, ...]:
        """Its line in the table for people."""
        left = "-" if self.until == math.inf else f"{max(0, round(self.until - now))} s"
        return self.id, self.kind, self.container or "-", self.what, left, self.allow or "-"

    def plain(self) -> dict[str, object]:
        """The same for programs."""
        until = None if self.until == math.inf else self.until
        return {name: value for name, value in self._asdict().items() if name != "act"} | {"until": until}


HEADER = ("ID", "KIND", "CONTAINER", "WANTS TO", "LEFT", "COMMAND TO ALLOW")


class Unread(NamedTuple):
    """A place that could not be read: things may wait there that are not shown."""

    why: str


def _connections(layout: Layout) -> Iterator[Item]:
    for held in asked.pending(layout):
        question = held.question
        words = ("terok", "shield", "decide", question.id)
        yield Item(
            question.id,
            CONNECTION,
            held.container,
            f"connect to {question.target} (port {question.port})",
            question.since,
            question.until,
            paste.command("terok", "shield", "pending", held.container),
            paste.command(*words, asked.ALLOW),
            paste.command(*words, asked.DENY),
            partial(_decide_connection, held),
        )


def _decide_connection(held: asked.Held, env: Env, answer: Answer) -> None:
    word = asked.ALLOW if answer.allowed else asked.DENY
    once = not answer.always and answer.seconds is None
    asked.decide(env.layout.bundle(held.container), held.question, word, once=once, seconds=answer.seconds)


def _proposals(layout: Layout) -> Iterator[Item | Unread]:
    for scope in gates.scopes(layout):
        try:
            waiting = state.State.peek(layout.gate_home(scope)).proposals.values()
        except (TerokError, OSError, ValueError, KeyError, TypeError) as error:
            yield Unread(f"The proposals of the gate {scope} cannot be read: {error}")
            continue
        yield from (_proposal(scope, proposal) for proposal in waiting)


def _proposal(scope: str, proposal: Proposal) -> Item:
    number = str(proposal.number)
    by = "" if proposal.who else f", from {proposal.source}"
    tip = "" if refs.is_zero(proposal.new) else f" to {proposal.new[:12]}"
    return Item(
        f"{scope}/{number}",
        PROPOSAL,
        proposal.who,
        f"{proposal.kind} {refs.shown(proposal.ref)}{tip}{by}",
        proposal.created,
        math.inf,
        paste.command("terok", "gate", "diff", scope, number),
        paste.command("terok", "gate", "approve", scope, number),
        paste.command("terok", "gate", "reject", scope, number),
        partial(_decide_proposal, scope, proposal.number),
    )


def _decide_proposal(scope: str, number: int, env: Env, answer: Answer) -> None:
    site = gates.site(env.config, scope)
    settings = config.load(site.home)
    if answer.allowed:
        review.approve(site, settings, number, lambda text: env.note(plain(text)))
    else:
        review.reject(site.home, number)


def _signatures(layout: Layout) -> Iterator[Item]:
    now = time.time()
    for question in questions.waiting(layout):
        shown = question.shown
        if not shown["expires"] > now:
            continue  # its signer has ended without removing it
        words = ("terok", "ssh", "confirm", question.id)
        yield Item(
            question.id,
            SIGNATURE,
            str(shown["container"]),
            f"{question.purpose} with {shown['key']}",
            shown["asked"],
            shown["expires"],
            "",
            paste.command(*words, "--yes"),
            paste.command(*words, "--no"),
            partial(_decide_signature, question),
        )


def _decide_signature(question: questions.Waiting, env: Env, answer: Answer) -> None:
    questions.answer(question, yes=answer.allowed)


def _limits(layout: Layout) -> Iterator[Item | Unread]:
    try:
        rows = reached.reached(layout)
    except TerokError as error:
        yield Unread(error.what)
        return
    yield from map(_limit, rows)


def _limit(row: Reached) -> Item:
    limit = row.limit
    allowed = [f"{count} {name}" for name, count in (("requests", limit.requests), ("tokens", limit.tokens)) if count]
    identity = f"{limit.scope}/{reached.ID}"
    return Item(
        identity,
        LIMIT,
        "",
        f"use more than {' and '.join(allowed)} each {limit.period} in the scope {limit.scope}",
        period_start(limit.period, time.time()),
        row.until,
        paste.command("terok", "vault", "usage", "--scope", limit.scope),
        reached.command(reached.raised(row)),
        paste.command("terok", "decide", identity, "deny"),
        partial(_decide_limit, row),
    )


def _decide_limit(row: Reached, env: Env, answer: Answer) -> None:
    reached.answer(env.layout, row, allowed=answer.allowed, by=answer.raise_by)


SOURCES: dict[str, Callable[[Layout], Iterator[Item | Unread]]] = {
    CONNECTION: _connections,
    PROPOSAL: _proposals,
    SIGNATURE: _signatures,
    LIMIT: _limits,
}
"""Every kind, and what reads it."""

LASTING = frozenset({CONNECTION})
"""Kinds whose answer may count for a time or for good; the others are about one thing."""


def waiting(layout: Layout, container: str | None = None) -> tuple[list[Item], list[Unread]]:
    """Everything that waits, of one container or of all, and what could not be read.

    What ends first stands first, then what waits longest.
    """
    rows = [row for source in SOURCES.values() for row in source(layout)]
    items = [row for row in rows if isinstance(row, Item) and container in (None, row.container)]
    return sorted(items, key=lambda item: (item.until, item.since)), [row for row in rows if isinstance(row, Unread)]


def find(layout: Layout, identifier: str) -> Item:
    """What waits under an ID.

    The services that hold questions choose the IDs, and each of them reads what a container sends: an ID that occurs
    twice may have been copied from another container's question, so it decides none.

    Raises:
        TerokError: nothing waits under it (NOT_FOUND), or several things do (REFUSED).
    """
    items = [item for item in waiting(layout)[0] if item.id == identifier]
    if not items:
        raise TerokError(
            f"Nothing waits as {identifier[:80]!r}; it may have ended.", fix="terok pending", code=Exit.NOT_FOUND
        )
    if len(items) > 1:
        commands = ", ".join(sorted({item.allow for item in items}))
        raise TerokError(
            f"{len(items)} things wait as {identifier[:80]!r}, so the ID decides none of them.",
            fix=f"answer with the command of the one that you mean: {commands}",
            code=Exit.REFUSED,
        )
    return items[0]
