"""The agent protocol's codec (RFC 9987): bytes in, values out, and back. No sockets, no keys, no decisions.

Rules of this file: every length is checked before it is used, every message is consumed to its last byte, and
whatever does not fit raises `WireError`. Nothing here allocates more than what it was given.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MESSAGE_MAX = 256 << 10
"""Bytes of one message; OpenSSH's agent has the same cap, so no client sends more."""

FAILURE, SUCCESS = 5, 6
REQUEST_IDENTITIES, IDENTITIES_ANSWER = 11, 12
SIGN_REQUEST, SIGN_RESPONSE = 13, 14
EXTENSION, EXTENSION_RESPONSE = 27, 29

NAMES = {
    1: "request-rsa-identities",
    17: "add-identity",
    18: "remove-identity",
    19: "remove-all-identities",
    20: "add-smartcard-key",
    21: "remove-smartcard-key",
    22: "lock",
    23: "unlock",
    25: "add-id-constrained",
    26: "add-smartcard-key-constrained",
}
"""Requests that RFC 9987 knows and this agent refuses."""

SESSION_BIND = "session-bind@openssh.com"
QUERY = "query"

RSA_SHA2_256, RSA_SHA2_512 = 2, 4
"""Flags of a sign request (RFC 9987, section 3.6.1)."""

_USERAUTH_REQUEST = 50
_METHODS = ("publickey", "publickey-hostbound-v00@openssh.com")
_SSHSIG_HASHES = {"sha256": 32, "sha512": 64}
_SESSION_ID_SIZES = range(20, 65)
"""Bytes of a session id: the exchange hash, from SHA-1 to SHA-512 (RFC 4253, section 7.2)."""

_U32 = struct.Struct(">I")


class WireError(ValueError):
    """The bytes are not a well-formed message. Raised by every decoder here, with the reason for the audit."""


class Reader:
    """Takes values (RFC 4251, section 5) off the front of a byte string; raises WireError when it is too short."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        """One byte."""
        at = self._at
        if at >= len(self._data):
            raise WireError("it ends early")
        self._at = at + 1
        return self._data[at]

    def boolean(self) -> bool:
        """A boolean; only 0 and 1, so that a value has one encoding."""
        value = self.byte()
        if value > 1:
            raise WireError(f"a boolean is {value}")
        return bool(value)

    def u32(self) -> int:
        """An unsigned 32-bit number."""
        at = self._at
        if len(self._data) - at < 4:
            raise WireError("it ends early")
        self._at = at + 4
        return int(_U32.unpack_from(self._data, at)[0])

    def string(self) -> bytes:
        """A string: its length and that many bytes."""
        size = self.u32()
        at = self._at
        if size > len(self._data) - at:
            raise WireError("a string is longer than what holds it")
        self._at = at + size
        return self._data[at : at + size]

    def text(self) -> str:
        """A string that people read: UTF-8 without control characters."""
        try:
            value = self.string().decode()
        except UnicodeDecodeError:
            raise WireError("a name is not UTF-8") from None
        if not value.isprintable():
            raise WireError("a name has control characters")
        return value

    def mpint(self) -> int:
        """A non-negative multiple-precision integer in its only encoding, without superfluous zeros."""
        data = self.string()
        if data and (data[0] & 0x80 or (data[0] == 0 and (len(data) == 1 or not data[1] & 0x80))):
            raise WireError("a number is negative or padded")
        return int.from_bytes(data, "big")

    def end(self) -> None:
        """Raise WireError unless everything was taken."""
        if self._at != len(self._data):
            raise WireError(f"{len(self._data) - self._at} bytes follow its end")

    def rest(self) -> bytes:
        """Everything that is left."""
        at, self._at = self._at, len(self._data)
        return self._data[at:]

    @property
    def left(self) -> int:
        """Bytes not taken yet."""
        return len(self._data) - self._at


def string(data: bytes | str) -> bytes:
    """Encode a string (RFC 4251)."""
    raw = data.encode() if isinstance(data, str) else data
    return _U32.pack(len(raw)) + raw


def mpint(value: int) -> bytes:
    """Encode a non-negative multiple-precision integer (RFC 4251)."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


class Framer:
    """Cuts a stream into messages: `feed` what arrived, then call `next` until it returns None.

    Raises WireError from `next` for a message that is empty or larger than `MESSAGE_MAX`: the stream has no
    further meaning then, and the connection must be closed.
    """

    __slots__ = ("_at", "_buffer")

    def __init__(self) -> None:
        self._buffer, self._at = bytearray(), 0

    def __repr__(self) -> str:
        return f"Framer(pending={self.pending})"

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their message (or for `next`)."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Take what the peer sent."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next complete message without its length; None when more bytes are needed."""
        buffer, at = self._buffer, self._at
        if len(buffer) - at >= 4:
            size = int(_U32.unpack_from(buffer, at)[0])
            if size == 0 or size > MESSAGE_MAX:
                raise WireError(f"a message says that it has {size} bytes; the limit is {MESSAGE_MAX}")
            end = at + 4 + size
            if len(buffer) >= end:
                message = bytes(buffer[at + 4 : end])
                self._at = end
                if end == len(buffer):
                    buffer.clear()
                    self._at = 0
                return message
        if at:
            del buffer[:at]
            self._at = 0
        return None


class ListKeys(NamedTuple):
    """Which keys are there?"""


class Sign(NamedTuple):
    """Sign `data` with the key whose public blob is `key`."""

    key: bytes
    data: bytes
    flags: int


class Bind(NamedTuple):
    """session-bind@openssh.com: this connection belongs to an SSH session with the server that has `host_key`."""

    host_key: bytes
    session_id: bytes
    signature: bytes
    forwarded: bool


class Query(NamedTuple):
    """Which extensions are there?"""


class Other(NamedTuple):
    """A request that this agent does not serve."""

    name: str


Request = ListKeys | Sign | Bind | Query | Other


def parse_request(message: bytes) -> Request:
    """Decode one message of a client.

    Raises:
        WireError: it is malformed; answer FAILURE.
    """
    kind = message[0] if message else -1
    if kind == SIGN_REQUEST:
        reader = Reader(message)
        reader.byte()
        sign = Sign(reader.string(), reader.string(), reader.u32())
        reader.end()
        return sign
    if kind == REQUEST_IDENTITIES:
        if len(message) != 1:
            raise WireError(f"{len(message) - 1} bytes follow its end")
        return ListKeys()
    if kind == EXTENSION:
        return _extension(message)
    if kind < 0:
        raise WireError("it is empty")
    return Other(NAMES.get(kind, f"message {kind}"))


def _extension(message: bytes) -> Request:
    reader = Reader(message)
    reader.byte()
    name = reader.text()
    if name == SESSION_BIND:
        bind = Bind(reader.string(), reader.string(), reader.string(), reader.boolean())
        reader.end()
        _check_session_id(bind.session_id)
        return bind
    if name == QUERY:
        reader.end()
        return Query()
    return Other(f"extension {name[:64]}")


def _check_session_id(session_id: bytes) -> None:
    if len(session_id) not in _SESSION_ID_SIZES:
        raise WireError(f"a session id has {len(session_id)} bytes")


class UserAuth(NamedTuple):
    """What a client signs to log in (RFC 4252, section 7): `host_key` only with the hostbound method."""

    session_id: bytes
    user: str
    algorithm: str
    key: bytes
    host_key: bytes | None


class SshSig(NamedTuple):
    """What `ssh-keygen -Y sign` and git sign (OpenSSH's PROTOCOL.sshsig): a digest in a namespace."""

    namespace: str
    hash: str


_SSHSIG_MAGIC = b"SSHSIG"


def parse_signable(data: bytes) -> UserAuth | SshSig:
    """Decode what a sign request wants signed. The two forms cannot be confused: `SSHSIG` is no length of a session id.

    Raises:
        WireError: it is neither; this agent signs nothing else.
    """
    if data.startswith(_SSHSIG_MAGIC):
        return _sshsig(Reader(data[len(_SSHSIG_MAGIC) :]))
    return _userauth(Reader(data))


def _sshsig(reader: Reader) -> SshSig:
    namespace, reserved, hash_name, digest = reader.text(), reader.string(), reader.text(), reader.string()
    reader.end()
    if not namespace:
        raise WireError("an SSHSIG has no namespace")
    if reserved:
        raise WireError("an SSHSIG uses the reserved field")
    if _SSHSIG_HASHES.get(hash_name) != len(digest):
        raise WireError(f"an SSHSIG has the hash {hash_name[:32]!r} with {len(digest)} bytes")
    return SshSig(namespace, hash_name)


def _userauth(reader: Reader) -> UserAuth:
    session_id = reader.string()
    _check_session_id(session_id)
    if reader.byte() != _USERAUTH_REQUEST:
        raise WireError("it is not a userauth request")
    user, service, method = reader.text(), reader.text(), reader.text()
    if not user:
        raise WireError("a userauth request names no user")
    if service != "ssh-connection":
        raise WireError(f"a userauth request is for the service {service[:32]!r}")
    if method not in _METHODS:
        raise WireError(f"a userauth request has the method {method[:40]!r}")
    if not reader.boolean():
        raise WireError("a userauth request is only a probe and is not signed")
    algorithm, key = reader.text(), reader.string()
    host_key = reader.string() if method == _METHODS[1] else None
    reader.end()
    return UserAuth(session_id, user, algorithm, key, host_key)


def _frame(message: bytes) -> bytes:
    return _U32.pack(len(message)) + message


ANSWER_FAILURE = _frame(bytes([FAILURE]))
ANSWER_SUCCESS = _frame(bytes([SUCCESS]))
ANSWER_QUERY = _frame(bytes([EXTENSION_RESPONSE]) + string(QUERY) + string(QUERY) + string(SESSION_BIND))


def answer_identities(keys: list[tuple[bytes, str]]) -> bytes:
    """The framed answer to `ListKeys`: public blobs and comments."""
    body = b"".join(string(blob) + string(comment) for blob, comment in keys)
    return _frame(bytes([IDENTITIES_ANSWER]) + _U32.pack(len(keys)) + body)


def answer_signature(signature: bytes) -> bytes:
    """The framed answer to `Sign`."""
    return _frame(bytes([SIGN_RESPONSE]) + string(signature))
