"""A stand-in name server whose answers change from question to question, as rebinding wants it."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Self

A = 1


class Flipping:
    """Answers each question for an address (A) with the next one of a list, the last for ever; others with none.

    Args:
        answers: IPv4 addresses.
        address: where it listens.

    Attributes:
        port: its UDP port.
        given: what it has answered, in order.
    """

    def __init__(self, answers: Sequence[str], address: str = "127.0.0.1") -> None:
        self._answers = list(answers)
        self.given: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._reply(question), sender)

    def _reply(self, question: bytes) -> bytes:
        """RFC 1035, section 4.1: the question again, and one answer that may not be kept (TTL 0)."""
        end = question.index(b"\0", 12) + 5
        (kind,) = struct.unpack_from("!H", question, end - 4)
        record = b""
        if kind == A:
            address = self._answers[min(len(self.given), len(self._answers) - 1)]
            self.given.append(address)
            record = b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 0, 4) + ipaddress.IPv4Address(address).packed
        head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if record else 0, 0, 0)
        return head + question[12:end] + record
