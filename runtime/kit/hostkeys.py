"""Ask a host for its host keys: for pins that the operator confirms. Nothing is authenticated and nothing believed."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Address = tuple[int, tuple[str | int | bytes, ...]]

SCAN_SECONDS = 15.0
"""For all of it: the look-up of the name, and a connection for each type of key."""
CONNECTION_SECONDS = 5.0
"""For the look-up, and for each connection."""
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


def ask(host: str, port: int, *, seconds: float = SCAN_SECONDS) -> list[bytes]:
    """The public blobs of the host's keys, each proven by a signature of the key exchange.

    Args:
        seconds: bound of the whole call.

    Raises:
        NoKeyError: there is none.
    """
    import paramiko

    blobs: list[bytes] = []
    reason = "it offers no type of key that can be pinned"
    deadline = time.monotonic() + seconds
    addresses = look_up(host, port, min(seconds, CONNECTION_SECONDS))
    for algorithm in ALGORITHMS:
        end = min(deadline, time.monotonic() + CONNECTION_SECONDS)
        if end <= time.monotonic():
            reason = f"it did not answer within {seconds:.0f} s"
            break
        try:
            blobs.append(_show(addresses, algorithm, end))
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


def look_up(
    host: str, port: int, seconds: float, resolve: Callable[[str, int], list[Address]] | None = None
) -> list[Address]:
    """The family and socket address of each place that a name leads to.

    Args:
        seconds: getaddrinfo(3) has no bound of its own, so it runs in a thread that is left behind after this time.
        resolve: the resolver; the system's unless given.

    Raises:
        NoKeyError: there is none, or no answer in time.
    """
    import threading

    addresses: list[Address] = []
    errors: list[OSError | UnicodeError] = []

    def run() -> None:
        try:
            addresses.extend((resolve or _resolve)(host, port))
        except (OSError, UnicodeError) as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise NoKeyError(f"its name was not resolved within {seconds:.0f} s")
    if errors:
        raise NoKeyError(getattr(errors[0], "strerror", None) or "its name is not valid")
    return addresses


def _resolve(host: str, port: int) -> list[Address]:
    import socket

    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(int(family), tuple(place)) for family, _, _, _, place in answers]


def _show(addresses: list[Address], algorithm: str, end: float) -> bytes:
    """The key that the host proves with one algorithm, before the moment `end`."""
    import logging

    import paramiko

    logger = logging.getLogger("terok.hostkeys")
    logger.propagate = False  # the library logs what the host says, and an unhandled line ends on the terminal
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    with _connect(addresses, end) as link:
        transport = paramiko.Transport(link)
        try:
            transport.set_log_channel("terok.hostkeys")
            transport.banner_timeout = _left(end)
            transport.get_security_options().key_types = (algorithm,)
            transport.start_client(timeout=_left(end))
            if not transport.initial_kex_done:
                raise paramiko.SSHException("the key exchange took too long")
            return bytes(transport.get_remote_server_key().asbytes())
        finally:
            transport.close()


def _connect(addresses: list[Address], end: float) -> socket.socket:
    """A connection to the first address that answers; each may take half of what is left, the last one all of it."""
    import socket

    error: OSError = OSError(0, "it has no address")
    for index, (family, place) in enumerate(addresses):
        link = socket.socket(family, socket.SOCK_STREAM)
        link.settimeout(_left(end) if index == len(addresses) - 1 else _left(end) / 2)
        try:
            link.connect(place)
            return link
        except OSError as problem:
            link.close()
            error = problem
    raise error


def _left(end: float) -> float:
    return max(0.01, end - time.monotonic())


def _printable(text: str) -> str:
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text[:200])
