"""The part of HTTP/1.1 that git speaks, strictly (RFC 9112). Takes and returns bytes; does no I/O.

Rules of this file: lines end in CRLF and nothing else; a request has one way to say where its body ends; whatever
could be read in two ways is refused. The target is an absolute path, printable ASCII.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

HEAD_MAX = 16 << 10
HEADERS_MAX = 64
CHUNK_LINE_MAX = 64
TRAILER_MAX = 4 << 10

_REQUEST_LINE = re.compile(rb"([A-Z]{3,10}) (/[\x21-\x7e]{0,2000}) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*;[\x20-\x7e\t]*)?")

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
REASONS |= {405: "Method Not Allowed", 408: "Request Timeout", 411: "Length Required", 413: "Content Too Large"}
REASONS |= {415: "Unsupported Media Type", 417: "Expectation Failed", 431: "Request Header Fields Too Large"}
REASONS |= {500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable"}
REASONS |= {505: "HTTP Version Not Supported"}


class HttpError(Exception):
    """A request that is refused: `status`, and a sentence that the client is shown."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Request(NamedTuple):
    """The head of a request.

    method, path, query: the target is split at its first `?`; nothing is decoded.
    headers: names in lower case, each once.
    length: bytes of the body; None when it is chunked.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    length: int | None

    @property
    def has_body(self) -> bool:
        """Whether anything follows the head."""
        return self.length != 0

    @property
    def wants_continue(self) -> bool:
        """The client waits for `100 Continue` before it sends the body."""
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def closes(self) -> bool:
        """The client wants the connection closed behind the answer."""
        return "close" in re.split(r"[ \t]*,[ \t]*", self.headers.get("connection", "").lower())


def parse_head(data: bytes) -> Request:
    """Parse a request's head, without the empty line that ends it.

    Raises:
        HttpError: with the status to answer.
    """
    first, *lines = data.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise HttpError(400, "The request line is malformed.")
    if line[3] != b"1":
        raise HttpError(505, "This server speaks HTTP/1.1.")
    if len(lines) > HEADERS_MAX:
        raise HttpError(431, f"A request may have {HEADERS_MAX} header fields.")
    headers: dict[str, str] = {}
    for each in lines:
        field = _HEADER.fullmatch(each)
        if field is None:
            raise HttpError(400, "A header field is malformed.")
        name = field[1].decode().lower()
        if name in headers:
            if name != "accept-encoding" and name != "accept-language":
                raise HttpError(400, f"The header field {name} stands there twice.")
            continue
        headers[name] = field[2].decode("latin-1")
    if "host" not in headers:
        raise HttpError(400, "The header field host is missing.")
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise HttpError(417, "The only expectation that this server knows is 100-continue.")
    path, _, query = line[2].decode().partition("?")
    return Request(line[1].decode(), path, query, headers, _length(headers))


def _length(headers: dict[str, str]) -> int | None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise HttpError(400, "A request has Content-Length or Transfer-Encoding, not both.")
        if coding.lower() != "chunked":
            raise HttpError(501, "The only transfer coding that this server knows is chunked.")
        return None
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise HttpError(400, "Content-Length is not a number.")
    return int(length)


def tokens(authorization: str) -> list[str]:
    """What may be the token in an Authorization field: a bearer token, or either half of Basic (RFC 7617).

    git puts the token where the URL has it, so it is the user name or the password.
    """
    scheme, _, value = authorization.partition(" ")
    value = value.strip(" ")
    if scheme.lower() == "bearer":
        return [value] if value else []
    if scheme.lower() != "basic":
        return []
    try:
        user, _, password = binascii.a2b_base64(value, strict_mode=True).decode("utf-8", "replace").partition(":")
    except (binascii.Error, ValueError):
        return []
    return [each for each in (user, password) if each]


class Length:
    """Framing of a body with a known length: `feed` takes received bytes and returns the body's."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        """The body is complete."""
        return self._left == 0

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`; more than the body is an error, since git never pipelines requests.

        Raises:
            HttpError: bytes stand behind the body.
        """
        if len(data) > self._left:
            raise HttpError(400, "Bytes follow the body.")
        self._left -= len(data)
        return data


class Chunked:
    """Framing of a chunked body (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0
        self._state = "size"
        self._trailer = 0

    def __repr__(self) -> str:
        return f"Chunked({self._state}, {self._left} left)"

    @property
    def done(self) -> bool:
        """The last chunk and the trailer have arrived."""
        return self._state == "done"

    def feed(self, data: bytes) -> bytes:
        """The body's bytes that `data` completes.

        Raises:
            HttpError: the framing is malformed, or bytes stand behind the body.
        """
        self._buffer += data
        out: list[bytes] = []
        while self._buffer:
            if self._state == "done":
                raise HttpError(400, "Bytes follow the body.")
            if self._state == "data":
                piece = bytes(self._buffer[: self._left])
                del self._buffer[: self._left]
                self._left -= len(piece)
                out.append(piece)
                if not self._left:
                    self._state = "end"
                continue
            at = self._buffer.find(b"\n")
            if at < 0:
                if len(self._buffer) > (TRAILER_MAX if self._state == "trailer" else CHUNK_LINE_MAX):
                    raise HttpError(400, "A line of the chunked body is too long.")
                break
            line = bytes(self._buffer[: at + 1])
            del self._buffer[: at + 1]
            if not line.endswith(b"\r\n"):
                raise HttpError(400, "A line of the chunked body does not end in CRLF.")
            self._line(line[:-2])
        return b"".join(out)

    def _line(self, line: bytes) -> None:
        if self._state == "size":
            found = _CHUNK.fullmatch(line) if len(line) <= CHUNK_LINE_MAX else None
            if found is None:
                raise HttpError(400, "A chunk's size is malformed.")
            self._left = int(found[1], 16)
            self._state = "data" if self._left else "trailer"
        elif self._state == "end":
            if line:
                raise HttpError(400, "A chunk is longer than its size.")
            self._state = "size"
        elif not line:
            self._state = "done"
        else:
            self._trailer += len(line)
            if self._trailer > TRAILER_MAX or _HEADER.fullmatch(line) is None:
                raise HttpError(400, "The trailer is malformed.")


def framing(length: int | None) -> Length | Chunked:
    """The framing of a request's body; `length` as in `Request`."""
    return Chunked() if length is None else Length(length)


def head(status: int, fields: dict[str, str]) -> bytes:
    """The head of an answer."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {fields[name]}" for name in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(status: int, body: bytes, content_type: str, *, close: bool, **fields: str) -> bytes:
    """A whole answer; underscores in the names of `fields` stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return (
        head(
            status,
            {"Content-Type": content_type, "Content-Length": str(len(body)), "Cache-Control": "no-store", **named}
            | ({"Connection": "close"} if close else {}),
        )
        + body
    )


def parse_cgi(data: bytes) -> tuple[int, dict[str, str]]:
    """The head that a CGI program printed (RFC 3875): status and fields, without those of the framing.

    Raises:
        ValueError: it is not one.
    """
    status, fields = 200, {}
    for line in data.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z-]+", name):
            raise ValueError("a CGI header is malformed")
        if name.lower() == "status":
            status = int(value.split()[0])
        elif name.lower() not in ("connection", "transfer-encoding", "content-length"):
            fields[name] = value.strip()
    return status, fields
