"""A client's connection: heads in, one exchange at a time, errors as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..kit.answer import answer
from ..kit.codec import split_head
from ..kit.refusal import Refusal, Refused
from . import limits
from .tls.arrival import TRUST

if TYPE_CHECKING:
    from typing import Protocol

    from ..kit.reactor import Reactor, Timer
    from ..kit.stream import Stream
    from .books.watch import Books
    from .gated.body import Held
    from .relay.exchange import Exchange
    from .tls.links import Link
    from .tls.site import Site

    class Service(Protocol):
        """The relay, as a connection sees it."""

        reactor: Reactor
        books: Books
        stopping: bool

        def serve(self, client: Client, head: bytes, rest: bytes) -> None: ...
        def left(self, client: Client) -> None: ...
        def turned_away(self, host: str, refusal: Refusal) -> None: ...


PATIENCE_SECONDS = 60
"""Clients do not wait longer than this for `Retry-After`, they try again at once."""


_GIT = b"\r\nUser-Agent: git/"


def error_answer(refusal: Refusal, *, close: bool, body: bool = True, text: bool = False) -> bytes:
    """A refusal on the wire: `error` as the AI services shape it, `message` as GitHub and GitLab do.

    `text`: the sentence alone, for git, which prints an error only when it is plain text.
    """
    message = f"terok vault: {refusal.why}" + (f" To allow it: {refusal.allow}." if refusal.allow else "")
    content = json.dumps(
        {
            "type": "error",
            "error": {"type": "terok_vault_error", "code": refusal.rule, "message": message},
            "message": message,
            "reason": refusal.rule,
            "allow": refusal.allow,
        }
    ).encode()
    fields = {"X-Terok-Reason": refusal.rule}
    if refusal.status == 401:
        fields["WWW-Authenticate"] = 'Basic realm="terok vault"'
    retry_after = refusal.retry_after or (limits.RETRY_SECONDS if refusal.status == 503 else 0)
    if retry_after:
        fields["Retry-After"] = str(retry_after)
    if _permanent(refusal):
        fields["X-Should-Retry"] = "false"
    kind = "text/plain" if text else "application/json"
    content = f"{message}\n".encode() if text else content
    whole = answer(refusal.status, content, kind, close=close, fields=fields)
    return whole if body else whole[: -len(content)]


def _permanent(refusal: Refusal) -> bool:
    """Whether the same request will be refused again: the AI services' clients then show the error at once."""
    if refusal.retry_after:
        return refusal.retry_after > PATIENCE_SECONDS
    return (refusal.status < 500 and refusal.status != 408) or refusal.rule in ("echo", "content-coding")


class Client:
    """Owner of one client's wire.

    Args:
        service: the relay.
        wire: the connection.
        site: the brokered host that it leads to; None: the vault's own address.
        link: of the relay that passed it on.

    Attributes:
        wire, site, link: as given.
    """

    __slots__ = (
        "_service",
        "wire",
        "site",
        "link",
        "_buffer",
        "_exchange",
        "_timer",
        "_head_since",
        "_lingering",
        "_deciding",
        "_bodiless",
        "_text",
        "_asked",
    )

    def __init__(self, service: Service, wire: Stream, site: Site | None = None, link: Link | None = None) -> None:
        self._service, self.wire, self.site, self.link = service, wire, site, link
        self._buffer = b""
        self._exchange: Exchange | Held | None = None
        self._head_since = 0.0
        self._lingering = self._deciding = self._bodiless = self._text = self._asked = False
        self._timer: Timer = service.reactor.later(limits.HEAD_SECONDS, self._tick)
        wire.owner = self

    def __repr__(self) -> str:
        return f"<Client {self.wire!r} exchange={self._exchange!r}>"

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None

    @property
    def host(self) -> str:
        """The brokered host; "" at the vault's own address."""
        return self.site.host if self.site is not None else ""

    # --- the wire's owner ---

    def received(self, data: bytes) -> None:
        """Bytes of a head, of the running exchange's body, or of a body that is dropped."""
        exchange = self._exchange
        if exchange is not None:
            try:
                exchange.more(data)
            except Refused as refused:
                exchange.stop(refused.refusal)
            return
        if self._lingering:
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._read()

    def _read(self) -> None:
        try:
            end = split_head(self._buffer, limits.HEAD_MAX)
            if not end:
                if not self._head_since:
                    self._head_since = self._service.reactor.now
                    self._timer.cancel()
                    self._timer = self._service.reactor.later(limits.HEAD_SECONDS, self._tick)
                return
            self._head_since = 0.0
            self._asked = True
            head, rest, self._buffer = self._buffer[:end], self._buffer[end:], b""
        except Refused as refused:
            self._refuse_head(refused.refusal)
            return
        self._serve(head, rest)

    def _refuse_head(self, refusal: Refusal) -> None:
        """No token was read from it, so the audit line names no scope."""
        self._service.books.refused(refusal, None, self.host)
        self.refuse(refusal, close=True)

    def _serve(self, head: bytes, rest: bytes) -> None:
        self._deciding = True
        self._bodiless, self._text = head.startswith(b"HEAD "), _GIT in head
        try:
            self._service.serve(self, head, rest)
        except Refused as refused:
            self._refuse_head(refused.refusal)
        finally:
            self._deciding = False

    def take(self, exchange: Exchange | Held, rest: bytes, *, wait: bool) -> None:
        """Run an exchange, or hold a request until its body is judged; `rest` came behind its head."""
        self._exchange = exchange
        try:
            exchange.start(rest, wait=wait)
        except Refused as refused:
            exchange.stop(refused.refusal)

    def ended(self) -> None:
        """The client sends no more. It may still read: a half-close is no abort."""
        if self._exchange is not None:
            self._exchange.client_ended()
        else:
            self._note_silence()
            self.wire.abort()

    def _note_silence(self) -> None:
        """Some clients look at the certificate after the handshake only, when they pin it, and leave without a word."""
        if self.site is not None and not self._asked:
            self._asked = True
            why = "The client closed the connection after the handshake, without a request."
            self._service.turned_away(self.host, Refusal(495, "no-request", why, TRUST))

    def lost(self, error: OSError | None) -> None:
        """The connection is gone."""
        if error is not None:
            self._note_silence()
        self._timer.cancel()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost()
        self._service.left(self)

    def drained(self) -> None:
        """The client takes bytes again."""
        if self._exchange is not None:
            self._exchange.client_drained()

    # --- the exchange's caller ---

    def answered(self, exchange: Exchange, *, keep: bool) -> None:
        """The answer is complete."""
        self._exchange = None
        if keep and exchange.request_done and not self._service.stopping:
            self.wire.resume()
            return
        self._linger(complete=exchange.request_done)

    def refuse(self, refusal: Refusal, *, close: bool) -> None:
        """Send an error; close when the request was not read to its end."""
        self._exchange = None
        close = close or self._service.stopping
        self.wire.write(error_answer(refusal, close=close, body=not self._bodiless, text=self._text))
        if close:
            self._linger(complete=False)
        else:
            self.wire.resume()

    def _linger(self, *, complete: bool) -> None:
        """Close; while the peer still sends, a close would reset the answer away, so read on a bit (RFC 9112, 9.6)."""
        if complete:
            self.wire.close()
            return
        self._lingering = True
        self.wire.end()
        self.wire.resume()
        self._timer.cancel()
        self._timer = self._service.reactor.later(limits.LINGER_SECONDS, self.wire.abort)

    # --- time ---

    def _tick(self) -> None:
        """Close what is idle too long. Armed for the earliest moment that can matter, and moved on from there."""
        reactor = self._service.reactor
        if self._head_since:
            if reactor.now - self._head_since >= limits.HEAD_SECONDS:
                why = f"The head was not complete after {limits.HEAD_SECONDS:g} s."
                self._refuse_head(Refusal(408, "slow-head", why))
                return
            self._timer = reactor.later(self._head_since + limits.HEAD_SECONDS - reactor.now, self._tick)
            return
        busy = self._exchange is not None
        limit = limits.BODY_IDLE_SECONDS if busy else limits.CLIENT_IDLE_SECONDS
        last = max(self.wire.active, self._exchange.active) if self._exchange is not None else self.wire.active
        left = last + limit - reactor.now
        if left > 0:
            self._timer = reactor.later(min(left, limits.CLIENT_IDLE_SECONDS) if busy else left, self._tick)
        elif self._exchange is not None:
            why = f"Nothing moved for {limits.BODY_IDLE_SECONDS:g} s."
            self._exchange.stop(Refusal(504, "idle", why, ""))
        else:
            self.wire.abort()

    def cut(self, refusal: Refusal) -> None:
        """Give up what runs."""
        if self._exchange is not None:
            self._exchange.stop(refusal)

    def stop(self) -> None:
        """Leave when there is nothing to finish; called at SIGTERM and when the process makes room."""
        if self._exchange is None and not self._deciding:
            self.wire.close()
