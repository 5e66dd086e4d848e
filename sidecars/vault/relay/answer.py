"""The answer of an exchange: the upstream's bytes in, heads and payload out, and the client's framing. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...kit import bodies
from ...kit.codec import Answer, Request, read_answer, split_head
from .. import limits
from ..headers import answer_lines, trailer_lines

if TYPE_CHECKING:
    from ...kit.bodies import Body

RELAYED_INTERIM = (100, 102, 103)
"""Interim answers that clients get (RFC 9110, section 15.2)."""


class AnswerSide:
    """One answer as it arrives.

    Args:
        request: what it answers.

    Attributes:
        head: the final head, once it is there.
        got: payload bytes of the answer.
        keep: whether the client's connection may carry another request after it.
    """

    __slots__ = ("_request", "_buffer", "_body", "head", "got", "keep")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._buffer = b""
        self._body: Body | None = None
        self.head: Answer | None = None
        self.got = 0
        self.keep = request.keep

    def __repr__(self) -> str:
        return f"<AnswerSide {self.head!r} got={self.got}>"

    @property
    def begun(self) -> bool:
        """Whether the upstream has sent anything of it that was not used up."""
        return self.head is not None or bool(self._buffer)

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._body is not None and self._body.done

    def feed_head(self, data: bytes) -> tuple[Answer, bytes] | None:
        """The next head, interim or final, and all bytes that came with it and behind it; None: not complete.

        Raises:
            Refused: its framing cannot be trusted.
        """
        came = self._buffer + data if self._buffer else data
        end = split_head(came, limits.ANSWER_HEAD_MAX)
        if not end:
            self._buffer = came
            return None
        answer = read_answer(came[:end], self._request.method)
        self._buffer = came[end:]
        return answer, came

    def interim(self, answer: Answer) -> bytes:
        """An interim head for the client; empty when it gets none."""
        if answer.status not in RELAYED_INTERIM or not self._request.minor:
            return b""
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason or b"Continue", answer_lines(answer))

    def switch(self, answer: Answer) -> tuple[bytes, bytes]:
        """The head of a switched protocol for the client, and the first bytes of that protocol."""
        self.head = answer
        first, self._buffer = self._buffer, b""
        head = b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n"
        return head % (answer.reason or b"Switching Protocols", self._request.upgrade, answer_lines(answer)), first

    def begin(self, answer: Answer) -> tuple[bytes, bytes]:
        """The final head for the client, framed for it, and the payload that came with it."""
        self.head = answer
        self._body = bodies.reader(answer.length)
        framing = self._framing(answer)
        head = b"HTTP/1.1 %d %b\r\n%b%b%b\r\n" % (
            answer.status, answer.reason, answer_lines(answer), framing, b"" if self.keep else b"Connection: close\r\n",
        )  # fmt: skip
        rest, self._buffer = self._buffer, b""
        return head, self.payload(rest) if rest else b""

    def _framing(self, answer: Answer) -> bytes:
        if self.bodiless:
            return b"".join(
                b"Content-Length: %b\r\n" % value for lower, _, value, _ in answer.headers if lower == b"content-length"
            )
        if answer.length >= 0:
            return b"Content-Length: %d\r\n" % answer.length
        if self._request.minor:
            return b"Transfer-Encoding: chunked\r\n"
        self.keep = False
        return b""

    def payload(self, data: bytes) -> bytes:
        """The payload in bytes of the body."""
        assert self._body is not None
        payload = self._body.feed(data)
        self.got += len(payload)
        return payload

    def wrap(self, payload: bytes) -> bytes:
        """Payload that may go to the client, as it goes there; with the end, when the body is complete."""
        assert self._body is not None and self.head is not None
        if self.head.length >= 0 or not self._request.minor:
            return payload
        framed = bodies.chunk(payload)
        if self._body.done:
            framed += b"0\r\n%b\r\n" % trailer_lines(self._body.trailers)
        return framed

    @property
    def trailers(self) -> bytes:
        """The trailers that would follow the body."""
        return trailer_lines(self._body.trailers) if self._body is not None and self._body.trailers else b""

    def end(self) -> bool:
        """The upstream sends no more: True when that completes the body."""
        return self._body is not None and self._body.end()

    @property
    def bodiless(self) -> bool:
        """Whether an answer of this kind never has a body, whatever the upstream sends behind its head."""
        return self._request.method == b"HEAD" or (self.head is not None and self.head.status in (204, 304))

    @property
    def reusable(self) -> bool:
        """Whether the connection ended this answer where the next one may begin."""
        return self.head is not None and self.head.keep and self._body is not None and not self._body.rest
