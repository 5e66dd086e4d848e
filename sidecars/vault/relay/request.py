"""The request of an exchange: the client's bytes in, the upstream's out. No I/O.

What goes upstream is framed anew, so that both ends read the same message; what was sent is kept, up to a limit, for
an exchange that must be sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...kit import bodies
from ...kit.codec import CHUNKED
from ...kit.refusal import Refused
from .. import limits

if TYPE_CHECKING:
    from ..decide import Plan
    from ..inject import Loaded

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""


class _Kept:
    """The bytes of all bodies that are kept to be sent again: this process serves one container."""

    size = 0


kept = _Kept()


class RequestSide:
    """One request on its way.

    Args:
        plan: the head and where it goes.

    Attributes:
        sent: payload bytes taken from the client.
        done: whether the client has sent its whole request.
    """

    __slots__ = ("_plan", "_body", "_waiting", "_replay", "sent", "done")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._body: bodies.Body = bodies.reader(plan.request.length)
        self._waiting = b""
        self._replay: bytes | None = b""
        self.sent = 0
        self.done = not plan.request.length

    def __repr__(self) -> str:
        return f"<RequestSide sent={self.sent} done={self.done}>"

    def take(self, data: bytes) -> bytes:
        """Bytes of the body from the client; returns them as they go upstream.

        Raises:
            Refused: the body breaks a rule, or bytes follow it.
        """
        body = self._body
        payload = body.feed(data)
        self.sent += len(payload)
        maximum = self._plan.route.body_max
        if maximum is not None and self.sent > maximum:
            raise Refused(413, "body-max", f"The body is longer than {maximum} bytes.")
        if body.done:
            if body.rest:
                raise pipelined()
            self.done = True
        if self._plan.request.length != CHUNKED:
            framed = payload
        elif body.done:
            # trailers end here (RFC 9110, section 6.5.1 lets them): some servers merge them into the headers
            framed = bodies.chunk(payload) + b"0\r\n\r\n"
        else:
            framed = bodies.chunk(payload)
        if self._replay is not None and framed:
            self._keep(framed)
        return framed

    def _keep(self, framed: bytes) -> None:
        assert self._replay is not None
        size = len(self._replay) + len(framed)
        if size > limits.REPLAY_MAX or kept.size + len(framed) > limits.REPLAYS_MAX:
            self.forget()
        else:
            kept.size += len(framed)
            self._replay += framed

    @property
    def keeps(self) -> bool:
        """Whether bytes are kept to be sent again."""
        return bool(self._replay)

    def forget(self) -> None:
        """The request will not be sent again."""
        if self._replay:
            kept.size -= len(self._replay)
        self._replay = None

    def wait(self, framed: bytes) -> None:
        """Keep what was taken until there is a connection."""
        self._waiting += framed

    def opening(self, loaded: Loaded) -> bytes:
        """The head with the credential in it, and what waits of the body."""
        request, plan = self._plan.request, self._plan
        framing = b""
        if request.length == CHUNKED:
            framing = b"Transfer-Encoding: chunked\r\n"
        elif request.length or request.method in (b"POST", b"PUT", b"PATCH"):
            framing = b"Content-Length: %d\r\n" % request.length
        if request.upgrade:
            framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
        waiting, self._waiting = self._waiting, b""
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b\r\n%b" % (
            request.method, plan.path, plan.target.origin, plan.lines, loaded.lines(plan.target.auth), framing, waiting,
        )  # fmt: skip

    def rewind(self) -> None:
        """The whole request will be sent again."""
        self._waiting = self._replay or b""

    @property
    def repeatable(self) -> bool:
        """Whether the whole request is here to be sent again."""
        return self.done and self._replay is not None and not self._plan.request.upgrade

    @property
    def idempotent(self) -> bool:
        """Whether the upstream may get it twice."""
        request = self._plan.request
        return request.method in IDEMPOTENT or any(header[0] == b"idempotency-key" for header in request.headers)


def pipelined() -> Refused:
    """The refusal of bytes behind a request: the next one may only follow its answer."""
    return Refused(400, "pipelining", "There are bytes behind the end of the request.")
