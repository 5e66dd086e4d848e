"""One request and its answer, from the decision to the last byte: what the two sides say is carried out here.

Rules of this file:
- bytes flow both ways at once; the slower side makes the faster one wait;
- nothing of the answer's end is sent before the audit line is written;
- whatever goes wrong before the answer began becomes an error for the client; afterwards the connection is cut, so
  that no client takes a part for the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ...kit.refusal import Refusal, Refused
from . import phases
from .answer import AnswerSide
from .request import RequestSide, pipelined
from .tunnel import Tunnel, carry

if TYPE_CHECKING:
    from ...kit.codec import Answer
    from ...kit.stream import Stream
    from ..decide import Plan
    from ..inject import Loaded
    from ..upstream.pool import Pool, Upstream

_UNDECIDED = (phases.WAITING, phases.SENT)
"""Where the request may still be sent again."""
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RENEWED, _RECONNECTED = "renewed", "reconnected"


class Caller(Protocol):
    """The client's connection, as an exchange sees it."""

    wire: Stream

    def answered(self, exchange: Exchange, *, keep: bool) -> None:
        """The answer is complete; `keep`: the connection may carry another request."""

    def refuse(self, refusal: Refusal, *, close: bool) -> None:
        """Send an error instead of the answer."""


class Watcher(Protocol):
    """Looks at an exchange and keeps the books."""

    def begins(self, exchange: Exchange, answer: Answer, came: bytes) -> Refusal | None:
        """The answer's head is there, `came` is it and what came with it; a refusal is sent instead of it."""

    def carries_secret(self, exchange: Exchange, head: bytes) -> Refusal | None:
        """An interim head (1xx) or trailers are about to go to the client; a refusal is sent instead of them."""

    def passes(self, exchange: Exchange, payload: bytes, *, last: bool, seen: bool = False) -> bytes:
        """Payload is about to go to the client; returns what may go. Raises Refused when none may any more.

        Nothing passes while `busy`: call it again with nothing more. `last`: nothing follows. `seen`: it was in what
        `begins` was given, as it is here.
        """

    def busy(self, exchange: Exchange) -> bool:
        """Whether `passes` was given more than one turn of the loop can look into."""

    def ends(self, exchange: Exchange) -> None:
        """The answer is complete: write it down, then call the exchange's `audited`."""

    def fails(self, exchange: Exchange, refusal: Refusal) -> None:
        """The exchange ended early."""

    def renew(self, exchange: Exchange) -> bool:
        """The upstream said 401: True when the exchange will be sent again by `again`."""


class Exchange:
    """Carries one request to its upstream and the answer back.

    Attributes:
        plan: where the request goes.
        loaded: the credential; its secrets are what the answer must not carry.
        started: the loop's time.
        notes: the watcher's own, about this exchange.
    """

    __slots__ = (
        "_caller", "_watcher", "_pool", "plan", "loaded", "started", "notes", "_phase", "_request", "_answer",
        "_tunnel", "_upstream", "_head", "_last", "_repeated", "_looking",
    )  # fmt: skip

    def __init__(
        self, caller: Caller, watcher: Watcher, pool: Pool, plan: Plan, loaded: Loaded, started: float
    ) -> None:
        self._caller, self._watcher, self._pool = caller, watcher, pool
        self.plan, self.loaded, self.started = plan, loaded, started
        self.notes: object = None
        self._phase = phases.WAITING
        self._request, self._answer = RequestSide(plan), AnswerSide(plan.request)
        self._tunnel: Tunnel | None = None
        self._upstream: Upstream | None = None
        self._head = self._last = b""
        self._looking = False
        self._repeated: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Exchange {self.plan.request!r} {self._phase} status={self.status}>"

    def _move(self, event: str) -> None:
        self._phase = phases.TRANSITIONS[self._phase, event]
        if self._request.keeps and self._phase not in _UNDECIDED:
            self._request.forget()

    @property
    def status(self) -> int:
        """Of the answer; 0 before it."""
        return self._answer.head.status if self._answer.head is not None else 0

    @property
    def sent(self) -> int:
        """Payload bytes from the client."""
        return self._request.sent + (self._tunnel.sent if self._tunnel is not None else 0)

    @property
    def got(self) -> int:
        """Payload bytes of the answer."""
        return self._answer.got + (self._tunnel.got if self._tunnel is not None else 0)

    @property
    def active(self) -> float:
        """The loop's time of the last byte to or from the upstream."""
        return self._upstream.wire.active if self._upstream is not None else self.started

    @property
    def request_done(self) -> bool:
        """Whether the client has sent its whole request."""
        return self._request.done

    # --- the request ---

    def start(self, data: bytes, *, wait: bool) -> None:
        """Begin; `data` came behind the head. `wait`: the login is refreshed first, then `again` is called.

        Raises:
            Refused: the body breaks a rule.
        """
        if data:
            self._request.wait(self._request.take(data))
        if not self._request.done:
            self._caller.wire.hold()
        if not wait and self._phase == phases.WAITING:
            self._pool.take(self.plan.target.endpoint, self)

    def more(self, data: bytes) -> None:
        """More bytes from the client. Raises Refused as `start` does."""
        if self._tunnel is not None:
            if self._upstream is not None:
                self._tunnel.to_upstream(data)
        elif self._phase not in phases.LIVE:
            if self._request.done:
                self._move(phases.GONE)
                self._caller.wire.abort()
            # else: the rest of a body whose answer is complete
        elif self._request.done:
            raise pipelined()
        elif self._upstream is None:
            self._request.wait(self._request.take(data))
            if not self._request.done:
                self._caller.wire.hold()
        else:
            self._upstream.wire.write(self._request.take(data))
            if self._upstream.wire.full and not self._request.done:
                self._caller.wire.hold()

    def connected(self, upstream: Upstream) -> None:
        """The upstream is there: send the head and what we have of the body in one write."""
        self._move(phases.CONNECTED)
        if self._phase == phases.OVER:
            upstream.release()
            return
        self._upstream = upstream
        upstream.wire.resume()
        upstream.wire.write(self._request.opening(self.loaded))
        if not upstream.wire.full or self._request.done:
            self._caller.wire.resume()

    # --- the answer ---

    def answer(self, data: bytes) -> None:
        """Bytes from the upstream."""
        try:
            if self._tunnel is not None:
                self._tunnel.to_client(len(data), self._watcher.passes(self, data, last=False))
            elif self._answer.head is None:
                self._read_heads(data)
            else:
                self._deliver(self._answer.payload(data))
        except Refused as refused:
            self._broken(refused)

    def _read_heads(self, data: bytes) -> None:
        while (read := self._answer.feed_head(data)) is not None:
            answer, came = read
            if answer.status == 101:
                self._switch(answer)
                return
            if answer.status >= 200:
                self._final(answer, came)
                return
            refusal = self._watcher.carries_secret(self, answer.raw)
            if refusal is not None:
                self.stop(refusal)
                return
            # as with a body: a client that does not read interim answers makes the upstream wait
            if self._upstream is not None:
                carry(self._answer.interim(answer), self._upstream.wire, self._caller.wire)
            data = b""

    def _final(self, answer: Answer, came: bytes) -> None:
        if answer.status == 401 and self._may_repeat(_RENEWED) and self._watcher.renew(self):
            self._repeat(_RENEWED)
            return
        refusal = self._watcher.begins(self, answer, came)
        self._head, payload = self._answer.begin(answer)
        if refusal is not None:
            self.stop(refusal)
            return
        self._deliver(payload, first=True)

    def _deliver(self, payload: bytes, *, first: bool = False) -> None:
        """Send the head (once) and payload; and the end, when the body is complete.

        The last bytes stay here until the audit line is written: a client that has read a complete answer can rely on
        its being in the log, and one whose line could not be written never sees a complete answer. An answer that came
        in one piece waits as a whole, so that an error can still take its place.
        """
        answer = self._answer
        done = answer.done
        if payload or done:
            # a whole answer that came at once was looked into together with its head, so not a second time here; in
            # chunks it was not, since the framing may have cut a secret in two
            seen = first and done and answer.head is not None and answer.head.length >= 0
            payload = self._watcher.passes(self, payload, last=done, seen=seen)
            if self._watcher.busy(self):
                self._look_later()
                return
        if done and answer.trailers and (refusal := self._watcher.carries_secret(self, answer.trailers)):
            self.stop(refusal)
            return
        head, self._head = self._head, b""
        wired = head + answer.wrap(payload)
        if done:
            self._last = wired
            self._move(phases.COMPLETE)
            # bytes behind the answer's end, or a request half sent, would be taken for the next exchange's
            self._drop_upstream(reusable=answer.reusable and self._request.done, rest=answer.bodiless)
            self._watcher.ends(self)
            return
        if head:
            self._move(phases.BEGIN)
        if self._upstream is not None:
            carry(wired, self._upstream.wire, self._caller.wire)

    def _look_later(self) -> None:
        """A compressed body may become a thousand times as long: let others have their turn before the next piece."""
        if self._upstream is not None:
            self._upstream.wire.pause()
        if not self._looking:
            self._looking = True
            self._pool.reactor.soon(self._look_on)

    def _look_on(self) -> None:
        self._looking = False
        if self._phase not in (phases.SENT, phases.PASSING):
            return
        if self._upstream is not None and not self._caller.wire.full:
            self._upstream.wire.resume()
        try:
            self._deliver(b"")
        except Refused as refused:
            self._broken(refused)

    def audited(self, refusal: Refusal | None) -> None:
        """The audit line of a complete answer is written: send its end. A refusal says that it could not be."""
        phase = self._phase
        self._move(phases.AUDITED)
        if phase == phases.OVER:
            return
        if refusal is None:
            self._caller.wire.write(self._last)
            self._caller.answered(self, keep=self._answer.keep and self._tunnel is None)
        elif phase == phases.WHOLE:
            self._caller.refuse(refusal, close=not self._request.done)
        else:
            self._caller.wire.close()

    def _drop_upstream(self, *, reusable: bool, rest: bool = False) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if reusable:
                upstream.release(rest=rest)
            else:
                upstream.discard()

    # --- switched protocols ---

    def _switch(self, answer: Answer) -> None:
        if not self.plan.request.upgrade:
            raise Refused(502, "upstream-switch", "The upstream switched protocols without being asked.")
        refusal = self._watcher.begins(self, answer, answer.raw)
        head, first = self._answer.switch(answer)
        if refusal is not None or self._upstream is None:
            self.stop(refusal or self._lost_refusal(None))
            return
        self._move(phases.SWITCH)
        self._tunnel = Tunnel(self._caller.wire, self._upstream.wire)
        self._caller.wire.write(head)
        if first:
            self.answer(first)

    def _end_tunnel(self) -> None:
        self._last = self._watcher.passes(self, b"", last=True)
        self._move(phases.COMPLETE)
        self._drop_upstream(reusable=False)
        self._watcher.ends(self)

    # --- a second time ---

    def _may_repeat(self, reason: str) -> bool:
        return reason not in self._repeated and self._request.repeatable

    def _repeat(self, reason: str) -> None:
        self._repeated += (reason,)
        self._move(phases.REPEAT)
        self._request.rewind()
        self._answer = AnswerSide(self.plan.request)
        self._drop_upstream(reusable=False)

    def again(self, loaded: Loaded) -> None:
        """Send the request, for the first or the second time, with a credential that has just been refreshed."""
        if self._phase == phases.WAITING:
            self.loaded = loaded
            self._pool.take(self.plan.target.endpoint, self)

    # --- ends ---

    def answer_ended(self) -> None:
        """The upstream sends no more."""
        try:
            if self._tunnel is not None:
                self._end_tunnel()
            elif self._answer.end():
                self._deliver(b"")
            else:
                self.upstream_lost(None)
        except Refused as refused:
            self._broken(refused)

    def upstream_lost(self, error: OSError | None) -> None:
        """The connection broke before the answer was complete."""
        upstream = self._upstream
        if self._phase not in phases.LIVE or upstream is None:
            return
        if self._answer.done:
            self._drop_upstream(reusable=False)  # all of it is here and is being looked into
            return
        try:
            if self._tunnel is not None:
                self._end_tunnel()
                return
        except Refused as refused:
            self._broken(refused)
            return
        untouched = upstream.used and not self._answer.begun and self._phase == phases.SENT
        if untouched and self._may_repeat(_RECONNECTED) and self._request.idempotent:
            self._repeat(_RECONNECTED)
            self._pool.take(self.plan.target.endpoint, self, fresh=True)
            return
        self.stop(self._lost_refusal(error))

    def _lost_refusal(self, error: OSError | None) -> Refusal:
        what = "ended its answer early" if self._answer.begun else "closed the connection without an answer"
        detail = f" ({error.strerror or error})" if error else ""
        return Refusal(502, "upstream-lost", f"{self.plan.target.endpoint.authority} {what}{detail}.", "try again")

    def unreachable(self, refusal: Refusal) -> None:
        """There is no connection to the upstream."""
        self.stop(refusal)

    def _broken(self, refused: Refused) -> None:
        """The answer broke a rule: whatever the rule says, to the client it is a bad gateway."""
        self.stop(refused.refusal._replace(status=max(502, refused.refusal.status)))

    def stop(self, refusal: Refusal) -> None:
        """Give up: the client broke a rule in its body, the upstream failed, or the vault leaves."""
        phase = self._phase
        self._move(phases.FAIL)
        if phase not in phases.LIVE:
            return
        grant = self.plan.grant
        refusal = refusal._replace(provider=grant.provider, scope=grant.scope)
        self._drop_upstream(reusable=False)
        self._watcher.fails(self, refusal)
        if phase in phases.REPLACEABLE:
            keep = self._answer.keep and self._request.done and refusal.status != 400
            self._caller.refuse(refusal, close=not keep)
        else:
            self._caller.wire.close()

    def client_ended(self) -> None:
        """The client sends no more: a switched connection hands that on; a request half sent is given up.

        After a whole request TCP cannot tell a client that still reads from one that is gone, until something is sent.
        An interim answer tells: every client of HTTP/1.1 passes over it (RFC 9110, section 15.2), and the kernel of one
        that is gone resets the connection. So an exchange that waits for its upstream ends when its client does.
        """
        if self._tunnel is not None:
            self._tunnel.client_ended()
        elif not self._request.done or (not self.plan.request.minor and self._phase in _UNDECIDED):
            self.client_lost()
        elif self._phase in _UNDECIDED:
            self._caller.wire.write(_PROBE)

    def client_lost(self) -> None:
        """The client is gone: nothing waits for the answer."""
        phase = self._phase
        self._move(phases.GONE)
        if phase in phases.LIVE:
            self._drop_upstream(reusable=False)
            grant = self.plan.grant
            why = "The client closed the connection."
            self._watcher.fails(self, Refusal(499, "client-gone", why, "", grant.provider, grant.scope))
            self._caller.wire.abort()

    # --- backpressure ---

    def upstream_drained(self) -> None:
        """The upstream takes bytes again."""
        self._caller.wire.resume()

    def client_drained(self) -> None:
        """The client takes bytes again."""
        if self._upstream is not None and not self._looking:
            self._upstream.wire.resume()
