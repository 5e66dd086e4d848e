"""SELinux as the hook meets it: which label a listening Unix socket gets, and which one a mounted file.

The kernel checks a connection to a Unix socket against the label of the listening socket itself, not against the
file that stands for it (security/selinux/hooks.c, selinux_socket_unix_stream_connect). A socket that carries the
container's own process label is therefore open to that container and to no other, under the policy that every
SELinux host has already. Where the kernel does not let this process make such a socket, the type of the policy
module `selinux/terok_socket.te` takes its place, if an administrator has loaded it.

A host without SELinux pays one look at a path.
"""

from __future__ import annotations

import errno
import os
import stat

from ..ground import kernel, paste, sockets
from ..ground.errors import TerokError
from ..ground.layout import policy_installer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..schema import Wiring

FS = "/sys/fs/selinux"
SOCKET_TYPE = "terok_socket_t"
SOCKET_LABEL = f"system_u:object_r:{SOCKET_TYPE}:s0"
"""What the policy module allows containers to connect to."""

_DEPTH_MAX = 16


def enabled(fs: str = FS) -> bool:
    """True when the kernel enforces or only logs an SELinux policy; the kernel makes the directory then."""
    return os.path.exists(f"{fs}/enforce")


def known(context: str, fs: str = FS) -> bool:
    """True when the loaded policy knows the context; any user may ask (selinuxfs, `context`)."""
    try:
        fd = os.open(f"{fs}/context", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, context.encode() + b"\0")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def listen_unix(label: str, paths: Sequence[str], *, spare: bool = False) -> list[int]:
    """Listening Unix sockets at `paths` that the container with the process label `label` may connect to.

    Args:
        label: the container's own; "" for a container that SELinux does not confine.
        paths: where; what stands there is replaced.
        spare: the services can be reached over TCP too: a container that may use no socket starts all the same.

    Raises:
        TerokError: neither the container's label nor the policy module's may be used; names the other ways.
        OSError: anything else that keeps a socket from listening.
    """
    if not label or not paths:
        return _listen_all(paths)
    try:
        return _listen_as(label, paths)
    except PermissionError as refused:
        if known(SOCKET_LABEL):
            try:
                opened = _listen_as(SOCKET_LABEL, paths)
            except PermissionError:
                pass
            else:
                os.write(2, f"supervisor: SELinux refused sockets labelled {label}; they are {SOCKET_TYPE}\n".encode())
                return opened
        if spare:
            os.write(2, b"supervisor: SELinux lets the container use no socket; its services are reached over TCP\n")
            return _listen_all(paths)
        raise TerokError(
            f"SELinux does not let {current()} create sockets with the container's label {label}.",
            fix=f"install the policy module once: sudo bash {paste.quoted(policy_installer())}; "
            "or set `services: {mode: tcp}` in config.yml and prepare the container again",
        ) from refused


def current() -> str:
    """The label of this process; "this session" when it cannot be told."""
    try:
        with open("/proc/thread-self/attr/current", encoding="ascii") as file:
            return file.read().strip("\0\n") or "this session"
    except OSError:
        return "this session"


def _listen_as(label: str, paths: Sequence[str]) -> list[int]:
    """Listen with `label` on the sockets; this thread creates unlabelled ones again afterwards, whatever happens."""
    kernel.set_socket_label(label)
    try:
        return _listen_all(paths)
    finally:
        kernel.set_socket_label("")


def _listen_all(paths: Sequence[str]) -> list[int]:
    opened: list[int] = []
    try:
        for path in paths:
            opened.append(sockets.listen_unix(path))
    except OSError:
        for fd in opened:
            os.close(fd)
        raise
    return opened


def own_files(wiring: Wiring) -> list[str]:
    """What the container will see of terok: its runtime directory, and its mounts' sources in it or in the bundle.

    Nothing else, whatever the wiring says: with another label, a file of the operator's would be open to the
    container under every other mount too.
    """
    mine = (f"{wiring.runtime_dir}/", f"{wiring.bundle.root}/")
    return [wiring.runtime_dir, *(mount.source for mount in wiring.mounts if mount.source.startswith(mine))]


def relabel(label: str, paths: Sequence[str]) -> None:
    """Give `paths`, and what lies below them, the file label `label`, as podman's `:Z` does; links are not followed.

    A file system that keeps no labels (NFS, for one) is left as it is: its mount decides for all files alike.

    Raises:
        TerokError: the policy does not let this process give files that label.
    """
    for path in paths if label else ():
        try:
            _relabel(label.encode() + b"\0", path, _DEPTH_MAX)
        except OSError as error:
            raise TerokError(
                f"{path} cannot get the label {label}, without which the container may not read it: {error.strerror}.",
                fix="start containers from a login or service that SELinux does not confine (id -Z shows which it is)",
            ) from error


def _relabel(label: bytes, path: str, depth: int) -> None:
    # by descriptor: what is below terok's directory may not be swapped for a link in between
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            return
        here = f"/proc/self/fd/{fd}"
        try:
            os.setxattr(here, "security.selinux", label)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
        if stat.S_ISDIR(mode) and depth:
            for name in os.listdir(here):
                _relabel(label, f"{here}/{name}", depth - 1)
    finally:
        os.close(fd)
