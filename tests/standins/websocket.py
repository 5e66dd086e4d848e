"""The server's end of a WebSocket (RFC 6455), as far as stand-ins need it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.standins.upstream import Conversation, Request

TEXT, CLOSE, PING = 1, 8, 9


def accept(talk: Conversation, request: Request) -> None:
    """Answer the client's handshake."""
    key = request.header("sec-websocket-key") or ""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    talk.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n".encode()
    )


def frames(talk: Conversation) -> Iterator[tuple[int, bytes]]:
    """The first byte (flags and opcode) and the unmasked payload of each frame, up to the connection's end."""
    while len(head := talk.exactly(2)) == 2:
        size = head[1] & 127
        if size == 126:
            size = int.from_bytes(talk.exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(talk.exactly(8), "big")
        mask = int.from_bytes(talk.exactly(4) * (size // 4 + 1), "big") >> 8 * (4 - size % 4)
        yield head[0], (int.from_bytes(talk.exactly(size), "big") ^ mask).to_bytes(size, "big")


def frame(first: int, payload: bytes) -> bytes:
    """A frame of a server: its first byte, the length, the payload unmasked."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def texts(talk: Conversation) -> Iterator[bytes]:
    """The client's text messages, in one frame or several; pings and its close are answered."""
    message = b""
    for first, payload in frames(talk):
        opcode = first & 15
        if opcode == PING:
            talk.send(frame(0x8A, payload))
        elif opcode == CLOSE:
            talk.send(frame(0x88, payload))
            return
        elif opcode <= TEXT:
            message += payload
            if first & 128:
                yield message
                message = b""


def send_text(talk: Conversation, text: bytes) -> None:
    """One text message."""
    talk.send(frame(0x80 | TEXT, text))
