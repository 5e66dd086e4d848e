"""Opens every listening socket of one container: Unix sockets, host TCP ports, and loopback ports in its network."""

from __future__ import annotations

import os

from . import process, selinux, sockets
from .errors import TerokError
from .layout import DNS_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container import Container
    from .schema import Listener, Wiring

_TIMEOUT = 5.0


def open_all(container: Container, wiring: Wiring) -> dict[Listener, int]:
    """The listening descriptor of each listener in the wiring.

    Raises:
        TerokError: naming the socket and the reason.
    """
    wanted = [listener for sidecar in wiring.sidecars for listener in sidecar.listeners]
    opened: dict[Listener, int] = {}
    _make_runtime_dir(wiring.runtime_dir)
    unix = [listener for listener in wanted if listener.kind == "unix"]
    try:
        opened.update(zip(unix, selinux.listen_unix(container.label, [each.path for each in unix]), strict=True))
    except OSError as error:
        raise TerokError(f"Could not listen on the sockets in {wiring.runtime_dir}: {error.strerror}.") from error
    for listener in wanted:
        if listener.kind == "tcp":
            opened[listener] = _open(f"port {listener.port}", sockets.listen_tcp, "127.0.0.1", listener.port)
    inside = [listener for listener in wanted if listener.kind == "netns"]
    if inside:
        opened.update(zip(inside, _open_inside(container, [listener.port for listener in inside]), strict=True))
    return opened


def open_dns_probe(container: Container) -> int:
    """A UDP socket inside the container's network namespace, connected to its resolver."""

    def body() -> tuple[bytes, list[int]]:
        return b"", [sockets.connect_udp("127.0.0.1", DNS_PORT)]

    return process.call_in(container.network, body, timeout=_TIMEOUT)[1][0]


def _make_runtime_dir(path: str) -> None:
    # 0755: any user of the container may look; the 0700 directory above keeps the host's other users out
    parent = os.path.dirname(path)
    try:
        os.makedirs(parent, 0o700, exist_ok=True)
        info = os.lstat(parent)
        if info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise TerokError(f"The directory {parent} is not yours alone.", fix=f"chmod 700 {parent}")
        os.makedirs(path, 0o755, exist_ok=True)
        os.chmod(path, 0o755)
    except OSError as error:
        raise TerokError(f"The runtime directory {path} cannot be made: {error.strerror}.") from error


def _open(what: str, opener: object, *arguments: object) -> int:
    try:
        return int(opener(*arguments))  # type: ignore[operator]  # one of the two openers above
    except OSError as error:
        raise TerokError(f"Could not listen on {what}: {error.strerror}.") from error


def _open_inside(container: Container, ports: list[int]) -> list[int]:
    def body() -> tuple[bytes, list[int]]:
        return b"", [
            _open(f"127.0.0.1:{port} in the container", sockets.listen_tcp, "127.0.0.1", port) for port in ports
        ]

    return process.call_in(container.network, body, timeout=_TIMEOUT)[1]
