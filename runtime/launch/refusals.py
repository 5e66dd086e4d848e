"""Refuses podman words that would undo the sandbox: managed flags, weakened isolation, mounts over those of terok.

The operator is trusted, a copied command line is not. What the words do not show (a symbolic link in the image, a
volume of another container) is settled by order: the hook's mounts come after all of podman's.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence

from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import IN_CONTAINER, Layout, outer_uid
from ..host.flags import Flag, Words, is_on, parse

SANDBOX_MANAGED_FLAGS = frozenset(
    {"--name", "--network", "--hooks-dir", "--annotation", "--cap-add", "--cap-drop", "--userns"}
)
"""Flags that terok sets itself; the user's words may not hold them in any spelling."""

BRIDGES_DIR = "/usr/local/share/terok-sandbox/bridges"
MANAGED_TARGETS = (IN_CONTAINER, "/etc/resolv.conf", BRIDGES_DIR)
"""Paths in the container where terok mounts something."""

_LINKS = {"/var/run": "/run", "/var/lock": "/run/lock", "/bin": "/usr/bin", "/lib": "/usr/lib", "/sbin": "/usr/sbin"}
"""Symbolic links that most images have, with where they lead."""

_WHY_MANAGED = {
    "name": "it is the NAME of terok run",
    "network": "use terok's own --network before the '--'",
    "hooks-dir": "the hooks are announced by terok setup",
    "annotation": "annotations are how the hook finds this container's wiring",
    "cap-add": "the firewall rests on the capabilities that are dropped",
    "cap-drop": "terok drops what the firewall needs dropped",
    "userns": "the services' sockets belong to the default user namespace",
}


def _never(reason: str) -> Callable[[str], str | None]:
    return lambda _value: reason


def _when_on(reason: str) -> Callable[[str], str | None]:
    return lambda value: reason if is_on(value) else None


def _no_host(what: str) -> Callable[[str], str | None]:
    return lambda value: what if value.partition(":")[0] in ("host", "container", "ns") else None


def _security_opt(value: str) -> str | None:
    name, _, setting = value.partition("=" if "=" in value else ":")
    if name == "no-new-privileges":
        return None if is_on(setting or "true") else "it would let programs gain privileges"
    if name in ("seccomp", "apparmor"):
        return f"it would take the container's {name} profile away" if setting == "unconfined" else None
    if name == "label":
        kind, _, label = setting.partition(":")
        fine = kind in ("level", "user", "role", "filetype") or (kind == "type" and label.startswith("container_"))
        return None if fine else "it would take the container's SELinux confinement away"
    return None if name in ("mask", "proc-opts") else "it is not known to keep the container's isolation"


WEAKENING: dict[str, Callable[[str], str | None]] = {
    "privileged": _when_on("a privileged container can undo every rule of the firewall"),
    "pod": _never("a pod's network namespace belongs to its first container, not to this one"),
    "pod-id-file": _never("a pod's network namespace belongs to its first container, not to this one"),
    "security-opt": _security_opt,
    "pid": _no_host("the container would see and could trace processes outside of it"),
    "ipc": _no_host("the container would share memory with processes outside of it"),
    "uidmap": _never("it changes the user namespace, as --userns does"),
    "gidmap": _never("it changes the user namespace, as --userns does"),
    "subuidname": _never("it changes the user namespace, as --userns does"),
    "subgidname": _never("it changes the user namespace, as --userns does"),
    "env-host": _when_on("it would copy the host's environment, with whatever secrets stand there, into the container"),
    "remote": _when_on("a remote podman does not run this host's hooks"),
    "url": _never("a remote podman does not run this host's hooks"),
    "connection": _never("a remote podman does not run this host's hooks"),
    "runtime": _never("another OCI runtime, or a wrapper of one, need not run the hooks"),
    "module": _never("a containers.conf module can replace the hook directories"),
    "config": _never("another configuration can lack the hook directories"),
}
"""Flags that weaken the sandbox: each returns why a value is refused, or None."""


def reject_managed_flags(podman_args: Sequence[str]) -> None:
    """Refuse the user's podman words when they hold a flag that terok manages, or one that weakens the sandbox.

    Args:
        podman_args: the words after `--`: podman's flags, the image, its command (which may hold anything).

    Raises:
        TerokError: REFUSED, naming the flag and the reason; USAGE for a flag that podman's parser could read
            in two ways.
    """
    _refuse_flags(parse(podman_args))


def refuse(words: Words, layout: Layout, *, allow_engine_socket: bool = False) -> None:
    """Refuse podman words that hold a managed or weakening flag, or a mount over terok's own or of its directories.

    Args:
        words: podman's flags, the image, its command.
        layout: terok's own directories.
        allow_engine_socket: the operator wants the container to control a container engine of the host.

    Raises:
        TerokError: REFUSED, naming the flag and the reason.
    """
    _refuse_flags(words)
    _refuse_targets(words, MANAGED_TARGETS)
    _refuse_sources(words, layout)
    if not allow_engine_socket:
        _refuse_engines(words)


def _refuse_flags(words: Words) -> None:
    for flag in words.flags:
        if f"--{flag.name}" in SANDBOX_MANAGED_FLAGS:
            raise _refusal(flag, f"terok manages it: {_WHY_MANAGED[flag.name]}")
        check = WEAKENING.get(flag.name)
        reason = check(flag.value) if check else None
        if reason:
            raise _refusal(flag, reason)


def _refusal(flag: Flag, reason: str) -> TerokError:
    return TerokError(
        f"podman's {flag.written} is not allowed: {reason}.", fix=f"remove {flag.written}", code=Exit.REFUSED
    )


def reject_managed_volumes(podman_args: Sequence[str], *, also: Iterable[str] = ()) -> None:
    """Refuse a -v, --volume, --mount, --tmpfs or --secret whose target overlaps a mount of terok.

    Args:
        podman_args: the words after `--`.
        also: further managed targets (an agent's configuration files).

    Raises:
        TerokError: REFUSED, naming the flag and both paths.
    """
    _refuse_targets(parse(podman_args), [*MANAGED_TARGETS, *also])


def _refuse_targets(words: Words, managed: Iterable[str]) -> None:
    for flag, target in targets(words):
        for ours in managed:
            if overlaps(target, ours):
                raise _refusal(flag, f"its target {target} overlaps {ours}, which terok mounts")


def _refuse_sources(words: Words, layout: Layout) -> None:
    """A mount's source on the host may not hold, or lie in, terok's own directories (credentials, sockets)."""
    private = [os.path.realpath(directory) for directory in (layout.data, layout.runtime, layout.config)]
    for flag, source in sources(words):
        real = os.path.realpath(source)
        for ours in private:
            if _contains(real, ours) or _contains(ours, real):
                raise _refusal(flag, f"its source {source} would show {ours} to the container")


def _refuse_engines(words: Words) -> None:
    """A container that reaches an engine's socket starts containers outside of every rule, as the operator or root."""
    for flag, source in sources(words):
        real = os.path.realpath(source)
        for socket in engine_sockets(outer_uid()):
            if _contains(real, socket) or _contains(os.path.dirname(socket), real):
                raise TerokError(
                    f"podman's {flag.written} is not allowed: {source} would show {socket} to the container, which "
                    "could start containers outside of terok with it.",
                    fix="remove it, or use --allow-engine-socket",
                    code=Exit.REFUSED,
                )


def engine_sockets(uid: int) -> list[str]:
    """Where container engines listen, as paths without symbolic links."""
    own = f"/run/user/{uid}"
    places = ["/run/podman/podman.sock", "/run/docker.sock", "/run/docker/docker.sock", "/run/crio/crio.sock"]
    places += ["/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock", "/run/buildkit/buildkitd.sock"]
    places += [f"{own}/podman/podman.sock", f"{own}/docker.sock", f"{own}/docker/docker.sock"]
    return [os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) for path in places]


def targets(words: Words) -> Iterator[tuple[Flag, str]]:
    """Each mount's target in the container, with its flag."""
    for flag in words.flags:
        if flag.name == "volume":
            parts = flag.value.split(":")
            yield flag, parts[1] if len(parts) > 1 else parts[0]
        elif flag.name == "tmpfs":
            yield flag, flag.value.partition(":")[0]
        elif flag.name in ("mount", "secret"):
            for name, value in _pairs(flag.value):
                if name in ("target", "dst", "destination") and (flag.name == "mount" or value.startswith("/")):
                    yield flag, value


def sources(words: Words) -> Iterator[tuple[Flag, str]]:
    """Each mount's source that is a path on the host, with its flag."""
    for flag in words.flags:
        if flag.name == "volume":
            first, colon, _ = flag.value.partition(":")
            if colon and first[:1] in ("/", "."):
                yield flag, first
        elif flag.name == "mount":
            for name, value in _pairs(flag.value):
                if name in ("source", "src") and value[:1] in ("/", "."):
                    yield flag, value


def _pairs(text: str) -> list[tuple[str, str]]:
    """The comma-separated NAME=VALUE list of --mount, which podman reads as a line of CSV."""
    import csv

    fields = next(csv.reader([text]), [])
    return [(name.strip().lower(), value) for name, _, value in (field.partition("=") for field in fields)]


def overlaps(one: str, other: str) -> bool:
    """Whether two paths in a container are the same, or one lies in the other."""
    one, other = normal(one), normal(other)
    return _contains(one, other) or _contains(other, one)


def normal(path: str) -> str:
    """A container path without `.`, `..`, `//`, magic links of /proc, and links that most images have."""
    path = posixpath.normpath("/" + path.strip().lstrip("/"))
    parts = path.split("/")
    # /proc/self/root, /proc/PID/root, /proc/thread-self/root: the root again
    if len(parts) > 3 and parts[1] == "proc" and "root" in parts[3:6]:
        return normal("/" + "/".join(parts[parts.index("root", 3) + 1 :]))
    for link, leads in _LINKS.items():
        if _contains(link, path):
            return normal(leads + path[len(link) :])
    return path


def _contains(outer: str, inner: str) -> bool:
    return outer == "/" or inner == outer or inner.startswith(outer + "/")
