"""As much DER as a certificate needs (ITU-T X.690): elements are written, and split one level at a time.

`cryptography.x509` costs a vault 6 MB and 50 ms for the one kind of certificate that it makes.
"""

from __future__ import annotations

import time

INTEGER, BIT_STRING, OCTET_STRING, OID, UTF8 = 0x02, 0x03, 0x04, 0x06, 0x0C
UTC_TIME, TIME, SEQUENCE, SET = 0x17, 0x18, 0x30, 0x31
TRUE = b"\x01\x01\xff"


class DerError(ValueError):
    """Bytes that are no DER, or not what was expected of them."""


def element(tag: int, *content: bytes) -> bytes:
    """One element: tag, length in the shortest form, and its content."""
    body = b"".join(content)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def sequence(*content: bytes) -> bytes:
    """A SEQUENCE of these elements."""
    return element(SEQUENCE, *content)


def integer(value: int) -> bytes:
    """A number from zero up; a leading bit that is set would make it negative."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def bits(content: bytes) -> bytes:
    """A BIT STRING of whole bytes."""
    return element(BIT_STRING, b"\0", content)


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = map(int, dotted.split("."))
    body = bytearray()
    for arc in (first * 40 + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(arc & 0x7F | 0x80)
        body += bytes(reversed(septets))
    return element(OID, bytes(body))


def moment(seconds: float) -> bytes:
    """A time in the form that its year asks for (RFC 5280, section 4.1.2.5)."""
    when = time.gmtime(seconds)
    if when.tm_year < 2050:
        return element(UTC_TIME, time.strftime("%y%m%d%H%M%SZ", when).encode())
    return element(TIME, time.strftime("%Y%m%d%H%M%SZ", when).encode())


def split(content: bytes) -> list[tuple[int, bytes, bytes]]:
    """The elements of a content, each as tag, its own content, and the whole of it.

    Raises:
        DerError: a length does not fit. Tags of several bytes are not read.
    """
    parts, at = [], 0
    while at < len(content):
        start, tag = at, content[at]
        size = content[at + 1] if at + 1 < len(content) else len(content)
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(content[at : at + count], "big") if 0 < count <= 4 else len(content)
            at += count
        if at + size > len(content):
            raise DerError("an element is longer than what it lies in")
        parts.append((tag, content[at : at + size], content[start : at + size]))
        at += size
    return parts


def inside(content: bytes, *path: int) -> tuple[int, bytes, bytes]:
    """The element at a path: the number of the element in each level, from the outermost on.

    Raises:
        DerError: there is none.
    """
    part = 0, content, content
    for number in path:
        parts = split(part[1])
        if number >= len(parts):
            raise DerError("an element is missing")
        part = parts[number]
    return part
