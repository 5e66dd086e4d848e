"""Host keys for pins: from known_hosts files, from a line, or asked of the host itself."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from ...sidecars.ssh import keys
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import hostkeys
from .formats import read_file
from .shelf import public_line

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PORT = 22
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


class HostKey(NamedTuple):
    """One public key of a host; `source` says where it was found."""

    blob: bytes
    source: str

    @property
    def line(self) -> str:
        """`TYPE BASE64`, as a pin stores it."""
        return public_line(self.blob)

    @property
    def fingerprint(self) -> str:
        """SHA256:..., as the host's owner publishes it."""
        return keys.fingerprint(self.blob)


def known_name(host: str) -> str:
    """How known_hosts writes a host: `host`, or `[host]:port` for another port than 22 (sshd(8)).

    Raises:
        TerokError: the port is no port.
    """
    match = re.fullmatch(r"(?:\[(?P<in>[^\]]+)\]|(?P<out>[^:\[\]]+))(?::(?P<port>\d{1,5}))?", host)
    if match is None:
        if ":" in host and re.fullmatch(r"[0-9A-Fa-f:.]+", host):
            return host
        raise TerokError(f"{host!r} is not a host, HOST:PORT or [HOST]:PORT.", code=Exit.USAGE)
    name, port = (match["in"] or match["out"]).lower(), int(match["port"] or DEFAULT_PORT)
    return name if port == DEFAULT_PORT else f"[{name}]:{port}"


def known_hosts_files(environ: Mapping[str, str]) -> list[str]:
    """Where the operator's own ssh finds the host keys that it trusts."""
    return [os.path.join(environ.get("HOME") or "/root", ".ssh", "known_hosts"), SYSTEM_KNOWN_HOSTS]


def find(host: str, environ: Mapping[str, str]) -> list[HostKey]:
    """Keys of `host` (as `known_name` writes it) in the operator's known_hosts files."""
    keys: list[HostKey] = []
    for path in known_hosts_files(environ):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                keys += parse(file.read(), host, path)
        except OSError:
            continue
    return _unique(keys)


def given(text: str, host: str) -> list[HostKey]:
    """Keys from a file (known_hosts or .pub) or from one such line.

    Raises:
        TerokError: there is none for `host`.
    """
    source = text if os.path.exists(text) else "the command line"
    content = read_file(text).decode(errors="replace") if os.path.exists(text) else text
    keys = _unique(parse(content, host, source))
    if not keys:
        raise TerokError(
            f"{source} has no key of {host} that can be pinned.",
            fix=f"give a known_hosts line of {host}, a .pub file, or TYPE and BASE64 in one argument",
            code=Exit.USAGE,
        )
    return keys


def parse(content: str, host: str, source: str) -> list[HostKey]:
    """Keys of `host` in known_hosts format (sshd(8)) or, without a host name, as in a .pub file.

    A key that is marked @revoked for the host is left out, wherever it stands; certificate authorities are not pins.
    """
    host_keys: list[HostKey] = []
    revoked: set[bytes] = set()
    for line in content.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in keys.TYPES:
            if len(words) < 3 or not _matches(words.pop(0), host):
                continue
        elif marker:
            continue
        blob = _blob(words)
        if blob and marker == "@revoked":
            revoked.add(blob)
        elif blob and not marker:
            host_keys.append(HostKey(blob, source))
    return [key for key in host_keys if key.blob not in revoked]


def _blob(words: list[str]) -> bytes:
    """The key in `TYPE BASE64 ...`; empty when it is malformed, weak or of a type that is not served."""
    if len(words) < 2 or words[0] not in keys.TYPES:
        return b""
    try:
        blob = base64.b64decode(words[1], validate=True)
        keys.load_public(blob)
    except (binascii.Error, keys.KeyFormatError):
        return b""
    return blob if keys.kind_of(blob) == words[0] else b""


def _matches(patterns: str, host: str) -> bool:
    """Whether a known_hosts host field is about `host`: patterns, negated ones, or one hashed name."""
    if patterns.startswith("|1|"):
        from paramiko.hostkeys import HostKeys

        try:
            return bool(HostKeys.hash_host(host, patterns) == patterns)
        except (ValueError, binascii.Error):
            return False
    matched = False
    for pattern in patterns.lower().split(","):
        wanted = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(wanted, host):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _unique(keys: list[HostKey]) -> list[HostKey]:
    return list({key.blob: key for key in reversed(keys)}.values())[::-1]


def scan(host: str) -> list[HostKey]:
    """Ask the host for its keys; the answer is not believed until it is confirmed.

    Raises:
        TerokError: there was no answer.
    """
    name, port = host, str(DEFAULT_PORT)
    if host.startswith("["):
        name, _, port = host[1:].partition("]:")
    try:
        blobs = hostkeys.ask(name, int(port))
    except hostkeys.NoKeyError as error:
        fix = "check the name, the port and the network"
        raise TerokError(f"{host} returned no host key: {error}.", fix=fix) from None
    keys = [HostKey(blob, "the host itself") for blob in blobs if _blob(public_line(blob).split())]
    if not keys:
        raise TerokError(f"{host} returned no host key that can be pinned.")
    return keys
