"""Watches every exchange: the echo guard, the usage, and one audit line before an answer is complete."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from json import dumps
from typing import TYPE_CHECKING

from ....supervisor.ground import paste
from ...kit.codec import UNTIL_CLOSE, Answer, Request
from ...kit.refusal import Refusal
from .. import limits
from ..decide import PHANTOM, Plan
from ..guard.echo import Patterns, secret_in_answer
from ..guard.screen import GZIP, Screen
from ..headers import readable
from .ledger import Counts
from .rates import Rates
from .usage import NO_TOKENS, Counter

if TYPE_CHECKING:
    from ...kit.audit import Audit
    from ...kit.reactor import Reactor
    from ..relay.exchange import Exchange
    from .journal import Journal

_UNAUDITED = "The request could not be written to the audit log"


class _Notes:
    """What is kept about one exchange: how its answer's body is looked into."""

    __slots__ = ("patterns", "compressed", "counter", "sure", "screen")

    def __init__(self, patterns: Patterns, counter: Counter | None, *, compressed: bool, sure: bool) -> None:
        self.patterns, self.counter, self.compressed, self.sure = patterns, counter, compressed, sure
        self.screen: Screen | None = None
        """From the first bytes on that were not seen with the head."""

    def pass_whole(self, payload: bytes) -> bytes:
        """A whole body, seen with its head to hold no secret as it is."""
        if self.patterns.begun(payload, half=True):
            raise secret_in_answer()
        if self.counter is not None:
            self.counter.feed(payload)
        return payload

    def pass_piece(self, payload: bytes, *, last: bool) -> bytes:
        """What may pass of a body, with the next bytes of it."""
        if self.screen is None:
            plain = self.counter.feed if self.counter is not None else None
            self.screen = Screen(self.patterns, compressed=self.compressed, plain=plain, sure=self.sure)
        return self.screen.feed(payload, last=last)


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
        self._failed = False
        self.renewal: Callable[[Exchange], bool] | None = None
        """Set by who can refresh logins."""
        self._waiting: list[tuple[Exchange, bytes]] = []
        self._second, self._stamp = 0, ""

    # --- before ---

    def admit(self, plan: Plan) -> Refusal | None:
        """Whether a planned request may start; what was admitted ends with `ends` or `fails`."""
        if self._failed and self._required and not self._write([self._start().encode()]):
            why = f"{_UNAUDITED}: the disk is full or gone."
            return Refusal(503, "audit", why, "free disk space", plan.route.name, plan.grant.scope, 5)
        if self._counts is not None:
            reached = self._counts.exceeded(plan.grant.scope, time.time())
            if reached is not None:
                limit, until = reached
                reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
                why = (
                    f"The scope {plan.grant.scope} has used what it may in this {limit.period}; it is reset at {reset}."
                )
                allow = f"wait, or raise it with `terok vault limit {paste.quoted(plan.grant.scope)}`"
                left = max(1, int(until - time.time()) + 1)
                return Refusal(429, "usage-limit", why, allow, plan.route.name, plan.grant.scope, left)
        return self._rates.take(plan, self._reactor.now)

    # --- during: the exchange's watcher ---

    def renew(self, exchange: Exchange) -> bool:
        """The upstream said 401: refresh the login and send the request again, when it is one."""
        return self.renewal is not None and self.renewal(exchange)

    def begins(self, exchange: Exchange, answer: Answer, came: bytes) -> Refusal | None:
        """The answer's head is there: refuse one that cannot be looked into or carries the secret itself."""
        refusal = self.carries_secret(exchange, came)
        if refusal is not None:
            return refusal
        coding = answer.coding
        if coding and not readable(coding):
            why = "The answer is compressed in a way that cannot be checked for credentials."
            return Refusal(502, "content-coding", why)
        compressed = bool(coding) and coding.lower() != b"identity" and bool(answer.length)
        counter = Counter.fitting(answer.content_type) if exchange.plan.route.usage else None
        sure = answer.length != UNTIL_CLOSE and answer.status != 101
        exchange.notes = _Notes(self._patterns_of(exchange), counter, compressed=compressed, sure=sure)
        return None

    def carries_secret(self, exchange: Exchange, head: bytes) -> Refusal | None:
        """Refuse a head, interim ones and trailers too, that carries the secret itself."""
        return secret_in_answer().refusal if self._patterns_of(exchange).anywhere(head) else None

    def _patterns_of(self, exchange: Exchange) -> Patterns:
        loaded = exchange.loaded
        if loaded.patterns is None:
            loaded.patterns = Patterns(loaded.secrets)
        return loaded.patterns

    def passes(self, exchange: Exchange, payload: bytes, *, last: bool, seen: bool = False) -> bytes:
        """Payload on its way to the client."""
        notes = exchange.notes
        if not isinstance(notes, _Notes):
            return payload
        if seen and not notes.compressed and not payload.startswith(GZIP):
            return notes.pass_whole(payload)
        return notes.pass_piece(payload, last=last)

    def busy(self, exchange: Exchange) -> bool:
        """Whether there is more to look into of what `passes` was given."""
        notes = exchange.notes
        return isinstance(notes, _Notes) and notes.screen is not None and notes.screen.busy

    def ends(self, exchange: Exchange) -> None:
        """The answer is complete. The lines of one turn are written together, then the answers' ends are sent."""
        notes = exchange.notes
        counter = notes.counter if isinstance(notes, _Notes) else None
        self._rates.leave(exchange.plan)
        if not self._waiting:
            self._reactor.soon(self._commit)
        self._waiting.append((exchange, self._line(exchange, exchange.status, "", counter)))

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        written = self._write([line for _, line in waiting])
        refusal = None
        if not written and self._required:
            refusal = Refusal(503, "audit", f"{_UNAUDITED}.", "free disk space")
        for exchange, _ in waiting:
            exchange.audited(refusal)

    def fails(self, exchange: Exchange, refusal: Refusal) -> None:
        """The exchange ended early."""
        self._rates.leave(exchange.plan)
        notes = exchange.notes
        counter = notes.counter if isinstance(notes, _Notes) else None
        self._write([self._line(exchange, refusal.status, refusal.rule, counter)])

    # --- the books ---

    def _line(self, exchange: Exchange, status: int, reason: str, counter: Counter | None) -> bytes:
        """Count an exchange, and its audit line without the closing brace. Everything in it is plain ASCII."""
        plan = exchange.plan
        tokens = counter.end() if counter else NO_TOKENS
        if self._counts is not None:
            scope, provider = plan.grant.scope, plan.route.name
            if self._counts.add(scope, provider, 1, exchange.sent, exchange.got, *tokens[:3]):
                self._reactor.later(limits.FLUSH_SECONDS, self._flush)
            if counter and tokens:
                self._counts.add_model(scope, provider, counter.model, *tokens)
        about = plan.about
        if not about:
            about = plan.about = (
                f'"scope": "{plan.grant.scope}", "provider": "{plan.route.name}",'
                f' "method": "{plan.request.method.decode("ascii")}", "path": "{_path(plan.request)}",'
                f' "upstream": "{plan.target.endpoint.authority}"'
            )
            if plan.credential != PHANTOM:
                about = plan.about = f'{about}, "credential": "{plan.credential}"'
        line = (
            f'{self._start()}, {about}, "status": {status}, "bytes_in": {exchange.sent},'
            f' "bytes_out": {exchange.got}, "ms": {(self._reactor.now - exchange.started) * 1000:.1f}'
        )
        if tokens:
            line += f', "tokens": {{"input": {tokens.input}, "output": {tokens.output}, "cached": {tokens.cached}}}'
            if counter and counter.model:
                line += f', "model": "{counter.model}"'
        if reason:
            line += f', "verdict": "refused", "reason": "{reason}"'
        return line.encode("ascii", "backslashreplace")

    def _start(self, event: str = "request") -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return (
            f'{{"time": "{self._stamp}.{int((now - second) * 1000):03d}Z", "source": "vault", "event": "{event}",'
            f' "container": "{self._container}"'
        )

    def turned_away(self, host: str, refusal: Refusal) -> None:
        """A connection to a brokered host (empty: it named none) that carried no request."""
        line = self._start("connection")
        if host:
            line += f', "host": "{host}"'
        line += f', "status": {refusal.status}, "verdict": "refused", "reason": "{refusal.rule}"'
        self._write([f'{line}, "detail": {dumps(refusal.why)}, "allow": {dumps(refusal.allow)}'.encode("ascii")])

    def refused(self, refusal: Refusal, request: Request | None, host: str = "") -> None:
        """A request that was refused before anything was sent upstream; `host`: the brokered one that it came to."""
        line = self._start()
        if host:
            line += f', "host": "{host}"'
        if refusal.provider:
            line += f', "scope": "{refusal.scope}", "provider": "{refusal.provider}"'
        if request is not None:
            line += f', "method": "{request.method.decode("ascii")}", "path": "{_path(request)}"'
        allow = dumps(refusal.allow)
        line += f', "status": {refusal.status}, "verdict": "refused", "reason": "{refusal.rule}", "allow": {allow}'
        self._write([line.encode("ascii", "backslashreplace")])

    def _write(self, lines: list[bytes]) -> bool:
        try:
            self._journal.append(lines)
            self._audit.append(b"}\n".join(lines) + b"}\n")
        except OSError as error:
            if not self._failed:
                print(f"vault: {_UNAUDITED}: {error.strerror or error}.", file=sys.stderr)
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


def _path(request: Request) -> str:
    """The path without its query, which may carry what the client wants kept to itself."""
    path = request.target.partition(b"?")[0][: limits.AUDIT_PATH_MAX].decode("ascii")
    return path.replace('"', '\\"') if '"' in path else path
