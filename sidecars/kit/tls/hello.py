"""Reads the server name out of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3). Pure; hostile input.

The hello may come in several segments and be split over several records. What two programs could read differently is
refused: the relay and the server must see the same name.
"""

from __future__ import annotations

from typing import NamedTuple

HELLO_MAX = 64 << 10
"""Bytes of a handshake message that is still read; real ones have 200 to 2,000."""
RECORDS_MAX = 64
"""Records that it may be split over: each look at a hello that is still growing reads them all again."""
BUFFER_MAX = HELLO_MAX + 5 * RECORDS_MAX
"""The same with the headers of its records."""

_HANDSHAKE, _CLIENT_HELLO, _HOST_NAME = 22, 1, 0
_SERVER_NAME, _PROTOCOLS = 0, 16
"""Extensions (RFC 6066, section 3; RFC 7301)."""
_RECORD_MAX = 16 << 10
_NAME = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_NAME_MAX = 253
INTERNAL_ERROR, UNRECOGNIZED_NAME, NO_APPLICATION_PROTOCOL = 80, 112, 120
"""Alerts (RFC 8446, section 6.2)."""


def alert(description: int) -> bytes:
    """The record of a fatal alert: what a client is told before any keys are agreed on."""
    return bytes((21, 3, 3, 0, 2, 2, description))


class Hello(NamedTuple):
    """What a client asks for.

    Attributes:
        name: the server name, in lower case; None when it sends none.
        protocols: what it would speak (ALPN), in its order; empty when it does not say.
    """

    name: str | None
    protocols: tuple[bytes, ...]


class Malformed(Exception):
    """This is no ClientHello, or one that could be read in two ways. `why` is one sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Incomplete(Exception):
    """More bytes are needed."""


def looks_like_tls(data: bytes) -> bool:
    """Whether a connection that begins so is a TLS handshake."""
    return data[:1] == b"\x16" and data[1:2] in (b"", b"\x03")


def server_name(data: bytes) -> str | None:
    """The name that a client asks for; arguments and exceptions as for `read`."""
    return read(data).name


def read(data: bytes) -> Hello:
    """What the first flight of a client asks for.

    Args:
        data: everything that the client has sent so far.

    Raises:
        Incomplete: the hello has not arrived as a whole.
        Malformed: there is none, or it breaks a rule.
    """
    hello = _handshake(data)
    fields = _Reader(hello)
    fields.skip(2 + 32)  # version and random
    fields.skip(fields.number(1))  # session
    fields.skip(fields.number(2))  # cipher suites
    fields.skip(fields.number(1))  # compression
    if fields.left == 0:
        return Hello(None, ())
    extensions = _Reader(fields.take(fields.number(2)))
    if fields.left:
        raise Malformed("Bytes follow the extensions of the ClientHello.")
    name: str | None = None
    protocols: tuple[bytes, ...] = ()
    seen: set[int] = set()
    while extensions.left:
        kind = extensions.number(2)
        content = extensions.take(extensions.number(2))
        if kind in seen:
            raise Malformed("The ClientHello has an extension twice.")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _read_name(content)
        elif kind == _PROTOCOLS:
            protocols = _read_protocols(content)
    return Hello(name, protocols)


def _handshake(data: bytes) -> bytes:
    """The body of the ClientHello, put together from its records."""
    message, at = bytearray(), 0
    wanted = 4
    for _ in range(RECORDS_MAX):
        header = data[at : at + 5]
        if header[:1] not in (b"", b"\x16") or header[1:2] not in (b"", b"\x03"):
            raise Malformed("The connection does not begin with a TLS handshake.")
        if len(header) < 5:
            raise Incomplete
        length = int.from_bytes(header[3:5], "big")
        if not 0 < length <= _RECORD_MAX:
            raise Malformed("A TLS record is empty or too long.")
        piece = data[at + 5 : at + 5 + length]
        message += piece
        at += 5 + length
        if len(message) >= 4:
            if message[0] != _CLIENT_HELLO:
                raise Malformed("The first TLS message is not a ClientHello.")
            wanted = 4 + int.from_bytes(message[1:4], "big")
            if wanted > HELLO_MAX:
                raise Malformed(f"The ClientHello has more than {HELLO_MAX >> 10} KiB.")
        if len(piece) < length:
            raise Incomplete
        if len(message) > wanted:
            raise Malformed("A record holds more than the ClientHello.")
        if len(message) == wanted:
            return bytes(message[4:])
    raise Malformed(f"The ClientHello is cut into more than {RECORDS_MAX} records.")


def _read_name(content: bytes) -> str:
    fields = _Reader(content)
    names = _Reader(fields.take(fields.number(2)))
    kind, name = names.number(1), names.take(names.number(2))
    if fields.left or names.left or kind != _HOST_NAME:
        raise Malformed("The ClientHello does not name exactly one host.")
    lower = name.lower()
    if not 0 < len(name) <= _NAME_MAX or not _NAME.issuperset(lower) or lower[:1] == b"." or lower[-1:] == b".":
        raise Malformed("The server name in the ClientHello is not a host name.")
    return lower.decode("ascii")


def _read_protocols(content: bytes) -> tuple[bytes, ...]:
    fields = _Reader(content)
    listed = _Reader(fields.take(fields.number(2)))
    protocols: list[bytes] = []
    while listed.left:
        protocols.append(listed.take(listed.number(1)))
    if fields.left or not all(protocols):
        raise Malformed("The ClientHello's list of protocols is damaged.")
    return tuple(protocols)


class _Reader:
    """Takes lengths and bytes off the front; Malformed where there are too few."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Malformed("A length in the ClientHello does not fit.")
        self._at += count
        return self._data[self._at - count : self._at]

    def skip(self, count: int) -> None:
        self.take(count)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")
