"""The one form of a path: rules judge it, and the upstream gets it. Pure.

Servers disagree on what two spellings of a path have in common (RFC 3986, section 6.2). So a path is brought into one
form, or it has none and is refused; and where a server may still read that form in another way, `readings` says how,
so that a rule that denies counts for all of them.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_EMPTY = re.compile(rb"//+")
_DOTS = re.compile(rb"(?:^|/|%2F)\.{1,2}(?:$|/|;|%2F|%3B)")
_NEVER = re.compile(rb"%(?:[01][0-9A-F]|7F|5C|25[0-9A-Fa-f]{2})")
"""Escapes without one meaning: control characters, the backslash, and an escape that is escaped once more."""
_PARAMETERS = re.compile(rb"(?:;|%3B)[^/]*")
_TAIL = re.compile(rb"(?:/|%20)+$")
_SUFFIX = re.compile(rb"\.[A-Za-z]{0,8}$")
_ODD = re.compile(rb"%2F|;|%3B|(?:/|%20)$|\.[A-Za-z]{0,8}$")
_FORMS = (b"application/x-www-form-urlencoded", b"multipart/")


def canonical(path: bytes) -> bytes | None:
    """The path with unreserved escapes decoded, the others in capitals, empty segments folded; None: it has no form."""
    if b"%" in path:
        path = _ESCAPE.sub(_unescape, path)
        if b"%%" in path or _NEVER.search(path) or not _is_text(path):
            return None
    if b"//" in path:
        path = _EMPTY.sub(b"/", path)
    if b"." in path and _DOTS.search(path):
        return None
    return path


def _unescape(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if digits is None:
        return b"%%"  # not an escape: `canonical` refuses it
    byte = int(digits, 16)
    return b"%c" % byte if byte in _UNRESERVED else b"%" + digits.upper()


def _is_text(path: bytes) -> bool:
    """Whether the escapes are UTF-8: overlong forms are read as a slash or a dot by some (RFC 3629, section 10)."""
    try:
        _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode("ascii")), path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def separated(path: bytes) -> bytes:
    """A canonical path as servers read it that take an escaped slash for a separator."""
    return _EMPTY.sub(b"/", path.replace(b"%2F", b"/")) if b"%2F" in path else path


def readings(path: bytes) -> tuple[bytes, ...]:
    """A canonical path, and what servers may read it as: without parameters, slash at the end or format suffix."""
    if not _ODD.search(path):
        return (path,)
    ways: dict[bytes, None] = {}
    for start in (path, separated(path)):
        bare = _TAIL.sub(b"", _PARAMETERS.sub(b"", start)) or b"/"
        for reading in (start, bare, _TAIL.sub(b"", _SUFFIX.sub(b"", bare)) or b"/"):
            ways.setdefault(reading)
    return tuple(ways)


def methods(method: bytes, content_types: list[bytes], *, body: bool) -> tuple[bytes, ...]:
    """The method, and what frameworks make of it: a form's `_method` turns a POST into one of the others."""
    if method != b"POST" or not body:
        return (method,)
    if content_types and not any(value.lower().startswith(_FORMS) for value in content_types):
        return (method,)
    return (method, b"PUT", b"PATCH", b"DELETE")
