"""Pinned SSH host keys: an upstream is the one that the operator confirmed, or there is no connection."""

from __future__ import annotations

import binascii
import hashlib

from ...sidecars.ssh import keys as ssh_keys
from ...supervisor.ground import durable
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import hostkeys as kit_hostkeys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...sidecars.gate.forge.address import Address
    from ...supervisor.ground.layout import GateHome

TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "ssh-rsa")


def host_name(address: Address) -> str:
    """The host as known_hosts has it (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return f"[{address.host}]:{address.port}" if address.port not in (0, 22) else address.host.strip("[]")


def fingerprint(key: str) -> str:
    """SHA256:... of a key's base64 text, as OpenSSH prints it.

    Raises:
        ValueError: it is not base64.
    """
    digest = hashlib.sha256(binascii.a2b_base64(key, strict_mode=True)).digest()
    return "SHA256:" + binascii.b2a_base64(digest, newline=False).decode().rstrip("=")


def scan(address: Address) -> list[tuple[str, str]]:
    """Ask the host for its keys: (type, base64 text). Nothing is trusted by that.

    Raises:
        TerokError: it does not answer.
    """
    try:
        blobs = kit_hostkeys.ask(address.host.strip("[]"), address.port or 22)
    except kit_hostkeys.NoKeyError as error:
        raise TerokError(f"{address.host} did not tell its SSH host keys: {error}.") from None
    return [(ssh_keys.kind_of(blob), binascii.b2a_base64(blob, newline=False).decode()) for blob in blobs]


def choose(address: Address, given: str) -> list[tuple[str, str]]:
    """The keys to pin.

    Args:
        given: a key (`ssh-ed25519 AAAA...`), a fingerprint (`SHA256:...`), or "" to be told what there is.

    Raises:
        TerokError: nothing was given (MANUAL: the message shows what the host says), or the host has another key.
    """
    words = given.split()
    if len(words) >= 2 and words[0] in TYPES:
        try:
            fingerprint(words[1])
        except ValueError:
            raise TerokError("The host key is not base64.", code=Exit.USAGE) from None
        return [(words[0], words[1])]
    offered = scan(address)
    shown = ", ".join(f"{kind} {fingerprint(key)}" for kind, key in offered)
    if not given:
        raise TerokError(
            f"The SSH host key of {address.host} must be confirmed. The host says: {shown}.",
            fix=f"compare it with what the forge publishes, then add --host-key {fingerprint(offered[0][1])}",
            code=Exit.MANUAL,
        )
    chosen = [(kind, key) for kind, key in offered if fingerprint(key) == given]
    if not chosen:
        raise TerokError(f"{address.host} has no host key {given}. It says: {shown}.", code=Exit.REFUSED)
    return chosen


def pin(home: GateHome, address: Address, keys: list[tuple[str, str]]) -> None:
    """Write the scope's known_hosts."""
    text = "".join(f"{host_name(address)} {kind} {key}\n" for kind, key in keys)
    durable.replace(home.known_hosts, text)
