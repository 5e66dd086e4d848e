"""Ask a host for its host keys: for pins that the operator confirms. Nothing is authenticated and nothing believed."""

from __future__ import annotations

import time

SCAN_SECONDS = 15.0
"""For all key types together; a host that answers slowly gets no longer."""
CONNECTION_SECONDS = 5.0
ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
)
"""One connection each: a host shows the key of the algorithm that was agreed, and no other."""


class NoKeyError(Exception):
    """The host showed no key. The text is fit for a terminal."""


def ask(host: str, port: int) -> list[bytes]:
    """The public blobs of the host's keys, each proven by a signature of the key exchange.

    Raises:
        NoKeyError: there is none.
    """
    import paramiko

    blobs: list[bytes] = []
    reason = "it offers no type of key that can be pinned"
    deadline = time.monotonic() + SCAN_SECONDS
    for algorithm in ALGORITHMS:
        seconds = min(CONNECTION_SECONDS, deadline - time.monotonic())
        if seconds <= 0:
            reason = f"it did not answer within {SCAN_SECONDS:.0f} s"
            break
        try:
            blobs.append(_show(host, port, algorithm, seconds))
        except paramiko.SSHException as error:
            reason = _printable(str(error)) or reason
        except OSError as error:
            reason = error.strerror or _printable(str(error))
            break
        except (EOFError, ValueError):
            reason = "it closed the connection"
    if not blobs:
        raise NoKeyError(reason)
    return blobs


def _show(host: str, port: int, algorithm: str, seconds: float) -> bytes:
    """The key that the host proves with one algorithm."""
    import logging
    import socket

    import paramiko

    logger = logging.getLogger("terok.hostkeys")
    logger.propagate = False  # the library logs what the host says, and an unhandled line ends on the terminal
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    with socket.create_connection((host, port), timeout=seconds) as link:
        transport = paramiko.Transport(link)
        try:
            transport.set_log_channel("terok.hostkeys")
            transport.banner_timeout = seconds
            transport.get_security_options().key_types = (algorithm,)
            transport.start_client(timeout=seconds)
            if not transport.initial_kex_done:
                raise paramiko.SSHException("the key exchange took too long")
            return bytes(transport.get_remote_server_key().asbytes())
        finally:
            transport.close()


def _printable(text: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text[:200])
