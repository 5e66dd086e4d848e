"""Opens every listening socket of one container: Unix sockets, host TCP ports, and loopback ports in its network.

What belongs into the container's network namespace, sockets and firewall, is done by one child in there while the
caller goes on with the rest.
"""

from __future__ import annotations

import errno
import os

from .container import selinux
from .ground import netlink, pids, sockets, within
from .ground.errors import TerokError
from .ground.layout import DNS_PORT
from .ground.log import mark
from .wall import firewall, guard, loopback, nflog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container.container import Container
    from .schema import Listener, Wiring

_INSIDE = ("netns", "netns6", "nflog")
_TIMEOUT = 8.0
"""Seconds for what is done inside; below the hook's patience, so that the reason is known when it ends."""
COPY_BYTES = 96
"""Of each logged packet: an IPv6 header, some extensions and the ports."""


class Opened:
    """The descriptors of one container: its listeners', and some more from inside its network namespace.

    Attributes:
        fds: listener -> listening descriptor.
        probe: a UDP socket connected to its resolver.
        monitors: netlink sockets that hear of changes of its firewall, and of its loopback network.
        dns_log: what dnsmasq's standard error becomes when its log is read; else -1.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.fds: dict[Listener, int] = {}
        self.monitors: list[int] = []
        self.probe = self.dns_log = -1
        for sidecar in wiring.sidecars:
            for listener in sidecar.listeners:
                if listener.kind == "dnslog":
                    # held at both ends here, so that neither end of it sees the other one's restart
                    self.fds[listener], self.dns_log = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def read_dns_log(self) -> str:
        """What dnsmasq has written to its log so far and was not read; for the sentence of a failed start."""
        source = next((fd for listener, fd in self.fds.items() if listener.kind == "dnslog"), -1)
        try:
            return os.read(source, 1 << 16).decode(errors="replace") if source >= 0 else ""
        except BlockingIOError:
            return ""


def begin_inside(container: Container, wiring: Wiring) -> within.Call:
    """Start the child that opens what is inside the container's network and puts its firewall in force."""
    wanted = _inside(wiring)

    def body() -> tuple[bytes, list[int]]:
        mark("network: entered")
        monitors = [guard.listen()]
        if wiring.shield is not None and wiring.shield.loopback is not None:
            monitors.append(netlink.listen(routes=loopback.closed(wiring.shield.loopback)))
        fds = [sockets.connect_udp("127.0.0.1", DNS_PORT), *map(_open_inside, wanted), *monitors]
        mark("network: sockets")
        if wiring.shield is not None:
            firewall.put(wiring.shield)
            mark("network: in force")
            guard.drain(monitors)  # what comes from here on is not our own doing, and is looked into
            firewall.check(wiring.shield)
            mark("network: checked")
        return b"", fds

    return within.begin(container.network, body, timeout=_TIMEOUT)


def open_here(opened: Opened, container: Container, wiring: Wiring) -> None:
    """Open what is outside of the container's network, in the runtime directory; `add_inside` brings the rest.

    Raises:
        TerokError: naming the socket and the reason.
    """
    wanted = [listener for sidecar in wiring.sidecars for listener in sidecar.listeners]
    fds = opened.fds
    unix = [listener for listener in wanted if listener.kind == "unix"]
    over_tcp = any(listener.kind == "tcp" for listener in wanted)
    try:
        labelled = selinux.listen_unix(container.label, [listener.path for listener in unix], spare=over_tcp)
        fds.update(zip(unix, labelled, strict=True))
    except OSError as error:
        raise TerokError(f"Could not listen on the sockets in {wiring.runtime_dir}: {error.strerror}.") from error
    for listener in wanted:
        if listener.kind == "tcp":
            fds[listener] = _open_host_port(listener.port)
        elif listener.kind == "handover":
            fds[listener] = _open_handover(listener.path)
        elif listener.kind == "published":
            fds[listener] = _open_published(listener)


def add_inside(opened: Opened, wiring: Wiring, inside: within.Call) -> None:
    """Wait for the child of `begin_inside` and take its descriptors over.

    Raises:
        TerokError: naming the socket and the reason, or what is wrong with the firewall.
    """
    wanted = _inside(wiring)
    opened.probe, *made = inside.finish()[1]
    opened.fds.update(zip(wanted, made, strict=False))
    opened.monitors = made[len(wanted) :]


def _inside(wiring: Wiring) -> list[Listener]:
    return [listener for sidecar in wiring.sidecars for listener in sidecar.listeners if listener.kind in _INSIDE]


def make_runtime_dir(path: str) -> None:
    """Make the directory that the container sees as /run/terok; raises TerokError.

    0755: any user of the container may look; the 0700 directory above keeps the host's other users out.
    """
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


def _open_handover(path: str) -> int:
    """With this process's own label: no container may connect, whatever it sees of the host."""
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        return sockets.listen_unix(path, 0o600, messages=True)
    except OSError as error:
        raise TerokError(f"Could not listen on {path}: {error.strerror}.") from error


def _open_host_port(port: int) -> int:
    try:
        return sockets.listen_tcp("127.0.0.1", port)
    except OSError as error:
        owner = pids.port_owner(port) or "an unknown process"
        raise TerokError(
            f"The container's port 127.0.0.1:{port} cannot be used: {error.strerror} ({owner} has it).",
            fix=f"end what uses port {port}, or run `terok cleanup` and prepare the container again for other ports",
        ) from error


def _open_published(listener: Listener) -> int:
    try:
        return sockets.listen_tcp(listener.host, listener.port)
    except OSError as error:
        raise TerokError(
            f"The published port {listener.port} cannot be listened on at {listener.host}: {_reason(error, listener)}.",
            fix=_PUBLISHED_FIX.get(error.errno or 0, "publish another port"),
        ) from error


_PUBLISHED_FIX = {
    errno.EACCES: "publish a port from 1024 up, or lower net.ipv4.ip_unprivileged_port_start (sysctl(8))",
    errno.EADDRNOTAVAIL: "publish at an address that the host has",
}


def _reason(error: OSError, listener: Listener) -> str:
    if error.errno != errno.EADDRINUSE:
        return error.strerror or str(error)
    return f"{error.strerror} ({pids.port_owner(listener.port) or 'an unknown process'} has it)"


def _open_inside(listener: Listener) -> int:
    if listener.kind == "nflog":
        return _open(f"NFLOG group {listener.port} in the container", nflog.listen, listener.port, COPY_BYTES)
    if listener.kind == "netns6":
        if not netlink.has_ipv6():
            return _open("127.0.0.1 in the container", sockets.listen_tcp, "127.0.0.1", 0)  # no rule leads there
        return _open(f"[::1]:{listener.port} in the container", sockets.listen_tcp, "::1", listener.port)
    return _open(f"127.0.0.1:{listener.port} in the container", sockets.listen_tcp, "127.0.0.1", listener.port)
