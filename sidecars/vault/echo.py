"""The echo guard: a real secret in an answer never reaches the client, whole or in a usual encoding. No I/O.

What is looked for: the secret as it is, in Base64 (both alphabets, at the three alignments that a longer text can give
it), percent-encoded (as much as needed, and every byte), and escaped as a JSON string. The bytes of a match that has
only begun are held back until the next ones tell; a beginning shorter than `HOLD_MIN` is let through, since it is
usually the public prefix of the key's kind. Compressed bodies are looked into by inflating a copy.
"""

from __future__ import annotations

import json
import re
import zlib
from binascii import b2a_base64
from collections.abc import Iterable

from ..kit.refusal import Refused

HOLD_MIN = 8
"""Bytes of a beginning match that may pass before it is held back."""
SECRET_MIN = 8
"""Shorter secrets are not looked for: they would be found everywhere."""
INFLATED_MAX = 64 << 20
"""Bytes that one piece of a compressed body may become; more is taken for an attack (RFC 9110, section 17.5)."""

CORE_MIN = 12
"""A shorter run of letters and digits is too common to be looked for instead of a pattern."""
_RUN = re.compile(rb"[0-9A-Za-z]+")

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_URLSAFE = bytes.maketrans(b"+/", b"-_")


def secret_in_answer() -> Refused:
    """The refusal of an answer that carries the secret."""
    return Refused(502, "echo", "The answer carries the real credential, so it was cut.")


def unreadable(why: str) -> Refused:
    """The refusal of an answer of which it cannot be known whether it carries the secret."""
    return Refused(502, "content-coding", why)


def patterns(secrets: Iterable[bytes]) -> tuple[bytes, ...]:
    """Every form in which the secrets are looked for, without doubles, the longest first."""
    found: dict[bytes, None] = {}
    for secret in secrets:
        if len(secret) >= SECRET_MIN:
            for form in _forms(secret):
                found.setdefault(form)
    return tuple(sorted(found, key=len, reverse=True))


def _forms(secret: bytes) -> list[bytes]:
    forms = [secret]
    for shift in range(3):
        # only the characters that depend on nothing but the secret: the neighbours share the ones at the edges
        coded = b2a_base64(b"\0" * shift + secret, newline=False).rstrip(b"=")
        start = (8 * shift + 5) // 6
        core = coded[start : (8 * (shift + len(secret))) // 6]
        forms += [core, core.translate(_URLSAFE)]
    forms.append(b"".join(b"%c" % byte if byte in _UNRESERVED else b"%%%02X" % byte for byte in secret))
    forms.append(b"".join(b"%c" % byte if byte in _UNRESERVED else b"%%%02x" % byte for byte in secret))
    forms.append(b"".join(b"%%%02X" % byte for byte in secret))
    forms.append(b"".join(b"%%%02x" % byte for byte in secret))
    escaped = json.dumps(secret.decode("utf-8", "replace"))[1:-1].encode()
    forms += [escaped, escaped.replace(b"/", b"\\/")]
    return forms


def cores_of(wanted: Iterable[bytes]) -> tuple[bytes, ...]:
    """Parts such that each pattern has one in it: data without any of them has no pattern in it.

    Letters and digits are the same in most forms, so there are about half as many cores as patterns.
    """
    cores: list[bytes] = []
    for each in sorted(wanted, key=len):
        if not any(core in each for core in cores):
            run = max(_RUN.findall(each), key=len, default=b"")
            cores.append(run if len(run) >= CORE_MIN else each)
    return tuple(cores)


class Guard:
    """Looks for patterns in one answer.

    Args:
        wanted: from `patterns`; not empty.
        cores: from `cores_of(wanted)`, when that is known already.
    """

    __slots__ = ("_wanted", "_cores", "_context", "_held")

    def __init__(self, wanted: tuple[bytes, ...], cores: tuple[bytes, ...] | None = None) -> None:
        self._wanted = wanted
        self._cores = cores_of(wanted) if cores is None else cores
        self._context = b""
        self._held = b""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take plain bytes of the answer; return what may be sent. `last`: no more will come.

        Raises:
            Refused: a pattern is in them, perhaps begun in earlier ones.
        """
        pending = self._held + data if self._held else data
        window = self._context + pending if self._context else pending
        if self.inside(window):
            raise secret_in_answer()
        if last:
            self._held = b""
            return pending
        # a match may have begun in bytes that were let through already: only what is pending can be held
        size = min(self._begun(window), len(pending))
        if size:
            self._held = pending[-size:]
            pending = pending[:-size]
            window = window[:-size]
        elif self._held:
            self._held = b""
        self._context = window[1 - len(self._wanted[0]) :]
        return pending

    def inside(self, data: bytes) -> bool:
        """Whether a whole pattern is in `data`."""
        for core in self._cores:
            if core in data:
                return any(each in data for each in self._wanted)
        return False

    def _begun(self, window: bytes) -> int:
        """Bytes at the end of the window that may be the beginning of a pattern, when they are `HOLD_MIN` or more."""
        longest = 0
        for each in self._wanted:
            first = each[:HOLD_MIN]
            at = window.find(first, max(0, len(window) - len(each) + 1))
            while at >= 0:
                if each.startswith(window[at:]):
                    longest = max(longest, len(window) - at)
                    break
                at = window.find(first, at + 1)
        return longest

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    def end(self) -> bytes:
        """The answer is complete: what was held back was no secret."""
        held, self._held = self._held, b""
        return held


class Inflater:
    """Inflates a copy of a compressed body; understands gzip and zlib streams, one after another.

    Raises Refused from `feed` for what is neither, or grows without measure.
    """

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(47)

    def feed(self, data: bytes) -> bytes:
        """The plain bytes of the next piece."""
        pieces: list[bytes] = []
        size = 0
        try:
            while data:
                if self._stream.eof:
                    self._stream = zlib.decompressobj(47)
                piece = self._stream.decompress(data, INFLATED_MAX - size + 1)
                size += len(piece)
                if size > INFLATED_MAX:
                    raise unreadable("The answer grows without measure when it is decompressed.")
                pieces.append(piece)
                data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        except zlib.error:
            raise unreadable("The compressed answer is neither gzip nor zlib, so it cannot be checked.") from None
        return b"".join(pieces)
