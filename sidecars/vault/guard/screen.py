"""Looks into one answer's body, compressed or not, piece by piece. No I/O.

Rules of this file:
- of a compressed body a copy is inflated, a bounded piece a call: `busy` says that the next call should come soon, when
  others had their turn;
- bytes of the body pass when all that they inflate to was looked into;
- a body that is gzip without saying so is looked into as well, as far as it can be inflated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from ...kit.refusal import Refused
from .echo import Patterns, Reader

SLICE = 256 << 10
"""Plain bytes that one call inflates and looks into: about a millisecond."""
INFLATED_MAX = 1 << 30
"""Plain bytes that one body may become; more is taken for an attack (RFC 9110, section 17.5)."""
GZIP = b"\x1f\x8b"


class Inflater:
    """Inflates a copy of a compressed body: gzip or zlib streams, one after another, or raw deflate (RFC 1950, 1951).

    Servers and browsers read `Content-Encoding: deflate` both ways, with and without zlib's header.
    """

    __slots__ = ("_stream", "_input", "_size", "_first", "busy")

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(47)
        self._input = b""
        self._size = 0
        self._first = True
        self.busy = False

    def feed(self, data: bytes) -> bytes:
        """At most `SLICE` plain bytes of what was fed; `busy`: there is more.

        Raises:
            Refused: it is no such stream, or grows without measure.
        """
        pieces: list[bytes] = []
        room = SLICE
        self._input = self._input + data if self._input else data
        if self._first and len(self._input) < 2:
            return b""  # the header tells the format
        while room and (self._input or self.busy):
            if self._stream.eof:
                self._stream = zlib.decompressobj(47)
            piece = self._decompress(room)
            pieces.append(piece)
            room -= len(piece)
            self.busy = not room
            self._input = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        self._size += SLICE - room
        if self._size > INFLATED_MAX:
            raise Refused(502, "content-coding", "The compressed answer grows without measure.")
        return b"".join(pieces)

    def _decompress(self, room: int) -> bytes:
        first, self._first = self._first, False
        try:
            return self._stream.decompress(self._input, room)
        except zlib.error:
            if first:
                self._stream = zlib.decompressobj(-15)
                try:
                    return self._stream.decompress(self._input, room)
                except zlib.error:
                    pass
            why = "The compressed answer cannot be inflated, so it cannot be checked for credentials."
            raise Refused(502, "content-coding", why) from None


class Screen:
    """One answer's body on its way to the client.

    Args:
        patterns: what may not pass; without forms everything does.
        compressed: the body has a content coding.
        plain: is given all plain bytes (it counts tokens).
        sure: the body's end shows that it is complete; False where a broken connection looks the same.
    """

    __slots__ = ("_patterns", "_plain", "_sure", "_outer", "_inner", "_inflater", "_coded", "_pending", "_start")

    def __init__(
        self, patterns: Patterns, *, compressed: bool, plain: Callable[[bytes], object] | None, sure: bool
    ) -> None:
        self._patterns, self._plain, self._sure, self._coded = patterns, plain, sure, compressed
        looks = bool(patterns.wanted)
        self._outer = Reader(patterns) if looks and not compressed else None
        self._inner = Reader(patterns) if looks and compressed else None
        self._inflater = Inflater() if compressed and (looks or plain is not None) else None
        self._pending = b""
        self._start: bytes | None = b"" if looks and not compressed else None
        """The first bytes, until they tell whether the body is gzip without saying so."""

    @property
    def busy(self) -> bool:
        """Whether there is more to look into of what was fed: feed nothing again, soon."""
        return self._inflater is not None and self._inflater.busy

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """The next bytes of the body; returns what may pass.

        Args:
            data: the bytes.
            last: the body is complete. Must be said again while the screen is `busy`.

        Raises:
            Refused: the secret is in it, or that cannot be known.
        """
        self._sniff(data)
        if self._plain is not None and not self._coded and data:
            self._plain(data)
        if self._outer is None:
            self._pending += data
        else:
            self._pending += self._outer.feed(data, last=last, sure=self._sure)
        if self._inflater is not None:
            self._look_inside(data, last=last)
            if self._inflater is not None and (self._inflater.busy or (self._inner is not None and self._inner.holds)):
                return b""
        passed, self._pending = self._pending, b""
        return passed

    def _sniff(self, data: bytes) -> None:
        if self._start is None:
            return
        start = self._start + data[:2]
        self._start = start if len(start) < len(GZIP) and GZIP.startswith(start) else None
        if self._start is None and start.startswith(GZIP):
            self._inflater, self._inner = Inflater(), Reader(self._patterns)
            if len(start) > len(data[:2]):
                self._inflater.feed(start[: len(start) - len(data[:2])])

    def _look_inside(self, data: bytes, *, last: bool) -> None:
        inflater = self._inflater
        assert inflater is not None
        try:
            plain = inflater.feed(data)
        except Refused:
            if self._coded:
                raise
            self._inflater = None  # it only began like gzip
            return
        if self._coded and self._plain is not None and plain:
            self._plain(plain)
        if self._inner is not None:
            self._inner.feed(plain, last=last and not inflater.busy, sure=self._sure)
