"""What the container must see, mounted into its mount namespace before pivot_root.

The image is hostile: /run, /run/terok and /etc/resolv.conf may be links to anywhere. Every step is resolved inside
the container's root (openat2, RESOLVE_IN_ROOT), missing directories are made through descriptors, and the mount is
attached to the descriptor itself, so no path is looked up twice.
"""

from __future__ import annotations

import os
import stat

from ..ground import kernel, process, within
from ..ground.errors import TerokError
from ..ground.log import mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..schema import Mount
    from .container import Container
    from .trust import Trust

_TIMEOUT = 5.0
_O_PATH = getattr(os, "O_PATH", 0o10000000)


def begin(
    container: Container,
    mounts: Sequence[Mount],
    *,
    running: bool = False,
    shared: bool = False,
    trust: Trust | None = None,
) -> within.Call:
    """Start the child that binds each mount's source onto its target in the container.

    At createRuntime the old root is still visible in the container's mount namespace, so the sources need no
    other way in. A container that runs has left it behind (pivot_root(2)): there the sources are taken along as
    detached mounts (open_tree(2)), and only what is missing is mounted.

    Args:
        running: the container runs already.
        shared: the sources belong to another container, which keeps their owner.
        trust: the certificates that the container trusts are mounted too.

    Returns:
        The child, whose `finish` raises TerokError with the target and the kernel's reason; the container must not
        start then.
    """

    if trust is not None:
        from . import trust as certificates  # most containers need none
    if running:
        if trust is not None:
            certificates.restore(trust)
        return _begin_again(container, mounts)

    def body() -> tuple[bytes, list[int]]:
        mark("mounts: entered")
        os.umask(0o022)  # directories that are made on the way must be open to every user of the container
        root = os.open(container.root, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for mount in mounts:
            try:
                _attach_one(root, mount, container, shared=shared)
            except OSError as error:
                raise TerokError(
                    f"Could not mount {mount.source} at {mount.target} in the container: {error}"
                ) from error
            mark(f"mounts: {mount.target}")
        if trust is not None:
            certificates.install(root, trust, container)
            mark("mounts: certificates")
        return b"", []

    return within.begin(process.Namespaces(mount=container.mount), body, timeout=_TIMEOUT)


def _begin_again(container: Container, mounts: Sequence[Mount]) -> within.Call:
    trees: list[tuple[Mount, int, os.stat_result]] = []
    try:
        for mount in mounts:
            trees.append((mount, kernel.clone_mount(mount.source, read_only=mount.read_only), os.stat(mount.source)))

        def body() -> tuple[bytes, list[int]]:
            os.umask(0o022)
            root = os.open("/", _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for mount, tree, source in trees:
                try:
                    _attach_again(root, mount, container, tree, source)
                except OSError as error:
                    raise TerokError(f"Could not mount {mount.source} at {mount.target} again: {error}") from error
            return b"", []

        return within.begin(process.Namespaces(mount=container.mount), body, timeout=_TIMEOUT)
    except OSError as error:
        raise TerokError(f"What the container must see cannot be mounted again: {error}") from error
    finally:
        for _, tree, _ in trees:
            os.close(tree)


def _attach_again(root: int, mount: Mount, container: Container, tree: int, source: os.stat_result) -> None:
    """Mount it unless the container sees the very source there; a removed directory gives way first.

    On such a directory nothing can be mounted (move_mount(2): ENOENT). It has no link left and lies on the source's
    file system; no other mount is taken away, since the running container decides what is found at a path.
    """
    path = container.home + mount.target[1:] if mount.target.startswith("~/") else mount.target
    is_directory = stat.S_ISDIR(source.st_mode)
    target = _open_target(root, path, directory=is_directory, owner=None)
    there = os.fstat(target)
    if (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino):
        os.close(target)
        return
    if is_directory and there.st_nlink == 0 and there.st_dev == source.st_dev:
        os.fchdir(target)
        os.close(target)
        kernel.unmount_here()
        os.chdir("/")
        target = _open_target(root, path, directory=True, owner=None)
    kernel.attach_mount(tree, target)
    os.close(target)


def _attach_one(root: int, mount: Mount, container: Container, *, shared: bool) -> None:
    path, owner = mount.target, None
    if path.startswith("~/"):
        path, owner = container.home + path[1:], container.owner
        if not shared:
            os.chown(mount.source, *owner)
    target = _open_target(root, path, directory=os.path.isdir(mount.source), owner=owner)
    if owner and not mount.read_only and os.fstat(target).st_size and not os.path.isdir(mount.source):
        os.close(target)
        return
    tree = kernel.clone_mount(mount.source, read_only=mount.read_only)
    kernel.attach_mount(tree, target)
    os.close(tree)
    os.close(target)


def _open_target(root: int, path: str, *, directory: bool, owner: tuple[int, int] | None) -> int:
    """An O_PATH descriptor of `path` inside `root`, made (for `owner`, if given) when it is missing."""
    parts = [part for part in path.split("/") if part]
    for depth in range(1, len(parts)):
        _ensure(root, "/".join(parts[:depth]), directory=True, owner=owner)
    _ensure(root, "/".join(parts), directory=directory, owner=owner)
    flags = _O_PATH | (os.O_DIRECTORY if directory else 0)
    return kernel.openat2(root, "/".join(parts), flags, resolve=kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS)


def _ensure(root: int, path: str, *, directory: bool, owner: tuple[int, int] | None) -> None:
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
        else:
            # O_EXCL does not follow a dangling link that stands at the name
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
        if owner:
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)
