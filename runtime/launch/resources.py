"""What each container has for itself on the host: directories, ports in tcp mode, and published ports."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from ...sidecars.airlock.published.settings import Published
from ...supervisor.ground import netlink, pids
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import SOCKETS, Bundle, bridges, check_socket_path, socket_path
from ..kit import files
from ..kit.alive import containers
from ..kit.config import Config
from .plan import PerContainerResources

CONTAINER_BRIDGES_DIR = "/usr/local/share/terok-sandbox/bridges"
"""Where a container that wants it sees `bridges_resource_dir()`."""
LOOPBACK_VAULT_PORT = 9419
"""The vault's port on the container's own 127.0.0.1, in every transport."""
_TRIES = 1000


def bridges_resource_dir() -> str:
    """The host's directory with the scripts for images that prefer an environment file to set variables."""
    return bridges()


def run_state_dir(cfg: Config, container: str) -> str:
    """The state bundle's directory of `container`, made (0700) when missing; raises TerokError for a bad name."""
    bundle = cfg.layout.bundle(container)
    files.make_dir(cfg.layout.containers)
    return files.make_dir(bundle.root)


def allocate_per_container_resources(cfg: Config, container: str) -> PerContainerResources:
    """The runtime directory (made, 0700) and, in tcp mode, the ports of `container`.

    A container that was prepared before keeps its ports: its environment can't change any more.

    Raises:
        TerokError: the name is bad, a socket's path would be too long, or no port is free.
    """
    directory = cfg.layout.runtime_dir(container)
    for service in SOCKETS:
        check_socket_path(socket_path(directory, service))
    files.make_dir(cfg.layout.runtime)
    files.make_dir(directory)
    if cfg.services.mode == "socket":
        return PerContainerResources(directory, None, None, None)
    ports = kept_ports(cfg.layout.bundle(container)) or pick_ports(cfg, 3)
    return PerContainerResources(directory, *ports)


def kept_ports(bundle: Bundle) -> list[int] | None:
    """The three ports that an earlier launch wrote into meta.json; None when it had none."""
    meta = files.read_json(bundle.meta)
    kept = meta.get("ports") if isinstance(meta, dict) else None
    if isinstance(kept, list) and len(kept) == 3 and all(isinstance(port, int) for port in kept):
        return kept
    return None


def pick_ports(cfg: Config, count: int) -> list[int]:
    """Free ports on 127.0.0.1 that no other prepared container has; all are held open until the last one is found.

    Raises:
        TerokError: the configured range has not enough free ones.
    """
    import socket  # 8 ms, for tcp mode alone

    taken = {port for ports in all_ports(cfg).values() for port in ports}
    chosen: list[int] = []
    with ExitStack() as held:
        wanted = cfg.network.port_range
        candidates = iter(range(wanted[0], wanted[1] + 1)) if wanted else None
        tries = 0
        while len(chosen) < count:
            port = next(candidates, None) if candidates is not None else 0
            tries += 1
            if port is None or tries > 100_000:
                assert wanted is not None
                raise TerokError(
                    f"No free port is left on 127.0.0.1 in network.port_range {list(wanted)}.",
                    fix="terok config set network.port_range '[18700, 32700]', or clean up containers",
                )
            if port in taken:
                continue
            listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            port = listener.getsockname()[1]
            if port not in taken:
                chosen.append(port)
    return chosen


def is_free(port: int) -> bool:
    """Whether 127.0.0.1:`port` can be bound now."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def all_ports(cfg: Config) -> dict[str, list[int]]:
    """The ports of every prepared container, by name."""
    return {name: kept_ports(cfg.layout.bundle(name)) or [] for name in containers(cfg.layout)}


def require_bundle(cfg: Config, container: str) -> Bundle:
    """The bundle of a container that was prepared; raises TerokError (NOT_FOUND) when there is none."""
    bundle = cfg.layout.bundle(container)
    if container not in containers(cfg.layout):
        raise TerokError(f"{container} is not a terok container.", fix="terok status lists them", code=Exit.NOT_FOUND)
    return bundle


# --- published ports -------------------------------------------------------------------------------------


def published_before(bundle: Bundle) -> tuple[Published, ...]:
    """The ports that the container's last launch published; none when its `meta.json` cannot be read."""
    meta = files.read_json(bundle.meta)
    entries = meta.get("published") if isinstance(meta, dict) else None
    try:
        return tuple(Published(str(row["host"]), int(row["host_port"]), int(row["port"])) for row in entries or ())
    except (TypeError, KeyError, ValueError):
        return ()


def choose_host_ports(wanted: Sequence[Published], cfg: Config, bundle: Bundle) -> tuple[Published, ...]:
    """The same ports with a host port for each: the one that the container had before, or a free one.

    Raises:
        TerokError: no port is free.
    """
    before = {(port.host, port.port): port.host_port for port in published_before(bundle)}
    others = [cfg.layout.bundle(name) for name in containers(cfg.layout) if name != bundle.name]
    taken = {port.host_port for other in others for port in published_before(other)}
    taken |= {port.host_port for port in wanted}
    ports = []
    for port in wanted:
        if not port.host_port:
            kept = before.get((port.host, port.port), 0)
            port = replace(port, host_port=kept if kept and kept not in taken else _free(port.host, taken))
            taken.add(port.host_port)
        ports.append(port)
    return tuple(ports)


def _free(host: str, taken: set[int]) -> int:
    with ExitStack() as held:
        for _ in range(_TRIES):
            try:
                port = _listen(held, host, 0)
            except OSError as error:
                raise TerokError(
                    f"No port can be published at {host or 'the host'}: {error.strerror}.", code=Exit.USAGE
                ) from error
            if port not in taken:
                return port
    raise TerokError("No port of the host is free.")


def _listen(held: ExitStack, host: str, port: int) -> int:
    """Listen at a port of the host; without an address at every one of both families. Raises OSError."""
    import socket  # 8 ms that most launches do not need

    everywhere = not host and netlink.has_ipv6()
    six = everywhere or ":" in host
    listener = held.enter_context(socket.socket(socket.AF_INET6 if six else socket.AF_INET))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if six:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not everywhere))
    listener.bind(("::" if everywhere else host, port))
    listener.listen(1)
    return int(listener.getsockname()[1])


def refuse_taken(wanted: Sequence[Published]) -> None:
    """Raise TerokError (REFUSED) when a program of the host has one of the ports now; the start would be refused."""
    for port in wanted:
        try:
            with ExitStack() as held:
                _listen(held, port.host, port.host_port)
        except OSError as error:
            owner = pids.port_owner(port.host_port)
            raise TerokError(
                f"The port {port.host_port} of the host cannot be published: {error.strerror}"
                f"{f' ({owner} has it)' if owner else ''}.",
                fix="publish another port, or end what uses this one",
                code=Exit.REFUSED,
            ) from error
