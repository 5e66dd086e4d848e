"""Message bodies, strictly: bytes in, payload out, no I/O (RFC 9112, section 7).

Each reader takes what arrived and returns the payload in it. `done` tells that the body is complete, and `rest` holds
the bytes behind its end. Chunk extensions are dropped: no program behind this one has to read them.
"""

from __future__ import annotations

import re

from . import limits
from .codec import CHUNKED, UNTIL_CLOSE, Header, fields
from .refusal import Refused

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TEXT = bytes(byte for byte in range(256) if byte == 9 or 32 <= byte != 127)


class Counted:
    """A body of a known length."""

    __slots__ = ("left", "done", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""
        self.trailers: list[Header] = []

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire and return the payload in them."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return data
        if size > self.left:
            self.rest = data[self.left :]
            data = data[: self.left]
        self.left = 0
        self.done = True
        return data

    def end(self) -> bool:
        """The connection has ended: True when the body is complete."""
        return self.done


class Streamed:
    """A body that ends with its connection."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: list[Header] = []

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire and return the payload in them."""
        return data

    def end(self) -> bool:
        """The connection has ended, and with it the body."""
        self.done = True
        return True


_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class Chunked:
    """A body in chunks. Raises Refused(400) for any framing that two programs could read differently."""

    __slots__ = ("_state", "_left", "_line", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self.done = False
        self.rest = b""
        self.trailers: list[Header] = []

    def __repr__(self) -> str:
        return f"<Chunked {('size', 'data', 'data-end', 'trailers')[self._state]} left={self._left} done={self.done}>"

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire and return the payload in them.

        A framing line may be cut anywhere, between its CR and LF too: what is not complete waits in `_line` for the
        next bytes, bounded, and is refused as soon as no continuation could make it right. Payload never waits: it is
        passed on as it comes, so that a chunk of any size needs no memory.
        """
        pieces: list[bytes] = []
        if self._line:
            data, self._line = self._line + data, b""
        at, size = 0, len(data)
        while not self.done:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                if self._left:
                    break
                self._state = _DATA_END
            elif self._state == _DATA_END:
                if size - at < 2:
                    self._keep(data[at:], b"\r\n")
                    at = size
                    break
                if data[at : at + 2] != b"\r\n":
                    raise Refused(400, "chunk-end", "A chunk does not end where its size says.")
                at += 2
                self._state = _SIZE
            elif self._state == _SIZE:
                end = data.find(b"\r\n", at, at + limits.CHUNK_LINE_MAX)
                if end < 0:
                    self._wait(data[at:], limits.CHUNK_LINE_MAX, "chunk-size", "A chunk size line is too long.")
                    at = size
                    break
                match = _SIZE_LINE.fullmatch(data, at, end)
                if match is None:
                    raise Refused(400, "chunk-size", "A chunk size is not a hexadecimal number.")
                self._left = int(match[1], 16)
                at = end + 2
                self._state = _DATA if self._left else _TRAILERS
            else:
                at = self._read_trailers(data, at)
                if not self.done:
                    break
        if self.done:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data[at : at + 2] == b"\r\n":
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + limits.TRAILERS_MAX)
        if end < 0:
            self._wait(data[at:], limits.TRAILERS_MAX, "trailers", "The trailers are too long.")
            return len(data)
        lines = data[at:end].split(b"\r\n")
        if len(data[at:end].translate(None, _TEXT)) != 2 * len(lines) - 2:
            raise Refused(400, "control-character", "A trailer has a bare CR, a bare LF or a control character.")
        self.trailers = fields(lines)
        self.done = True
        return end + 4

    def _wait(self, line: bytes, maximum: int, rule: str, why: str) -> None:
        if len(line) >= maximum:
            raise Refused(400, rule, why)
        stripped = line.replace(b"\r\n", b"")
        if b"\n" in stripped or b"\r" in stripped[:-1]:
            raise Refused(400, "bare-lf", "A line of the chunk framing ends in a bare LF or CR.")
        self._line = line

    def _keep(self, line: bytes, expected: bytes) -> None:
        if not expected.startswith(line):
            raise Refused(400, "chunk-end", "A chunk does not end where its size says.")
        self._line = line

    def end(self) -> bool:
        """The connection has ended: True when the body is complete."""
        return self.done


Body = Counted | Streamed | Chunked


def reader(length: int) -> Body:
    """The reader for a body of `length` bytes, `CHUNKED` or `UNTIL_CLOSE`."""
    if length == CHUNKED:
        return Chunked()
    if length == UNTIL_CLOSE:
        return Streamed()
    return Counted(length)


def chunk(payload: bytes) -> bytes:
    """One chunk on the wire; empty for an empty payload, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
