"""Watches every exchange: the echo guard, the usage, and one audit line before an answer is complete."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from . import limits
from .codec import Answer, Refused, Request
from .decide import Plan, Refusal
from .guard import Guard, Inflater, Leak, patterns
from .headers import readable
from .ledger import Counts
from .rates import Rates
from .usage import Counter

if TYPE_CHECKING:
    from ..kit.audit import Audit
    from .exchange import Exchange
    from .journal import Journal
    from .reactor import Reactor

_LEAK = "The answer carries the real credential, so it was cut."
_UNAUDITED = "The request could not be written to the audit log"


class _Notes:
    """What is kept about one exchange: its guard, and for a body that is looked into, inflater and counter."""

    __slots__ = ("guard", "inflater", "counter", "held")

    def __init__(self, guard: Guard | None, inflater: Inflater | None, counter: Counter | None) -> None:
        self.guard, self.inflater, self.counter = guard, inflater, counter
        self.held = b""


class Books:
    """Keeps the books of one container's vault.

    Args:
        reactor: the loop.
        container: its name.
        audit: the container's log.
        journal: the vault's log.
        counts: the usage.
        required: refuse what cannot be audited.
    """

    def __init__(
        self,
        reactor: Reactor,
        container: str,
        audit: Audit,
        journal: Journal,
        counts: Counts | None,
        *,
        required: bool = True,
    ) -> None:
        self._reactor, self._container = reactor, container
        self._audit, self._journal, self._counts, self._required = audit, journal, counts, required
        self._rates = Rates()
        self._patterns: dict[tuple[bytes, ...], tuple[bytes, ...]] = {}
        self._failed = False

    # --- before ---

    def admit(self, plan: Plan, request: Request) -> Refusal | None:
        """Whether a planned request may start; what was admitted ends with `ends` or `fails`."""
        if self._failed and self._required and not self._write(_line("audit-probe", self._container)):
            why = f"{_UNAUDITED}: the disk is full or gone."
            return Refusal(503, "audit", why, "free disk space", plan.route.name, plan.scope, 5)
        if self._counts is not None:
            reached = self._counts.exceeded(plan.scope, time.time())
            if reached is not None:
                limit, until = reached
                reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
                why = f"The scope {plan.scope} has used what it may in this {limit.period}; it is reset at {reset}."
                allow = f"wait, or raise it with `terok vault limit {plan.scope}`"
                left = max(1, int(until - time.time()) + 1)
                return Refusal(429, "usage-limit", why, allow, plan.route.name, plan.scope, left)
        return self._rates.take(plan, self._reactor.now)

    # --- during: the exchange's watcher ---

    def renew(self, exchange: Exchange) -> bool:
        """The upstream said 401."""
        return False

    def begins(self, exchange: Exchange, answer: Answer) -> Refusal | None:
        """The answer's head is there: refuse one that cannot be looked into or carries the secret itself."""
        route = exchange.plan.route
        coding = content_type = b""
        for lower, _, value in answer.headers:
            if lower == b"content-encoding":
                coding = value if not coding else b"several"
            elif lower == b"content-type":
                content_type = value.lower()
        guard = self._guard(exchange)
        if guard is not None and any(guard.inside(value) or guard.inside(name) for _, name, value in answer.headers):
            return Refusal(502, "echo", _LEAK, "", route.name, exchange.plan.scope)
        if not readable(coding):
            why = "The answer is compressed in a way that cannot be checked for credentials."
            return Refusal(502, "content-coding", why, "", route.name, exchange.plan.scope)
        inflater = Inflater() if coding and coding.strip().lower() != b"identity" and answer.length else None
        counter = (
            Counter(content_type) if route.usage and (b"json" in content_type or b"event" in content_type) else None
        )
        exchange.state = _Notes(guard, inflater, counter)
        return None

    def _guard(self, exchange: Exchange) -> Guard | None:
        secrets = exchange.secrets
        wanted = self._patterns.get(secrets)
        if wanted is None:
            if len(self._patterns) > 64:
                self._patterns.clear()
            wanted = self._patterns[secrets] = patterns(secrets)
        return Guard(wanted) if wanted else None

    def passes(self, exchange: Exchange, payload: bytes) -> bytes:
        """Payload on its way to the client."""
        notes = exchange.state
        if not isinstance(notes, _Notes):
            return payload
        try:
            if notes.inflater is not None:
                return self._passes_inflated(notes, notes.inflater, payload)
            if notes.counter is not None:
                notes.counter.feed(payload)
            return notes.guard.feed(payload) if notes.guard is not None else payload
        except Leak:
            raise Refused(502, "echo", _LEAK) from None

    def _passes_inflated(self, notes: _Notes, inflater: Inflater, payload: bytes) -> bytes:
        plain = inflater.feed(payload)
        if notes.counter is not None:
            notes.counter.feed(plain)
        if notes.guard is not None:
            notes.guard.feed(plain)
            if notes.guard.holds:
                notes.held += payload
                return b""
        payload, notes.held = notes.held + payload, b""
        return payload

    def ends(self, exchange: Exchange) -> bytes:
        """The answer is complete: the audit line first, then the rest."""
        notes = exchange.state
        rest = b""
        tokens: tuple[int, ...] = (0, 0, 0)
        if isinstance(notes, _Notes):
            if notes.inflater is not None:
                rest = notes.held
            elif notes.guard is not None:
                rest = notes.guard.end()
            if notes.counter is not None:
                tokens = tuple(notes.counter.end())
        self._rates.leave(exchange.plan)
        if not self._record(exchange, exchange.status, "", tokens) and self._required:
            raise Refused(503, "audit", f"{_UNAUDITED}.")
        return rest

    def fails(self, exchange: Exchange, refusal: Refusal) -> None:
        """The exchange ended early."""
        if refusal.rule != "audit":
            self._rates.leave(exchange.plan)
            notes = exchange.state
            counter = notes.counter if isinstance(notes, _Notes) else None
            self._record(exchange, refusal.status, refusal.rule, tuple(counter.end()) if counter else (0, 0, 0))

    # --- the books ---

    def _record(self, exchange: Exchange, status: int, reason: str, tokens: tuple[int, ...]) -> bool:
        plan = exchange.plan
        line = _line("request", self._container, plan.scope, plan.route.name)
        line.update(
            method=exchange.request.method.decode("ascii"),
            path=_path(exchange.request),
            upstream=plan.target.endpoint.authority,
            status=status,
            bytes_in=exchange.sent,
            bytes_out=exchange.got,
            ms=round((self._reactor.now - exchange.started) * 1000, 1),
        )
        if any(tokens):
            line["tokens"] = list(tokens)
        if reason:
            line["verdict"] = "refused"
            line["reason"] = reason
        if self._counts is not None and self._counts.add(
            plan.scope, plan.route.name, 1, exchange.sent, exchange.got, *tokens
        ):
            self._reactor.later(limits.FLUSH_SECONDS, self._flush)
        return self._write(line)

    def refused(self, refusal: Refusal, request: Request | None) -> None:
        """A request that was refused before anything was sent upstream."""
        line = _line("request", self._container, refusal.scope, refusal.provider)
        if request is not None:
            line.update(method=request.method.decode("ascii"), path=_path(request))
        line.update(status=refusal.status, verdict="refused", reason=refusal.rule, allow=refusal.allow)
        self._write(line)

    def _write(self, line: dict[str, object]) -> bool:
        try:
            self._journal.append(line)
            fields = {name: value for name, value in line.items() if name not in ("time", "event", "container")}
            self._audit.write(str(line["event"]), **fields)
        except OSError as error:
            if not self._failed:
                print(f"vault: {_UNAUDITED}: {error.strerror or os.strerror(error.errno or 0)}", file=sys.stderr)
            self._failed = True
            return False
        self._failed = False
        return True

    def _flush(self) -> None:
        if self._counts is not None and not self._counts.flush():
            self._reactor.later(limits.FLUSH_SECONDS, self._flush)

    def close(self) -> None:
        """Write what is still in memory."""
        self._flush()


def _line(event: str, container: str, scope: str = "", provider: str = "") -> dict[str, object]:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    line: dict[str, object] = {"time": stamp, "event": event, "container": container}
    if scope:
        line["scope"] = scope
    if provider:
        line["provider"] = provider
    return line


def _path(request: Request) -> str:
    """The path without its query, which may carry what the client wants kept to itself."""
    return request.target.partition(b"?")[0].decode("ascii")[: limits.AUDIT_PATH_MAX]
