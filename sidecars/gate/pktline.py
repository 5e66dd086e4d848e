"""Git's pkt-line framing and the command list of a push. Takes and returns bytes; does no I/O.

Rules of this file (gitprotocol-common(5), gitprotocol-pack(5)):

- A pkt-line is four hexadecimal digits with its whole length, then the payload; 0000 ends a section.
- A push starts with `shallow OID` lines and one `OLD NEW REF` line a ref, the capabilities after a NUL in the first;
  then a flush, then the pack. Everything that decides is in these lines, so nothing of the pack needs to be read first.
- What is not understood completely is refused: a signed push, another hash, a ref name that git would not take.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class _Flush(bytes):
    """A type of its own: a pkt-line may also carry these four bytes."""


FLUSH = _Flush(b"0000")
PAYLOAD_MAX = 65516
"""Largest payload of one pkt-line (LARGE_PACKET_DATA_MAX in git's pkt-line.h)."""

COMMANDS_BYTES_MAX = 1 << 20
"""Bytes of a push's command section; far above what any limit on the number of commands lets through."""

REF_MAX = 512
"""Bytes of a ref name; a file name with `.lock` behind it must fit into one directory entry, see `valid_ref`."""

_COMPONENT_MAX = 200
_LENGTH = re.compile(rb"[0-9A-Fa-f]{4}")
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF_BAD = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|\.(?:/|$)|/$")


class ProtocolError(Exception):
    """The client's bytes are not what the protocol says; its text may be shown to the client."""


class Command(NamedTuple):
    """One ref that a push wants to change: object names in hexadecimal, all zeros where there is none."""

    old: str
    new: str
    ref: str

    @property
    def creates(self) -> bool:
        """The client believes that the ref does not exist."""
        return not self.old.strip("0")

    @property
    def deletes(self) -> bool:
        """The ref shall go."""
        return not self.new.strip("0")


class Push(NamedTuple):
    """The head of a push: its commands, the client's capabilities (name to value, "" without one), shallow roots."""

    commands: tuple[Command, ...]
    capabilities: dict[str, str]
    shallow: tuple[str, ...]

    @property
    def has_pack(self) -> bool:
        """Whether a pack follows: only a push that does nothing but delete has none."""
        return any(not command.deletes for command in self.commands)


def is_oid(text: str) -> bool:
    """Whether `text` is a whole object name, SHA-1 or SHA-256, in lower case."""
    return _OID.fullmatch(text) is not None


def valid_ref(name: str) -> bool:
    """Whether git accepts `name` as a full ref name (git-check-ref-format(1)), and a file can be named after it."""
    return (
        name.startswith("refs/")
        and name.count("/") >= 2
        and len(name.encode(errors="surrogateescape")) <= REF_MAX
        and _REF_BAD.search(name) is None
        and all(0 < len(part.encode(errors="surrogateescape")) <= _COMPONENT_MAX for part in name.split("/"))
    )


def encode(payload: bytes) -> bytes:
    """One pkt-line."""
    return b"%04x" % (len(payload) + 4) + payload


def band(number: int, data: bytes) -> bytes:
    """`data` as pkt-lines of one side band: 1 is the answer, 2 what git prints after `remote:`."""
    size = PAYLOAD_MAX - 1
    return b"".join(encode(bytes([number]) + data[at : at + size]) for at in range(0, len(data), size))


class Splitter:
    """Splits a byte stream into pkt-lines."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    @property
    def rest(self) -> bytes:
        """The bytes that were not taken yet."""
        return bytes(self._buffer)

    def take(self) -> bytes | None:
        """The next payload, `FLUSH` for a flush, None when it has not arrived whole.

        Raises:
            ProtocolError: the length is not hexadecimal, or is one that only protocol 2 has.
        """
        if len(self._buffer) < 4:
            return None
        digits = bytes(self._buffer[:4])
        length = int(digits, 16) if _LENGTH.fullmatch(digits) else -1
        if length == 0:
            del self._buffer[:4]
            return FLUSH
        if not 4 <= length <= PAYLOAD_MAX + 4:
            raise ProtocolError("a pkt-line has a bad length")
        if len(self._buffer) < length:
            return None
        payload = bytes(self._buffer[4:length])
        del self._buffer[:length]
        return payload


class CommandReader:
    """Reads the head of a push from the first bytes of its body.

    Args:
        commands_max: how many refs one push may name.
        oid_length: hexadecimal digits of the repository's object names.
    """

    def __init__(self, *, commands_max: int, oid_length: int = 40) -> None:
        self._splitter = Splitter()
        self._commands: list[Command] = []
        self._shallow: list[str] = []
        self._capabilities: dict[str, str] = {}
        self._commands_max, self._oid_length = commands_max, oid_length
        self._size = 0

    @property
    def rest(self) -> bytes:
        """After the end of the commands: the first bytes of the pack."""
        return self._splitter.rest

    def feed(self, data: bytes) -> Push | None:
        """Add received bytes; returns the head when it is complete, with the pack's first bytes in `rest`.

        Raises:
            ProtocolError: the head is malformed, too long, or names the same ref twice.
        """
        self._splitter.feed(data)
        while (line := self._splitter.take()) is not None:
            if line is FLUSH:
                return Push(tuple(self._commands), self._capabilities, tuple(self._shallow))
            self._size += len(line) + 4
            self._line(line)
        if self._size + len(self._splitter.rest) > COMMANDS_BYTES_MAX + PAYLOAD_MAX:
            raise ProtocolError("the list of refs is too long")
        return None

    def _line(self, line: bytes) -> None:
        text, nul, capabilities = line.partition(b"\0")
        if nul:
            if self._commands:
                raise ProtocolError("capabilities stand behind a later ref")
            self._capabilities = _capabilities(capabilities)
        words = text.decode("utf-8", "surrogateescape").removesuffix("\n").split(" ", 2)
        if words[0] == "shallow" and len(words) == 2 and not self._commands and self._is_oid(words[1]):
            self._shallow.append(words[1])
        elif len(words) == 3 and self._is_oid(words[0]) and self._is_oid(words[1]):
            self._command(Command(*words))
        else:
            raise ProtocolError("a line is neither a ref to change nor a shallow root; signed pushes are not supported")
        if self._size > COMMANDS_BYTES_MAX:
            raise ProtocolError("the list of refs is too long")

    def _is_oid(self, text: str) -> bool:
        return len(text) == self._oid_length and is_oid(text)

    def _command(self, command: Command) -> None:
        if not valid_ref(command.ref):
            raise ProtocolError("a ref name is malformed")
        if command.creates and command.deletes:
            raise ProtocolError("a ref is neither created nor deleted")
        if any(command.ref == other.ref for other in self._commands):
            raise ProtocolError("a ref is named twice")
        if len(self._commands) == self._commands_max:
            raise ProtocolError(f"one push may change {self._commands_max} refs; push them in parts")
        self._commands.append(command)


def _capabilities(data: bytes) -> dict[str, str]:
    pairs = (word.partition("=") for word in data.decode("utf-8", "replace").split())
    return {name: value for name, _, value in pairs}


def staged(push: Push, chosen: list[Command], prefix: str) -> bytes:
    """The head of the push that receive-pack gets in place of the client's: `chosen` as new refs `prefix`0, 1, ...

    Its scratch repository has no refs, so nothing that the client named reaches git as a ref name.
    """
    length = len(chosen[0].new)
    capabilities = ["report-status", "side-band-64k", f"object-format={'sha1' if length == 40 else 'sha256'}"]
    if "quiet" in push.capabilities:
        capabilities.append("quiet")
    lines = [f"shallow {root}" for root in push.shallow]
    for number, command in enumerate(chosen):
        line = f"{'0' * length} {command.new} {prefix}{number}"
        lines.append(line if number else f"{line}\0 {' '.join(capabilities)}")
    return b"".join(encode(line.encode()) for line in lines) + FLUSH


def report(unpack: str, results: list[tuple[str, str]], *, side_band: bool) -> bytes:
    """The answer to a push (report-status).

    Args:
        unpack: "ok" or why the pack was not taken.
        results: (ref, "" when it was changed, else the reason) in the order of the commands.
        side_band: wrap it in side band 1, as the client asked.
    """
    lines = [f"unpack {_one_line(unpack)}\n"]
    lines += [f"ng {ref} {_one_line(reason)}\n" if reason else f"ok {ref}\n" for ref, reason in results]
    data = b"".join(encode(line.encode("utf-8", "surrogateescape")) for line in lines) + FLUSH
    return band(1, data) + FLUSH if side_band else data


def parse_report(data: bytes) -> tuple[str, dict[str, str]]:
    """receive-pack's report: the unpack status, and for each ref "" or the reason.

    Raises:
        ProtocolError: it is not a report, or not a whole one.
    """
    splitter = Splitter()
    splitter.feed(data)
    unpack, results = "", {}
    while (line := splitter.take()) is not None and line is not FLUSH:
        word, _, rest = line.decode("utf-8", "surrogateescape").rstrip("\n").partition(" ")
        ref, _, reason = rest.partition(" ")
        if word == "unpack":
            unpack = rest
        elif word == "ok":
            results[ref] = ""
        elif word == "ng":
            results[ref] = reason or "refused"
    if line is None or not unpack:
        raise ProtocolError("git's report is not complete")
    return unpack, results


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400] or "failed"
