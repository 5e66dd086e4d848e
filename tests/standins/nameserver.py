"""A stand-in name server on UDP and TCP whose answers a test can change at any moment, hostile ones among them."""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.lab.world import FORWARDER, World

A, CNAME, AAAA, HTTPS = 1, 5, 28, 65
_NXDOMAIN = 3


@dataclass
class Zone:
    """What is known: addresses and aliases by name, and the TTL of every answer."""

    addresses: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    ttl: int = 60


class NameServer:
    """Answers on the forwarder's address in `far` (without a world: here), from entering the context until leaving."""

    def __init__(self, world: World | None, address: str = FORWARDER, port: int = 53) -> None:
        self.zone = Zone()
        self.asked: list[str] = []
        self.longest = 0
        make = world.far.make if world is not None else _here
        self._udp = make(lambda: _bound(address, port, socket.SOCK_DGRAM))
        self._tcp = make(lambda: _bound(address, port, socket.SOCK_STREAM))
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join(timeout=5)
        for each in (self._udp, self._tcp, self._ended):
            each.close()

    def know(self, name: str, *addresses: str) -> None:
        """From now on `name` has exactly these addresses."""
        self.zone.addresses[name] = list(addresses)

    def alias(self, name: str, to: str) -> None:
        """From now on `name` is a CNAME."""
        self.zone.aliases[name] = to

    def _serve(self) -> None:
        waiting = select.poll()
        clients: dict[int, socket.socket] = {}
        for each in (self._udp, self._tcp, self._ended):
            waiting.register(each, select.POLLIN)
        while True:
            for fd, _ in waiting.poll():
                if fd == self._ended.fileno():
                    for client in clients.values():
                        client.close()
                    return
                if fd == self._udp.fileno():
                    query, peer = self._udp.recvfrom(4096)
                    self._udp.sendto(self.answer(query, limit=1232), peer)
                elif fd == self._tcp.fileno():
                    client, _ = self._tcp.accept()
                    clients[client.fileno()] = client
                    waiting.register(client, select.POLLIN)
                else:
                    if not self._stream(clients[fd]):
                        waiting.unregister(fd)
                        clients.pop(fd).close()

    def _stream(self, client: socket.socket) -> bool:
        try:
            head = client.recv(2, socket.MSG_WAITALL)
            if len(head) < 2:
                return False
            query = client.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)
            reply = self.answer(query, limit=65535)
            client.sendall(struct.pack(">H", len(reply)) + reply)
            return True
        except OSError:
            return False

    def answer(self, query: bytes, limit: int) -> bytes:
        """The reply to one query, truncated when it is longer than `limit`."""
        name, end = _name(query)
        self.asked.append(name)
        self.longest = max(self.longest, len(query))
        kind = struct.unpack(">H", query[end : end + 2])[0]
        question = query[12 : end + 4]
        records: list[bytes] = []
        owner = name
        while owner in self.zone.aliases:
            target = self.zone.aliases[owner]
            records.append(_record(owner, CNAME, self.zone.ttl, _encode(target)))
            owner = target
        known = owner in self.zone.addresses
        for address in self.zone.addresses.get(owner, []):
            packed = ipaddress.ip_address(address)
            if (packed.version, kind) in ((4, A), (6, AAAA)):
                records.append(_record(owner, kind, self.zone.ttl, packed.packed))
        if kind == HTTPS and known:
            hints = b"".join(ipaddress.IPv4Address(each).packed for each in self.zone.addresses[owner] if "." in each)
            data = b"\x00\x01\x00" + struct.pack(">HH", 4, len(hints)) + hints  # RFC 9460: ipv4hint
            records.append(_record(owner, HTTPS, self.zone.ttl, data))
        code = 0 if known else _NXDOMAIN
        body = question + b"".join(records)
        flags = 0x8580 | code
        if 12 + len(body) > limit:
            return query[:2] + struct.pack(">HHHHH", flags | 0x0200, 1, 0, 0, 0) + question
        return query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + body


def _here(body: Callable[[], socket.socket]) -> socket.socket:
    return body()


def _bound(address: str, port: int, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


def _name(query: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1").lower())
        at += 1 + query[at]
    return ".".join(labels), at + 1


def _encode(name: str) -> bytes:
    return b"".join(bytes([len(each)]) + each.encode() for each in name.split(".")) + b"\x00"


def _record(owner: str, kind: int, ttl: int, data: bytes) -> bytes:
    return _encode(owner) + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


# --- asking ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A reply as the box saw it."""

    code: int
    addresses: tuple[str, ...]
    ttl: int


def question(name: str, kind: int = A) -> bytes:
    """A question, with the number 0x3141."""
    return b"\x31\x41\x01\x00\x00\x01" + bytes(6) + _encode(name) + struct.pack(">HH", kind, 1)


def padded(name: str, length: int, kind: int = A) -> bytes:
    """A question of `length` bytes: an EDNS option (RFC 7830's padding) fills it up."""
    plain = question(name, kind)
    filler = b"x" * (length - len(plain) - 15)
    option = struct.pack(">HH", 12, len(filler)) + filler
    return plain[:10] + b"\x00\x01" + plain[12:] + b"\x00" + struct.pack(">HHIH", 41, 1232, 0, len(option)) + option


def ask(
    world: World, name: str, kind: int = A, *, server: str = "127.0.0.1", port: int = 53, timeout: float = 2
) -> Answer:
    """Ask from the box over UDP; TimeoutError without an answer, PermissionError when the packet may not leave."""
    with world.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect((server, port))
        client.send(question(name, kind))
        return decode(client.recv(65535))


def ask_stream(client: socket.socket, name: str, kind: int = A) -> Answer:
    """Ask over an open TCP connection."""
    query = question(name, kind)
    client.sendall(struct.pack(">H", len(query)) + query)
    head = client.recv(2, socket.MSG_WAITALL)
    if len(head) < 2:
        raise ConnectionResetError("the connection ended")
    return decode(client.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL))


def decode(reply: bytes) -> Answer:
    """Addresses, code and the least TTL of a reply."""
    flags, questions, answers = struct.unpack(">HHH", reply[2:8])
    at = 12
    for _ in range(questions):
        at = _skip(reply, at) + 4
    found: list[str] = []
    ttls: list[int] = []
    for _ in range(answers):
        at = _skip(reply, at)
        kind, _, ttl, length = struct.unpack(">HHIH", reply[at : at + 10])
        data = reply[at + 10 : at + 10 + length]
        at += 10 + length
        ttls.append(ttl)
        if kind in (A, AAAA):
            found.append(str(ipaddress.ip_address(data)))
    return Answer(flags & 0x0F, tuple(found), min(ttls, default=0))


def _skip(reply: bytes, at: int) -> int:
    while True:
        length = reply[at]
        if length & 0xC0:
            return at + 2
        at += 1 + length
        if not length:
            return at


def addresses(prefix: str, count: int) -> Sequence[str]:
    """`count` addresses from the start of an IPv4 network."""
    base = ipaddress.ip_network(prefix).network_address
    return [str(base + index + 1) for index in range(count)]
