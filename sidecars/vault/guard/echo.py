"""The echo guard: a real secret in an answer never reaches the client, whole or in a usual encoding. No I/O.

What is looked for: the secret as it is, in Base64 (both alphabets) and Base32 at every alignment that a longer text can
give it, in hexadecimal and in UTF-16; and all of these again in the text that is left when JSON, C, percent and HTML
escapes are decoded, however few or many characters were escaped. The bytes of a match that has only begun are
held back until the next ones tell; a beginning shorter than `HOLD_MIN` is let through, since it is the public prefix of
the key's kind. `screen.py` looks into compressed bodies.
"""

from __future__ import annotations

import re
from base64 import b32encode
from binascii import b2a_base64
from collections.abc import Iterable

from ...kit.refusal import Refused

HOLD_MIN = 4
"""Bytes of a beginning match that are held back."""
SECRET_MIN = 8
"""Shorter secrets are not looked for: they would be found everywhere."""
CORE_MIN = 12
"""A shorter run of letters and digits is too common to be looked for instead of a pattern."""

_RUN = re.compile(rb"[0-9A-Za-z]+")
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_ESCAPE = re.compile(
    rb"\\+u00([0-7][0-9A-Fa-f])|\\+x([0-7][0-9A-Fa-f])|%(?:25)*([2-7][0-9A-Fa-f])|\\+([/\"'])|(\\{2,})"
    rb"|&#[xX]0*([0-7][0-9A-Fa-f]);|&#0*([0-9]{2,3});"
)
"""JSON, C, percent and HTML escapes of ASCII characters, escaped once or several times."""
_CUT_ESCAPE = re.compile(rb"(?:\\+(?:u0{0,2}[0-7]?|x[0-7]?)?|%(?:25)*(?:2|[2-7])?|&(?:#x?[0-9A-Fa-f]{0,6})?)$")


def secret_in_answer() -> Refused:
    """The refusal of an answer that carries the secret."""
    return Refused(502, "echo", "The answer carries the real credential, so it was cut.")


class Patterns:
    """Every form in which some secrets are looked for.

    Attributes:
        wanted: the forms, without doubles, the longest first.
        cores: parts such that each form has one in it: data without any of them has no form in it. Letters and
            digits are the same in most forms, so there are fewer cores than forms.
        starts: finds where a form may begin, at every position.
    """

    __slots__ = ("wanted", "cores", "starts", "_together")

    def __init__(self, secrets: Iterable[bytes]) -> None:
        forms = (form for secret in secrets if len(secret) >= SECRET_MIN for form in _forms(secret))
        self.wanted = tuple(sorted(dict.fromkeys(forms), key=len, reverse=True))
        self.cores = _cores(self.wanted)
        self._together = b"\n".join(self.wanted)
        first = sorted({re.escape(form[:HOLD_MIN]) for form in self.wanted})
        self.starts = re.compile(rb"(?=%b)" % b"|".join(first) if first else rb"(?!)")

    def inside(self, data: bytes) -> bool:
        """Whether a whole form is in `data`."""
        for core in self.cores:
            if core in data:
                return any(form in data for form in self.wanted)
        return False

    def anywhere(self, data: bytes) -> bool:
        """Whether one is in `data`, its escapes decoded or not."""
        return self.inside(data) or (escapes(data) and self.inside(unescaped(data)))

    def begun(self, window: bytes, *, half: bool = False) -> int:
        """Bytes at the end of the window that may be the beginning of a form; `half`: at least half of one."""
        # what has begun ends with bytes of a form: a look that spares nearly every search
        if window[-HOLD_MIN:] not in self._together or len(window) < HOLD_MIN:
            return 0
        for match in self.starts.finditer(window, max(0, len(window) - len(self.wanted[0]) + 1)):
            tail = window[match.start() :]
            if len(tail) >= HOLD_MIN and any(
                form.startswith(tail) and (not half or 2 * len(tail) >= len(form)) for form in self.wanted
            ):
                return len(tail)
        return 0


def _forms(secret: bytes) -> list[bytes]:
    forms = [secret]
    for shift in range(3):
        # only the characters that depend on nothing but the secret: the neighbours share the ones at the edges
        coded = b2a_base64(b"\0" * shift + secret, newline=False).rstrip(b"=")
        core = coded[(8 * shift + 5) // 6 : (8 * (shift + len(secret))) // 6]
        forms += [core, core.translate(_URLSAFE)]
    for shift in range(5):
        core = b32encode(b"\0" * shift + secret)[(8 * shift + 4) // 5 : (8 * (shift + len(secret))) // 5]
        forms.append(core)
    forms += [secret.hex().encode(), secret.hex().upper().encode()]
    # both byte orders have this in them
    forms.append(b"\0".join(b"%c" % byte for byte in secret))
    return forms


def _cores(wanted: Iterable[bytes]) -> tuple[bytes, ...]:
    cores: list[bytes] = []
    for form in sorted(wanted, key=len):
        if not any(core in form for core in cores):
            run = max(_RUN.findall(form), key=len, default=b"")
            cores.append(run if len(run) >= CORE_MIN else form)
    return tuple(cores)


def escapes(data: bytes) -> bool:
    """Whether there may be escapes in it."""
    return b"\\" in data or b"%" in data or b"&" in data


def unescaped(data: bytes) -> bytes:
    """The text with its escapes of ASCII characters decoded."""
    return _ESCAPE.sub(_character, data)


def _character(match: re.Match[bytes]) -> bytes:
    json_digits, c_digits, percent, plain, backslashes, html, decimal = match.groups()
    if plain:
        return plain
    if backslashes:
        return b"\\"
    if decimal:
        return b"%c" % int(decimal) if int(decimal) < 128 else match[0]
    return b"%c" % int(json_digits or c_digits or percent or html, 16)


class Guard:
    """Looks for the forms in one stream of bytes.

    Args:
        patterns: with at least one form.
    """

    __slots__ = ("_patterns", "_context", "_held")

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._context = b""
        self._held = b""

    def feed(self, data: bytes, *, last: bool = False, sure: bool = True) -> bytes:
        """Take plain bytes of the answer; return what may be sent.

        Args:
            data: the next bytes.
            last: no more will come.
            sure: with `last`: this is the answer's end, and not the end of a connection that may have failed.

        Raises:
            Refused: a form is in them, perhaps begun in earlier ones; or the answer ends inside one.
        """
        pending = self._held + data if self._held else data
        window = self._context + pending if self._context else pending
        if self._patterns.inside(window):
            raise secret_in_answer()
        if last:
            if self._patterns.begun(window, half=sure):
                raise secret_in_answer()
            self._held = b""
            return pending
        # a match may have begun in bytes that were let through already: only what is pending can be held
        size = min(self._patterns.begun(window), len(pending))
        if size:
            self._held = pending[-size:]
            pending = pending[:-size]
            window = window[:-size]
        elif self._held:
            self._held = b""
        self._context = window[1 - len(self._patterns.wanted[0]) :]
        return pending

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    @property
    def near(self) -> bytes:
        """The end of what was fed, long enough for any form that has begun in it."""
        return self._context + self._held


class Reader:
    """Looks at a stream as it is, and as it reads when its escapes are decoded."""

    __slots__ = ("_patterns", "_guard", "_decoded", "_cut", "_waiting")

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._guard = Guard(patterns)
        self._decoded: Guard | None = None
        """From the first escape on."""
        self._cut = b""
        self._waiting = b""

    def feed(self, data: bytes, *, last: bool = False, sure: bool = True) -> bytes:
        """What may be sent; arguments and exception as in `Guard.feed`."""
        if self._decoded is None and escapes(data):
            # the secret may have begun before its first escape
            self._decoded = Guard(self._patterns)
            self._decoded.feed(self._guard.near)
        passed = self._guard.feed(data, last=last, sure=sure)
        if self._decoded is None:
            return passed
        text = self._cut + data
        cut = None if last else _CUT_ESCAPE.search(text, max(0, len(text) - 64))
        self._cut = text[cut.start() :] if cut is not None else b""
        self._decoded.feed(unescaped(text[: len(text) - len(self._cut)]), last=last, sure=sure)
        self._waiting += passed
        if self._decoded.holds:
            return b""
        passed, self._waiting = self._waiting, b""
        return passed

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return self._guard.holds or bool(self._waiting)
