"""A request whose body is judged before anything of it goes on: to its client it is what an exchange is.

The whole body waits here, so it has a bound; what is passed on is what the client sent, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ...kit import bodies
from ...kit.refusal import Refusal, Refused
from .. import limits
from ..relay.request import pipelined

if TYPE_CHECKING:
    from ...kit.stream import Stream
    from ..decide import Plan

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Waiting:
    """The bytes of all bodies that wait here: this process serves one container."""

    size = 0


waiting = _Waiting()


class Caller(Protocol):
    """The client's connection, as a held request sees it."""

    wire: Stream


class Held:
    """Takes the body of one request, then has it judged.

    Args:
        caller: the client's connection.
        plan: with a judge.
        now: the loop's time.
        pass_on: called with the body as it came when it may pass.
        refuse: called with why it may not, and whether the body was read to its end.
    """

    def __init__(
        self,
        caller: Caller,
        plan: Plan,
        now: float,
        pass_on: Callable[[bytes], None],
        refuse: Callable[[Refusal, bool], None],
    ) -> None:
        self._caller, self._plan, self.active = caller, plan, now
        self._pass_on, self._refuse = pass_on, refuse
        self._reader: bodies.Body = bodies.reader(plan.request.length)
        self._raw: list[bytes] = []
        self._size, self._over = 0, False

    def __repr__(self) -> str:
        return f"<Held {self._plan.request!r} {self._size} bytes>"

    @property
    def request_done(self) -> bool:
        """Whether the client has sent its whole request."""
        return self._reader.done

    def start(self, data: bytes, *, wait: bool = False) -> None:
        """Begin; `data` came behind the head. Raises Refused: the body breaks a rule, or is too long."""
        if self._plan.request.expects and not data:
            self._caller.wire.write(_CONTINUE)
        self.more(data)

    def more(self, data: bytes) -> None:
        """More bytes from the client. Raises Refused as `start` does."""
        if self._over:
            return
        self._reader.feed(data)
        self._size += len(data)
        waiting.size += len(data)
        self._raw.append(data)
        if self._size > limits.JUDGED_MAX:
            why = f"A body of more than {limits.JUDGED_MAX} bytes cannot be judged."
            raise Refused(413, "gate", why, "send less, or go through the gate")
        if waiting.size > limits.JUDGED_ALL_MAX:
            why = "Too many bodies wait to be judged."
            raise Refused(503, "gate", why, "send fewer requests at a time")
        if not self._reader.done:
            return
        if self._reader.rest:
            raise pipelined()
        raw = self._end()
        why = self._judge(bodies.reader(self._plan.request.length).feed(raw))
        if why:
            self._refuse(self._plan.gate_refusal(why), True)
        else:
            self._pass_on(raw)

    def _end(self) -> bytes:
        """Nothing waits here any more; returns what did."""
        self._over = True
        raw, self._raw = b"".join(self._raw), []
        waiting.size -= len(raw)
        return raw

    def _judge(self, body: bytes) -> str:
        """Why the body may not pass; empty when it may."""
        plan = self._plan
        assert plan.judge is not None
        headers = plan.request.headers
        types = [value for lower, _, value, _ in headers if lower == b"content-type"]
        coded = any(lower == b"content-encoding" and value.lower() != b"identity" for lower, _, value, _ in headers)
        query = plan.request.target.partition(b"?")[2]
        if coded or len(types) > 1:
            return "A body with a content coding or two content types cannot be judged"
        return plan.judge(types[0] if types else b"", query, body)

    def stop(self, refusal: Refusal) -> None:
        """Give up: the client broke a rule in its body, was idle, or the vault leaves."""
        if not self._over:
            self._end()
            grant = self._plan.grant
            self._refuse(refusal._replace(provider=grant.provider, scope=grant.scope), False)

    def client_ended(self) -> None:
        """The client sends no more: half a request is nothing."""
        self.client_lost()

    def client_lost(self) -> None:
        """The client is gone, and nothing of its request went on."""
        if not self._over:
            self._end()
        self._caller.wire.abort()

    def client_drained(self) -> None:
        """The client takes bytes again; none wait here."""
