"""One request and its answer, from the decision to the last byte.

Rules of this file:
- bytes flow both ways at once; the slower side makes the faster one wait;
- nothing of the answer's end is sent before the audit line is written;
- whatever goes wrong before the answer began becomes an error for the client; afterwards the connection is cut, so
  that no client takes a part for the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kit import bodies
from ..kit.codec import CHUNKED, Answer, read_answer, split_head
from ..kit.refusal import Refusal, Refused
from . import limits
from .headers import Added, answer_lines, trailer_lines

if TYPE_CHECKING:
    from .heads import Admitted
    from .keeper import Loaded
    from .sides import Caller, Watcher
    from .upstream.pool import Pool, Upstream

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""
_RELAYED_INTERIM = (100, 102, 103)


class Exchange:
    """Carries one request to its upstream and the answer back.

    Attributes:
        admitted: what was decided about the head; `request`, `plan`, `grant` are parts of it.
        loaded: the credential; its secrets are what the answer must not carry.
        added: what goes into the request; None while the credential is refreshed: `again` gives it.
        status: of the answer; 0 before it.
        sent, got: payload bytes of the request and of the answer.
    """

    __slots__ = (
        "_caller", "_watcher", "_pool", "admitted", "request", "plan", "grant", "added", "loaded", "_body", "_first",
        "_replay", "_upstream", "_buffer", "_reader", "answer_head", "status", "sent", "got", "started", "_begun",
        "_over", "_last", "_gone", "_tunnel", "_retried", "_keep", "_renewed", "_request_done", "state",
    )  # fmt: skip

    def __init__(
        self,
        caller: Caller,
        watcher: Watcher,
        pool: Pool,
        admitted: Admitted,
        added: Added | None,
        started: float,
    ) -> None:
        self._caller, self._watcher, self._pool = caller, watcher, pool
        self.admitted, self.added, self.started = admitted, added, started
        self.request = request = admitted.request
        self.plan, self.loaded = admitted.plan, admitted.loaded
        self.grant = admitted.plan.grant
        self._keep = request.keep
        self._body: bodies.Body = bodies.reader(request.length)
        self._first = b""
        self._replay: bytes | None = b""
        self._upstream: Upstream | None = None
        self._buffer = b""
        self._reader: bodies.Body | None = None
        self.answer_head: Answer | None = None
        self.status = self.sent = self.got = 0
        self._last = b""
        self._gone = self._begun = self._over = self._tunnel = self._retried = self._renewed = self._request_done = (
            False
        )
        self.state: object = None
        """The watcher's own notes about this exchange."""

    def __repr__(self) -> str:
        return f"<Exchange {self.request!r} status={self.status} over={self._over}>"

    # --- the request ---

    def start(self, data: bytes) -> None:
        """Begin; `data` is what came behind the head. Raises Refused for a body that breaks a rule."""
        if data or self.request.length:
            self._first = self._take(data) if data else b""
        else:
            self._request_done = True
        if self._over:
            return
        if not self._body.done:
            self._caller.wire.pause()
        if self.added is not None:
            self._pool.take(self.plan.target.endpoint, self)

    def _take(self, data: bytes) -> bytes:
        """The request's body as it goes upstream."""
        body = self._body
        payload = body.feed(data) if data else b""
        self.sent += len(payload)
        maximum = self.plan.route.body_max
        if maximum is not None and self.sent > maximum:
            raise Refused(413, "body-max", f"The body is longer than {maximum} bytes.")
        if body.done:
            if body.rest:
                raise Refused(400, "pipelining", "There are bytes behind the end of the request.")
            self._request_done = True
        if self.request.length != CHUNKED:
            wired = payload
        elif body.done:
            # trailers end here (RFC 9110, section 6.5.1 lets them): some servers merge them into the headers
            wired = bodies.chunk(payload) + b"0\r\n\r\n"
        else:
            wired = bodies.chunk(payload)
        if self._replay is not None:
            self._replay = self._replay + wired if len(self._replay) + len(wired) <= limits.REPLAY_MAX else None
        return wired

    def more(self, data: bytes) -> None:
        """More bytes from the client. Raises Refused as `start` does."""
        if self._tunnel:
            self.sent += len(data)
            if self._upstream is not None:
                self._upstream.wire.write(data)
                if self._upstream.wire.full:
                    self._caller.wire.pause()
            return
        if self._over:
            if self._request_done:
                self._gone = True
                self._caller.wire.abort()
            return  # the rest of a body that nobody wants any more
        if self._request_done:
            raise Refused(400, "pipelining", "There are bytes behind the end of the request.")
        wired = self._take(data)
        if self._upstream is None:
            self._first += wired
            self._caller.wire.pause()
            return
        self._upstream.wire.write(wired)
        if self._upstream.wire.full:
            self._caller.wire.pause()

    @property
    def active(self) -> float:
        """The loop's time of the last byte to or from the upstream."""
        return self._upstream.wire.active if self._upstream is not None else self.started

    @property
    def request_done(self) -> bool:
        """Whether the client has sent its whole request."""
        return self._request_done

    def connected(self, upstream: Upstream) -> None:
        """The upstream is there: send the head and what we have of the body in one write."""
        if self._over:
            upstream.release()
            return
        self._upstream = upstream
        upstream.wire.resume()
        upstream.wire.write(self._head() + self._first)
        self._first = b""
        if not self._request_done:
            if upstream.wire.full:
                self._caller.wire.pause()
            else:
                self._caller.wire.resume()

    def _head(self) -> bytes:
        request, plan = self.request, self.plan
        assert self.added is not None
        framing = b""
        if request.length == CHUNKED:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif request.length or request.method in (b"POST", b"PUT", b"PATCH"):
            framing = b"Content-Length: %d\r\n" % request.length
        if request.upgrade:
            framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (
            request.method, plan.path, plan.target.origin, self.admitted.lines(self.added), framing,
        )  # fmt: skip

    # --- the answer ---

    def answer(self, data: bytes) -> None:
        """Bytes from the upstream."""
        try:
            if self._tunnel:
                self._pass_tunnel(data)
            elif self._reader is None:
                self._buffer += data
                self._read_head()
            else:
                self._deliver(b"", self._reader.feed(data))
        except Refused as refused:
            self._broken(refused)

    def _broken(self, refused: Refused) -> None:
        refusal = refused.refusal
        self._fail(self._of_grant(refusal._replace(status=max(502, refusal.status))))

    def _of_grant(self, refusal: Refusal) -> Refusal:
        return refusal._replace(provider=self.grant.provider, scope=self.grant.scope)

    def _read_head(self) -> None:
        while True:
            end = split_head(self._buffer, limits.ANSWER_HEAD_MAX)
            if not end:
                return
            answer = read_answer(self._buffer[:end], self.request.method)
            if answer.status >= 200 or answer.status == 101:
                break
            refusal = self._watcher.carries_secret(self, self._buffer[:end])
            if refusal is not None:
                self._fail(refusal)
                return
            if answer.status in _RELAYED_INTERIM and self.request.minor:
                reason = answer.reason or b"Continue"
                self._caller.wire.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, reason, answer_lines(answer)))
            self._buffer = self._buffer[end:]
        came = self._buffer
        rest, self._buffer = came[end:], b""
        if answer.status == 101:
            self._switch(answer, rest)
            return
        if answer.status == 401 and not self._renewed and self._may_repeat() and self._watcher.renew(self):
            self._renewed = True
            self._first = self._replay or b""
            self._drop_upstream(reusable=False)
            return
        self._begin(answer, came, rest)

    def _begin(self, answer: Answer, came: bytes, rest: bytes) -> None:
        self.answer_head = answer
        self.status = answer.status
        refusal = self._watcher.begins(self, answer, came)
        if refusal is not None:
            self._fail(refusal)
            return
        self._reader = bodies.reader(answer.length)
        head = b"HTTP/1.1 %d %b\r\n%b%b%b\r\n" % (
            answer.status, answer.reason, answer_lines(answer), self._framing(answer),
            b"" if self._keep else b"Connection: close\r\n",
        )  # fmt: skip
        self._deliver(head, self._reader.feed(rest) if rest else b"")

    def _framing(self, answer: Answer) -> bytes:
        if self.request.method == b"HEAD" or answer.status in (204, 304):
            return b"".join(
                b"Content-Length: %b\r\n" % value for lower, _, value, _ in answer.headers if lower == b"content-length"
            )
        if answer.length >= 0:
            return b"Content-Length: %d\r\n" % answer.length
        if self.request.minor:
            return b"Transfer-Encoding: chunked\r\n"
        self._keep = False
        return b""

    def _deliver(self, head: bytes, payload: bytes) -> None:
        """Send the head (once) and payload; and the end, when the body is complete."""
        reader = self._reader
        assert reader is not None
        answer = self.answer_head
        assert reader is not None and answer is not None
        self.got += len(payload)
        if payload or reader.done:
            # a whole answer that came at once was seen with its head
            seen = bool(head) and reader.done and answer.length >= 0
            payload = self._watcher.passes(self, payload, last=reader.done, seen=seen)
        if answer.length < 0 and self.request.minor:
            payload = bodies.chunk(payload)
            if reader.done:
                payload += b"0\r\n%b\r\n" % trailer_lines(reader.trailers)
        if reader.done:
            self._last = head + payload
            self._over = True
            self._drop_upstream(reusable=answer.keep and not reader.rest and self._request_done)
            self._watcher.ends(self)
            return
        wire = self._caller.wire
        wire.write(head + payload)
        self._begun = True
        if wire.full and self._upstream is not None:
            self._upstream.wire.pause()

    def audited(self, refusal: Refusal | None) -> None:
        """The audit line of a complete answer is written: send its end. A refusal says that it could not be."""
        if self._gone:
            return
        if refusal is None:
            self._caller.wire.write(self._last)
            self._caller.answered(self, keep=self._keep)
        elif self._begun:
            self._caller.wire.close()
        else:
            self._caller.refuse(refusal, close=not self._request_done)

    def _drop_upstream(self, *, reusable: bool) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if reusable:
                upstream.release()
            else:
                upstream.discard()

    # --- switched protocols ---

    def _switch(self, answer: Answer, rest: bytes) -> None:
        if not self.request.upgrade:
            raise Refused(502, "upstream-switch", "The upstream switched protocols without being asked.")
        self.answer_head, self.status = answer, 101
        refusal = self._watcher.begins(self, answer, answer.raw)
        if refusal is not None:
            self._fail(refusal)
            return
        self._tunnel = self._begun = True
        self._caller.tunnel(self)
        head = b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n"
        self._caller.wire.write(
            head % (answer.reason or b"Switching Protocols", self.request.upgrade, answer_lines(answer))
        )
        if rest:
            self._pass_tunnel(rest)

    def _pass_tunnel(self, data: bytes) -> None:
        self.got += len(data)
        wire = self._caller.wire
        wire.write(self._watcher.passes(self, data, last=False))
        if wire.full and self._upstream is not None:
            self._upstream.wire.pause()

    def client_ended(self) -> None:
        """The client sends no more: a switched connection hands that on; a request half sent is given up."""
        if self._tunnel:
            if self._upstream is not None:
                self._upstream.wire.end()
        elif not self._request_done:
            self.client_lost()

    # --- ends ---

    def answer_ended(self) -> None:
        """The upstream sends no more."""
        try:
            if self._tunnel:
                self._end_tunnel()
            elif self._reader is not None and self._reader.end():
                self._deliver(b"", b"")
            else:
                self.upstream_lost(None)
        except Refused as refused:
            self._broken(refused)

    def _end_tunnel(self) -> None:
        self._last = self._watcher.passes(self, b"", last=True)
        self._keep = False
        self._over = True
        self._drop_upstream(reusable=False)
        self._watcher.ends(self)

    def upstream_lost(self, error: OSError | None) -> None:
        """The connection broke before the answer was complete."""
        upstream, self._upstream = self._upstream, None
        if self._over:
            return
        if self._tunnel:
            self._end_tunnel()
            return
        pooled = upstream is not None and upstream.used
        if upstream is not None:
            upstream.discard()
        if (
            pooled
            and not self._begun
            and not self._buffer
            and not self._retried
            and self._may_repeat()
            and self._idempotent()
        ):
            self._retried = True
            self._first = self._replay or b""
            self._pool.take(self.plan.target.endpoint, self, fresh=True)
            return
        what = "ended its answer early" if self._begun else "closed the connection without an answer"
        detail = f" ({error.strerror or error})" if error else ""
        why = f"{self.plan.target.endpoint.authority} {what}{detail}."
        self._fail(Refusal(502, "upstream-lost", why, "try again", self.grant.provider, self.grant.scope))

    def _may_repeat(self) -> bool:
        return self._request_done and self._replay is not None and not self.request.upgrade

    def _idempotent(self) -> bool:
        return self.request.method in IDEMPOTENT or any(h[0] == b"idempotency-key" for h in self.request.headers)

    def again(self, loaded: Loaded, added: Added) -> None:
        """Send the request, for the first or the second time, with a credential that has just been refreshed."""
        if not self._over:
            self.loaded, self.added = loaded, added
            self._pool.take(self.plan.target.endpoint, self)

    def unreachable(self, refusal: Refusal) -> None:
        """There is no connection to the upstream."""
        self._fail(self._of_grant(refusal))

    def refused(self, refused: Refused) -> None:
        """The client broke a rule in its body."""
        self._fail(self._of_grant(refused.refusal))

    def stop(self, refusal: Refusal) -> None:
        """Give up, for a reason of ours."""
        self._fail(refusal)

    def _fail(self, refusal: Refusal) -> None:
        if self._over:
            return
        self._over = True
        self._drop_upstream(reusable=False)
        self._watcher.fails(self, refusal)
        if self._begun:
            self._caller.wire.close()
        else:
            self._caller.refuse(refusal, close=not self._keep or not self._request_done or refusal.status == 400)

    def client_lost(self) -> None:
        """The client is gone: nobody waits for the answer."""
        self._gone = True
        if not self._over:
            self._over = True
            self._drop_upstream(reusable=False)
            why = "The client closed the connection."
            self._watcher.fails(self, Refusal(499, "client-gone", why, "", self.grant.provider, self.grant.scope))
            self._caller.wire.abort()

    # --- backpressure ---

    def upstream_drained(self) -> None:
        """The upstream takes bytes again."""
        if self._tunnel or not self._request_done:
            self._caller.wire.resume()

    def client_drained(self) -> None:
        """The client takes bytes again."""
        if self._upstream is not None:
            self._upstream.wire.resume()
