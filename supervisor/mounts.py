"""What the container must see, mounted into its mount namespace before pivot_root.

The image is hostile: /run, /run/terok and /etc/resolv.conf may be links to anywhere. Every step is resolved inside
the container's root (openat2, RESOLVE_IN_ROOT), missing directories are made through descriptors, and the mount is
attached to the descriptor itself, so no path is looked up twice.
"""

from __future__ import annotations

import os

from . import kernel, process
from .errors import TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .container import Container
    from .schema import Mount

_TIMEOUT = 5.0
_O_PATH = getattr(os, "O_PATH", 0o10000000)


def attach(container: Container, mounts: Sequence[Mount]) -> None:
    """Bind each mount's source onto its target in the container.

    At createRuntime the old root is still visible in the container's mount namespace, so the sources need no
    other way in.

    Raises:
        TerokError: with the target and the kernel's reason; the container must not start then.
    """
    if not mounts:
        return

    def body() -> tuple[bytes, list[int]]:
        root = os.open(container.root, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for mount in mounts:
            try:
                _attach_one(root, mount)
            except OSError as error:
                raise TerokError(
                    f"Could not mount {mount.source} at {mount.target} in the container: {error}"
                ) from error
        return b"", []

    process.call_in(process.Namespaces(mount=container.mount), body, timeout=_TIMEOUT)


def _attach_one(root: int, mount: Mount) -> None:
    tree = kernel.clone_mount(mount.source, read_only=mount.read_only)
    target = _open_target(root, mount.target, directory=os.path.isdir(mount.source))
    kernel.attach_mount(tree, target)
    os.close(tree)
    os.close(target)


def _open_target(root: int, path: str, *, directory: bool) -> int:
    """An O_PATH descriptor of `path` inside `root`, made when it is missing."""
    parts = [part for part in path.split("/") if part]
    for depth in range(1, len(parts)):
        _ensure(root, "/".join(parts[:depth]), directory=True)
    _ensure(root, "/".join(parts), directory=directory)
    flags = _O_PATH | (os.O_DIRECTORY if directory else 0)
    return kernel.openat2(root, "/".join(parts), flags, resolve=kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS)


def _ensure(root: int, path: str, *, directory: bool) -> None:
    inside = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
    try:
        os.close(kernel.openat2(root, path, _O_PATH, resolve=inside))
        return
    except FileNotFoundError:
        pass
    above, _, name = path.rpartition("/")
    parent = kernel.openat2(root, above or ".", _O_PATH | os.O_DIRECTORY, resolve=inside)
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
            return
        # O_EXCL does not follow a dangling link that stands at the name
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
    finally:
        os.close(parent)
