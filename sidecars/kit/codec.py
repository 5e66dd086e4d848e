"""HTTP/1.1 heads, strictly: bytes in, messages out, no I/O (RFC 9110, RFC 9112).

Rules of this file:
- a head is read in one way or not at all; whatever two programs could read differently is refused;
- header names are compared in lower case, values are handed on as they came;
- `Refused` carries the status that a client gets and the name of the rule that it broke.
"""

from __future__ import annotations

import re

from . import limits
from .refusal import Refused

CHUNKED = -1
"""Body length of a message in chunks (RFC 9112, section 7.1)."""
UNTIL_CLOSE = -2
"""Body length of an answer that ends with its connection (RFC 9112, section 6.3, rule 8)."""

Header = tuple[bytes, bytes, bytes, bytes]
"""Name in lower case, name as it came, value without surrounding whitespace, and the line to send, with its CRLF."""

_TCHAR = rb"!#$%&'*+.^_`|~0-9A-Za-z-"
_TOKEN = re.compile(rb"[" + _TCHAR + rb"]+")
_REQUEST_LINE = re.compile(rb"([" + _TCHAR + rb"]{1,24}) ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_HOST = re.compile(rb"(?:[0-9A-Za-z._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_DIGITS_MAX = 18
_TEXT = bytes(byte for byte in range(256) if byte == 9 or 32 <= byte != 127)
_LINES: dict[bytes, Header] = {}
"""Header lines seen before, taken apart: clients and servers repeat most of theirs in every message."""
_LINES_MAX, _LINE_KEPT_MAX = 512, 160
_ANSWERS: dict[tuple[bytes, bytes], Answer] = {}
"""Whole answer heads seen before, with the request's method: within a second, `Date` stays the same."""


class Request:
    """One request head.

    Attributes:
        method, target: as they came; the target is in origin form (`/path?query`).
        minor: 0 or 1, the HTTP/1.x version.
        headers: all of them, in order.
        length: bytes of the body, or `CHUNKED`.
        keep: whether the client wants the connection kept.
        upgrade: the protocol that it asks to switch to, in lower case; empty: none.
        expects: it waits for `100 Continue`.
    """

    __slots__ = ("method", "target", "minor", "headers", "length", "keep", "upgrade", "expects")

    def __init__(self, method: bytes, target: bytes, minor: int, headers: list[Header]) -> None:
        self.method, self.target, self.minor, self.headers = method, target, minor, headers
        self.length = 0
        self.keep = minor == 1
        self.upgrade = b""
        self.expects = False

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.target.decode()!r} length={self.length}>"


class Answer:
    """One response head.

    Attributes:
        status, reason, minor, headers: as they came.
        length: bytes of the body, `CHUNKED` or `UNTIL_CLOSE`.
        keep: whether the upstream keeps the connection.
        coding, content_type: Content-Encoding (`several` when there are more) and Content-Type.
        raw: the whole head.
        crossing: kept by `headers.answer_lines`; None: not made yet.
    """

    __slots__ = ("status", "reason", "minor", "headers", "length", "keep", "coding", "content_type", "raw", "crossing")

    def __init__(self, status: int, reason: bytes, minor: int, headers: list[Header]) -> None:
        self.status, self.reason, self.minor, self.headers = status, reason, minor, headers
        self.length = 0
        self.keep = minor == 1
        self.coding = self.content_type = self.raw = b""
        self.crossing: bytes | None = None

    def __repr__(self) -> str:
        return f"<Answer {self.status} length={self.length}>"


def split_head(buffer: bytes | bytearray, maximum: int) -> int:
    """Where the head in `buffer` ends (behind its empty line); 0 when it is not complete.

    Raises:
        Refused: it is longer than `maximum`, or its first line already shows that it is no HTTP head.
    """
    end = buffer.find(b"\r\n\r\n", 0, maximum + 4)
    if end >= 0:
        return end + 4
    if len(buffer) > maximum:
        raise Refused(431, "head-size", f"The head has more than {maximum} bytes.")
    first = buffer.find(b"\n", 0, maximum)
    if first == 0 or (first > 0 and buffer[first - 1] != 13):
        raise Refused(400, "bare-lf", "A line of the head ends in a bare LF.")
    return 0


def _lines(head: bytes) -> list[bytes]:
    """The lines of a head whose every byte is text or part of a CRLF."""
    lines = head[:-4].split(b"\r\n")
    if len(lines) > limits.HEADERS_MAX + 1:
        raise Refused(431, "header-count", f"The head has more than {limits.HEADERS_MAX} lines.")
    # what is left when all text is deleted must be exactly the line ends that were split at
    if len(head.translate(None, _TEXT)) != 2 * len(lines) + 2:
        raise Refused(400, "control-character", "The head has a bare CR, a bare LF or a control character.")
    return lines


def fields(lines: list[bytes]) -> list[Header]:
    """Header lines as (lower-case name, name, value); raises Refused for a line that is none."""
    return [_LINES.get(line) or _field(line) for line in lines]


def _field(line: bytes) -> Header:
    name, colon, value = line.partition(b":")
    if not colon:
        raise Refused(400, "header-line", "A header line has no colon, or is folded.")
    if not _TOKEN.fullmatch(name):
        raise Refused(400, "header-name", "A header line is folded, or its name is not a token.")
    value = value.strip(b" \t")
    header = (name.lower(), name, value, b"%b: %b\r\n" % (name, value))
    if len(line) <= _LINE_KEPT_MAX:
        if len(_LINES) >= _LINES_MAX:
            _LINES.clear()
        _LINES[line] = header
    return header


def parse_request(head: bytes) -> Request:
    """Read a request head, its empty line included.

    Raises:
        Refused: it breaks a rule of RFC 9112, or one of this file.
    """
    lines = _lines(head)
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise Refused(400, "request-line", "The request line is not `method target HTTP/1.1`.")
    method, target, minor = match.groups()
    if method == b"CONNECT" or target[0] != 47:
        raise Refused(400, "target-form", "Only targets that begin with / are served.")
    if b"#" in target or b"\\" in target:
        raise Refused(400, "target-character", "The target has a fragment or a backslash.")
    request = Request(method, target, minor[0] - 48, fields(lines[1:]))
    _frame_request(request)
    return request


def _frame_request(request: Request) -> None:
    # A body whose length two readers may understand differently is how requests are smuggled (RFC 9112, section 11.2):
    # what decides the length or the host may stand once only, even when both say the same.
    host: bytes | None = None
    length: bytes | None = None
    coding: bytes | None = None
    upgrade = connection = b""
    for lower, _, value, _ in request.headers:
        if lower == b"host":
            if host is not None:
                raise Refused(400, "host-twice", "There are two Host headers.")
            host = value
        elif lower == b"content-length":
            if length is not None:
                raise Refused(400, "content-length-twice", "There are two Content-Length headers.")
            length = value
        elif lower == b"transfer-encoding":
            if coding is not None:
                raise Refused(400, "transfer-encoding", "There are two Transfer-Encoding headers.")
            coding = value
        elif lower == b"connection":
            connection += b"," + value
        elif lower == b"upgrade":
            upgrade = value
        elif lower == b"expect":
            if value.lower() != b"100-continue":
                raise Refused(417, "expectation", "Only Expect: 100-continue is understood.")
            request.expects = True
    if host is None and request.minor == 1:
        raise Refused(400, "no-host", "There is no Host header.")
    if host is not None and not _HOST.fullmatch(host):
        raise Refused(400, "host-form", "The Host header is not a host and port.")
    if coding is not None:
        if length is not None:
            raise Refused(400, "two-lengths", "Content-Length and Transfer-Encoding are both given.")
        if request.minor == 0 or coding.lower() != b"chunked":
            raise Refused(400, "transfer-encoding", "The only transfer coding is chunked, in HTTP/1.1.")
        request.length = CHUNKED
    elif length is not None:
        request.length = _number(length, 400)
    if connection:
        options = connection_options(connection)
        request.keep = b"close" not in options and (request.minor == 1 or b"keep-alive" in options)
        if upgrade and b"upgrade" in options and request.minor == 1:
            request.upgrade = upgrade.lower()
            if request.length:
                raise Refused(400, "upgrade-body", "A request to switch protocols has a body.")


def connection_options(value: bytes) -> list[bytes]:
    """The options of a Connection header, in lower case (RFC 9110, section 7.6.1)."""
    return [option.strip(b" \t").lower() for option in value.split(b",")]


def _number(value: bytes, status: int) -> int:
    if not value.isdigit() or len(value) > _DIGITS_MAX:
        raise Refused(status, "content-length", "Content-Length is not one decimal number.")
    return int(value)


def read_answer(head: bytes, method: bytes) -> Answer:
    """`parse_answer`, for heads that come again: the caller must not change the answer."""
    answer = _ANSWERS.get((head, method))
    if answer is None:
        answer = parse_answer(head, method)
        if len(head) <= limits.HEAD_KEPT_MAX:
            if len(_ANSWERS) >= limits.HEADS_KEPT:
                _ANSWERS.clear()
            _ANSWERS[head, method] = answer
    return answer


def parse_answer(head: bytes, method: bytes) -> Answer:
    """Read a response head, its empty line included, to a request with `method`.

    Raises:
        Refused: with status 502; the upstream's framing cannot be trusted.
    """
    try:
        lines = _lines(head)
        match = _STATUS_LINE.fullmatch(lines[0])
        if match is None:
            raise Refused(502, "status-line", "The upstream's status line is not HTTP/1.1.")
        minor, status, reason = match.groups()
        answer = Answer(int(status), reason or b"", minor[0] - 48, fields(lines[1:]))
        answer.raw = head
        _frame_answer(answer, method)
    except Refused as refused:
        rule, why = refused.refusal.rule, refused.refusal.why
        raise Refused(502, "upstream-" + rule, f"The upstream's answer was refused. {why}") from None
    return answer


def _frame_answer(answer: Answer, method: bytes) -> None:
    length: bytes | None = None
    coding: bytes | None = None
    connection = b""
    for lower, _, value, _ in answer.headers:
        if lower == b"content-length":
            if length is not None and length != value:
                raise Refused(502, "content-length-twice", "It has two Content-Length headers.")
            length = value
        elif lower == b"transfer-encoding":
            if coding is not None:
                raise Refused(502, "transfer-encoding", "It has two Transfer-Encoding headers.")
            coding = value
        elif lower == b"connection":
            connection += b"," + value
        elif lower == b"content-type":
            answer.content_type = value
        elif lower == b"content-encoding":
            answer.coding = b"several" if answer.coding else value
    options = connection_options(connection) if connection else []
    answer.keep = b"close" not in options and (answer.minor == 1 or b"keep-alive" in options)
    if coding is not None and (length is not None or answer.minor == 0 or coding.lower() != b"chunked"):
        raise Refused(
            502, "two-lengths", "Its Transfer-Encoding is not plain chunked, or stands beside Content-Length."
        )
    number = None if length is None else _number(length, 502)
    # The order of RFC 9112, section 6.3: the method and status come before any header, then the transfer coding, then
    # the length. What is left ends with the connection, so no other request may follow on it.
    if method == b"HEAD" or answer.status in (204, 304) or answer.status < 200:
        answer.length = 0
    elif coding is not None:
        answer.length = CHUNKED
    elif number is not None:
        answer.length = number
    else:
        answer.length = UNTIL_CLOSE
        answer.keep = False
