"""The sidecar JSON: the fully resolved wiring of one container, and the only door through which it is read.

A writer of the file decides what the supervisor does, so it is believed only when it is a regular file of
the operator's, that no other user can write, at an absolute path without links at its end. Every key and type is
checked; an unknown key or a newer version is refused, because half-understood wiring is not fail-closed.
"""

from __future__ import annotations

import os
import stat
from _socket import AF_INET, AF_INET6, inet_pton

from .ground.errors import TerokError
from .ground.layout import SUN_PATH_MAX, Bundle, check_name, handover_socket
from .ground.quick import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass
    from typing import Any
else:
    from .ground.frozen import dataclass

VERSION = 1
SIZE_MAX = 1 << 20
SIDECARS = {
    "vault": "vault",
    "ssh": "ssh",
    "gate": "gate",
    "mcp": "mcp",
    "audit": "shield.reader",
    "airlock": "airlock",
    "publish": "airlock.published",
}
"""The services that the supervisor can start, and each one's room below `sidecars/`; dnsmasq stands beside them."""
INSIDE = ("publish",)
"""Sidecars that run in the container's network namespace."""
LISTENER_KINDS = ("unix", "handover", "netns", "netns6", "tcp", "published", "nflog", "dnslog")
SOURCES = ("nflog", "dnslog")
"""Kinds without clients: they are only read."""
PORT_MAX = 0xFFFF
"""The largest TCP port, and the largest NFLOG group."""


@dataclass(frozen=True)
class Listener:
    """One descriptor that the supervisor holds for a sidecar; when it has something to read, the sidecar starts.

    kind: `unix` (listens at path on the host, seen below /run/terok), `handover` (the same where no container sees it,
        for messages of another sidecar: SOCK_SEQPACKET), `netns` (listens at 127.0.0.1:port inside the container's
        network namespace), `netns6` (the same at [::1]:port, where there is IPv6), `tcp` (listens at 127.0.0.1:port on
        the host), `published` (listens at host:port on the host, for everybody), `nflog` (packets that the firewall
        logs to the group `port`) or `dnslog` (the read end of dnsmasq's log).
    host: an address of the host, of a `published` one.
    """

    kind: str
    path: str = ""
    port: int = 0
    host: str = ""

    def __str__(self) -> str:
        """Where it listens, for people."""
        if self.path:
            return self.path if self.kind == "unix" else f"{self.kind}:{self.path}"
        host = self.host or "127.0.0.1"
        return f"{self.kind}:{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True)
class Sidecar:
    """One service process.

    name: one of `SIDECARS`.
    start: `demand` (on the first connection) or `eager`.
    idle_seconds: how long it may stay without a connection before it leaves; 0 means for ever.
    listeners: what it serves.
    settings: its own business; the supervisor does not look inside.
    """

    name: str
    start: str
    idle_seconds: int
    listeners: tuple[Listener, ...]
    settings: dict[str, object]


@dataclass(frozen=True)
class Mount:
    """A bind mount that the hook makes: absolute `source` on the host, `target` in the container.

    A target is absolute, or begins with `~/`: the home of the container's user, who then gets the source as owner. A
    writable one in the home yields to a file with content that is there already.
    """

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Shield:
    """The firewall: files in the bundle, all absolute.

    ruleset: `ruleset.nft`, applied in one transaction.
    expected: `ruleset.json`, the structure that reading back must show.
    dnsmasq_conf: None when names are resolved statically.
    probe: a name that dnsmasq must answer (even with NXDOMAIN) before the container starts.
    loopback: `loopback.json`, addresses and routes of the loopback interface; None where no name has a synthetic one.
    """

    ruleset: str
    expected: str
    dnsmasq_conf: str | None
    probe: str
    loopback: str | None = None


@dataclass(frozen=True)
class Wiring:
    """Everything that the supervisor needs to know about one container.

    trust: the container is shown the certificate of its own authority, `authority.pem` in the bundle.
    """

    container: str
    scope: str | None
    bundle: Bundle
    runtime_dir: str
    sidecars: tuple[Sidecar, ...]
    mounts: tuple[Mount, ...]
    shield: Shield | None
    trust: bool = False


class SidecarError(TerokError):
    """The sidecar JSON is missing, not trustworthy or not understood. Raised by `load` and `parse` alone."""


def load(path: str) -> Wiring:
    """Read and check a sidecar JSON.

    Args:
        path: what the annotation says; controlled by the user who started the container.

    Raises:
        SidecarError: with the reason; nothing was done yet.
    """
    if not path.startswith("/") or "/../" in path + "/" or "\0" in path:
        raise SidecarError(
            f"The sidecar path {path[:200]!r} is not absolute and plain.",
            fix="use the path that `terok prepare` prints",
        )
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SidecarError(
            f"The sidecar JSON {path} cannot be opened: {error.strerror}.",
            fix="run `terok prepare` for this container again",
        ) from error
    try:
        _check_trust(path, os.fstat(fd), "sidecar JSON", stat.S_ISREG)
        _check_trust(
            os.path.dirname(path), os.lstat(os.path.dirname(path)), "directory of the sidecar JSON", stat.S_ISDIR
        )
    except SidecarError:
        os.close(fd)
        raise
    with open(fd, "rb") as file:
        content = file.read(SIZE_MAX + 1)
    if len(content) > SIZE_MAX:
        raise SidecarError(f"The sidecar JSON {path} is larger than {SIZE_MAX >> 20} MiB.")
    try:
        data = loads(content)
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"The sidecar JSON {path} is not JSON: {str(error)[:120]}.") from error
    wiring = parse(data)
    if os.path.dirname(path) != wiring.bundle.root:
        raise SidecarError(f"The sidecar JSON {path} does not lie in the bundle that it names, {wiring.bundle.root}.")
    return wiring


def _check_trust(path: str, info: os.stat_result, what: str, is_kind: Callable[[int], bool]) -> None:
    if not is_kind(info.st_mode):
        raise SidecarError(f"The {what} {path} is not a regular one.")
    # inside Podman's user namespace the operator's own files belong to uid 0, everybody else's to 65534
    if info.st_uid != os.geteuid():
        raise SidecarError(f"The {what} {path} belongs to uid {info.st_uid}, not to you.")
    if info.st_mode & 0o022:
        raise SidecarError(f"The {what} {path} can be written by others.", fix=f"chmod go-w {path}")


def _field(data: dict[str, object], where: str, key: str, kind: type | tuple[type, ...]) -> Any:
    value = data.pop(key, _MISSING)
    if value is _MISSING:
        raise SidecarError(f"The sidecar JSON lacks {where}{key}.")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise SidecarError(f"In the sidecar JSON, {where}{key} has the wrong type.")
    return value


_MISSING = object()


def _path(data: dict[str, object], where: str, key: str) -> str:
    value: str = _field(data, where, key, str)
    if not value.startswith("/") or os.path.normpath(value) != value or "\0" in value:
        raise SidecarError(f"In the sidecar JSON, {where}{key} is not an absolute, plain path.")
    return value


def _no_more(data: dict[str, object], where: str) -> None:
    if data:
        raise SidecarError(f"The sidecar JSON has an unknown key: {where}{sorted(data)[0][:60]}.")


def _objects(data: dict[str, object], where: str, key: str) -> list[dict[str, object]]:
    values: list[object] = _field(data, where, key, list)
    objects = [dict(value) for value in values if isinstance(value, dict)]
    if len(objects) != len(values):
        raise SidecarError(f"In the sidecar JSON, {where}{key} is not a list of objects.")
    return objects


def parse(document: object) -> Wiring:
    """Check a decoded sidecar JSON and return the wiring.

    Raises:
        SidecarError: naming the first key that is missing, unknown or of the wrong type.
    """
    if not isinstance(document, dict):
        raise SidecarError("The sidecar JSON is not an object.")
    data = dict(document)
    version = _field(data, "", "schema", int)
    if version > VERSION:
        raise SidecarError(
            f"The sidecar JSON has schema {version}; this terok understands {VERSION}.",
            fix="upgrade terok and run `terok setup`",
        )
    if version < 1:
        raise SidecarError(f"The sidecar JSON has schema {version}, which never existed.")
    try:
        container = check_name(_field(data, "", "container", str))
        scope = _field(data, "", "scope", (str, type(None)))
        if scope is not None:
            check_name(scope)
    except SidecarError:
        raise
    except TerokError as error:
        raise SidecarError(f"In the sidecar JSON, {error.what}") from error
    bundle = Bundle(_path(data, "", "bundle"))
    runtime_dir = _path(data, "", "runtime_dir")
    if bundle.name != container or os.path.basename(runtime_dir) != container:
        raise SidecarError(f"The sidecar JSON's directories are not those of container {container}.")
    wiring = Wiring(
        container=container,
        scope=scope,
        bundle=bundle,
        runtime_dir=runtime_dir,
        sidecars=tuple(_sidecar(document, runtime_dir) for document in _objects(data, "", "sidecars")),
        mounts=tuple(_mount(document) for document in _objects(data, "", "mounts")),
        shield=_shield(_field(data, "", "shield", (dict, type(None))), bundle),
        trust="trust" in data and _field(data, "", "trust", bool),
    )
    _no_more(data, "")
    names = [sidecar.name for sidecar in wiring.sidecars]
    if len(set(names)) != len(names):
        raise SidecarError("The sidecar JSON names a sidecar twice.")
    return wiring


def _sidecar(data: dict[str, object], runtime_dir: str) -> Sidecar:
    name = _field(data, "sidecars.", "name", str)
    where = f"sidecars.{name[:20]}."
    if name not in SIDECARS:
        raise SidecarError(f"The sidecar JSON names an unknown sidecar: {name[:60]!r}.")
    start = _field(data, where, "start", str)
    if start not in ("demand", "eager"):
        raise SidecarError(f"In the sidecar JSON, {where}start is neither demand nor eager.")
    idle = _field(data, where, "idle_seconds", int)
    if idle < 0:
        raise SidecarError(f"In the sidecar JSON, {where}idle_seconds is negative.")
    listeners = tuple(_listener(document, where, runtime_dir) for document in _objects(data, where, "listeners"))
    settings = _field(data, where, "settings", dict)
    _no_more(data, where)
    return Sidecar(name=name, start=start, idle_seconds=idle, listeners=listeners, settings=settings)


def _listener(data: dict[str, object], where: str, runtime_dir: str) -> Listener:
    kind = _field(data, where, "kind", str)
    if kind == "unix":
        path = _path(data, where, "path")
        if os.path.dirname(path) != runtime_dir or len(os.fsencode(path)) > SUN_PATH_MAX:
            raise SidecarError(f"In the sidecar JSON, {where}path is not a socket in the runtime directory.")
        listener = Listener(kind=kind, path=path)
    elif kind == "handover":
        path = _path(data, where, "path")
        if path != handover_socket(runtime_dir) or len(os.fsencode(path)) > SUN_PATH_MAX:
            raise SidecarError(f"In the sidecar JSON, {where}path is not the socket for hand-over.")
        listener = Listener(kind=kind, path=path)
    elif kind == "dnslog":
        listener = Listener(kind=kind)
    elif kind in LISTENER_KINDS:
        port = _field(data, where, "port", int)
        if not 0 < port <= PORT_MAX:
            raise SidecarError(f"In the sidecar JSON, {where}port is not a number from 1 to 65535.")
        host = _address(data, where) if kind == "published" else ""
        listener = Listener(kind=kind, port=port, host=host)
    else:
        raise SidecarError(f"In the sidecar JSON, {where}kind is unknown: {kind[:40]!r}.")
    _no_more(data, where)
    return listener


def _address(data: dict[str, object], where: str) -> str:
    host: str = _field(data, where, "host", str)
    try:
        inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    except (OSError, ValueError):
        raise SidecarError(f"In the sidecar JSON, {where}host is not an IP address: {host[:60]!r}.") from None
    return host


def _mount(data: dict[str, object]) -> Mount:
    target = data.get("target")
    if isinstance(target, str) and target.startswith("~/"):
        data["target"] = target[1:]
    mount = Mount(
        source=_path(data, "mounts.", "source"),
        target=("~" if data.get("target") != target else "") + _path(data, "mounts.", "target"),
        read_only=_field(data, "mounts.", "read_only", bool),
    )
    _no_more(data, "mounts.")
    return mount


def _shield(data: dict[str, object] | None, bundle: Bundle) -> Shield | None:
    if data is None:
        return None
    data = dict(data)
    conf = None if data.get("dnsmasq_conf", "") is None else _path(data, "shield.", "dnsmasq_conf")
    data.pop("dnsmasq_conf", None)
    shield = Shield(
        ruleset=_path(data, "shield.", "ruleset"),
        expected=_path(data, "shield.", "expected"),
        dnsmasq_conf=conf,
        probe=_field(data, "shield.", "probe", str),
        loopback=_path(data, "shield.", "loopback") if "loopback" in data else None,
    )
    _no_more(data, "shield.")
    for path in (shield.ruleset, shield.expected, conf or shield.ruleset, shield.loopback or shield.ruleset):
        if os.path.dirname(path) != bundle.root:
            raise SidecarError(f"In the sidecar JSON, the shield's file {path} does not lie in the bundle.")
    return shield
