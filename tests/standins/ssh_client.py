"""A client and a host that say whatever they like to the signer."""

from __future__ import annotations

import base64
import socket
import struct
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from terok_host.sidecars.ssh import keys, wire
from terok_host.sidecars.ssh.wire import string
from tests.standins.signer import Signer

FAILURE, SUCCESS = b"\x05", b"\x06"
SSHSIG = b"SSHSIG" + string("git") + string("") + string("sha512") + string(bytes(64))


class Host:
    """A host that signs session ids, as a server does."""

    def __init__(self) -> None:
        self.signer = keys.Signer(ed25519.Ed25519PrivateKey.generate())
        self.blob = self.signer.blob
        self.line = "ssh-ed25519 " + base64.b64encode(self.blob).decode()

    def bind(self, session: bytes, *, forwarded: bool = False, signed: bytes | None = None) -> bytes:
        """The message that binds a connection to a session."""
        signature = self.signer.sign(session if signed is None else signed, "ssh-ed25519")
        fields = string(wire.SESSION_BIND) + string(self.blob) + string(session) + string(signature)
        return b"\x1b" + fields + bytes([forwarded])


def login(key: bytes, session: bytes, *, user: str = "git", algorithm: str = "ssh-ed25519", host: bytes = b"") -> bytes:
    """A userauth request as it is signed."""
    method = "publickey-hostbound-v00@openssh.com" if host else "publickey"
    data = string(session) + b"\x32" + string(user) + string("ssh-connection") + string(method) + b"\x01"
    return data + string(algorithm) + string(key) + (string(host) if host else b"")


def sign(key: bytes, data: bytes, flags: int = 0) -> bytes:
    return b"\x0d" + string(key) + string(data) + struct.pack(">I", flags)


class Client:
    """A connection that says whatever it likes."""

    def __init__(self, signer: Signer) -> None:
        self.sock = signer.connect()

    def send(self, *messages: bytes) -> None:
        self.sock.sendall(b"".join(map(string, messages)))

    def receive(self) -> bytes:
        """One answer; empty when the connection was closed."""
        try:
            head = self.sock.recv(4, socket.MSG_WAITALL)
            return self.sock.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if head else b""
        except ConnectionResetError:
            return b""

    def ask(self, message: bytes) -> bytes:
        self.send(message)
        return self.receive()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def refused(signer: Signer) -> dict[str, Any]:
    """The last line of the audit, which must be a refusal."""
    line = signer.audit()[-1]
    assert line["verdict"] == "refused"
    return line
