"""The only module that calls C: constants, one thin wrapper a system call, then small operations.

It uses what the package ctypes is made of, since that package alone costs every hook 2 ms.
Every wrapper raises OSError with the errno of the kernel. System call numbers below 424 differ between
architectures, so those calls go through libc's own symbols; the newer ones share one number everywhere.
"""

from __future__ import annotations

import os
import struct
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, RTLD_LOCAL, Array, CFuncPtr, _SimpleCData, dlopen, get_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000

_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_OPENAT2, _SYS_MOUNT_SETATTR = 428, 429, 437, 442
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446

OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_FDCWD = 0x1000, 0x100, -100
_STATX_INO, _STATX_BTIME = 0x100, 0x800
_MNT_DETACH = 2
_IN_DELETE_SELF = 0x400
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 24, 38
_PR_SET_CHILD_SUBREAPER = 36
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAP = 63
CAP_SETGID, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN = 6, 10, 12


class _Int(_SimpleCData):  # type: ignore[type-arg]  # generic for type checkers alone
    _type_ = "i"


class _Long(_SimpleCData):  # type: ignore[type-arg]  # as above
    _type_ = "l"


class _Unsigned(_SimpleCData):  # type: ignore[type-arg]  # as above
    """unsigned long, which size_t is too, wherever Linux runs."""

    _type_ = "L"


class _Address(_SimpleCData):  # type: ignore[type-arg]  # as above
    _type_ = "P"


class _Text(_SimpleCData):  # type: ignore[type-arg]  # as above
    _type_ = "z"


class _Byte(_SimpleCData):  # type: ignore[type-arg]  # as above
    _type_ = "B"


class _Statx(Array):  # type: ignore[type-arg]  # as above
    """struct statx, which the kernel fills."""

    _type_, _length_ = _Byte, 256


class _Function(CFuncPtr):
    """A C function that returns an int; errno is kept for `get_errno`."""

    _flags_, _restype_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO, _Int


class _Library:
    """A shared library, whose functions are its attributes; raises OSError when it cannot be loaded."""

    def __init__(self, name: str | None) -> None:
        self._handle = dlopen(name, RTLD_LOCAL)  # type: ignore[arg-type]  # None: what the interpreter is linked with

    def __getattr__(self, name: str) -> _Function:
        function = _Function((name, self))  # type: ignore[arg-type]  # it looks at the attribute _handle
        setattr(self, name, function)
        return function


_libc = _Library(None)
_libc.syscall.restype = _Long


def _check(result: int, what: str) -> int:
    if result < 0:
        number = get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(result)


def _syscall(number: int, *args: object) -> int:
    return int(_libc.syscall(_Long(number), *args))


# --- files -----------------------------------------------------------------------------------------------


def watch_deletion(path: str) -> int:
    """A descriptor that becomes readable when the file or directory is deleted (inotify(7), IN_DELETE_SELF)."""
    fd = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
    try:
        _check(_libc.inotify_add_watch(fd, os.fsencode(path), _IN_DELETE_SELF), f"watch {path}")
    except OSError:
        os.close(fd)
        raise
    return fd


def origin(path: str) -> tuple[int, int]:
    """The inode of a file or directory, and its birth time in nanoseconds; 0 where the file system keeps none.

    Two that had the same path one after the other differ in it, even when the second got the inode of the first
    (statx(2), STATX_BTIME). A symbolic link is not followed.
    """
    buffer = _Statx()
    mask = _STATX_INO | _STATX_BTIME
    _check(_libc.statx(AT_FDCWD, os.fsencode(path), AT_SYMLINK_NOFOLLOW, mask, buffer), f"statx {path}")
    told, inode, seconds, nanoseconds = struct.unpack_from("=I28xQ40xqI", bytes(buffer))
    return inode, seconds * 10**9 + nanoseconds if told & _STATX_BTIME else 0


# --- namespaces and mounts -------------------------------------------------------------------------------


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `fd` (setns(2)); `kind` is a CLONE_NEW* constant."""
    _check(_libc.setns(fd, kind), "setns")


def unshare(kinds: int) -> None:
    """Leave the given namespaces for new ones (unshare(2))."""
    _check(_libc.unshare(kinds), "unshare")


def openat2(directory: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` below the directory descriptor under `resolve` restrictions (openat2(2)); returns a descriptor."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _check(_syscall(_SYS_OPENAT2, directory, os.fsencode(path), how, _Unsigned(len(how))), f"open {path}")


def clone_mount(path: str, *, read_only: bool) -> int:
    """A detached copy of what is mounted at `path` (open_tree(2)), nosuid, nodev, noexec; returns a descriptor.

    The attributes are set while nothing can reach the mount yet (mount_setattr(2)), so there is no moment in
    which it is writable.
    """
    tree = _check(
        _syscall(_SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC),
        f"open_tree {path}",
    )
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | (MOUNT_ATTR_RDONLY if read_only else 0)
    settings = struct.pack("QQQQ", attributes, 0, 0, 0)
    try:
        result = _syscall(_SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, settings, _Unsigned(len(settings)))
        _check(result, f"mount_setattr {path}")
    except OSError:
        os.close(tree)
        raise
    return tree


def attach_mount(tree: int, target: int) -> None:
    """Attach a detached mount onto the file or directory behind the descriptor `target` (move_mount(2))."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _check(_syscall(_SYS_MOVE_MOUNT, tree, b"", target, b"", flags), "move_mount")


def unmount_here() -> None:
    """Take away the mount whose root is the current directory, now or when it is no longer used (umount2(2)).

    By the directory and not by a path: in a container's mount namespace every path is the container's to change.
    """
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")


# --- the calling process ---------------------------------------------------------------------------------


def _prctl(option: int, argument: int, what: str) -> None:
    zero = _Unsigned(0)
    _check(_libc.prctl(option, _Unsigned(argument), zero, zero, zero), what)


def die_with_parent(parent: int, signal_number: int) -> None:
    """Ask for `signal_number` when the parent ends (PR_SET_PDEATHSIG, prctl(2)).

    The request is void when the parent has ended before it: `parent` is compared afterwards.

    Raises:
        ProcessLookupError: the parent has ended already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal_number, "PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        raise ProcessLookupError(f"parent {parent} has ended")


def adopt_orphans() -> None:
    """From now on descendants whose parents end become children of this process (PR_SET_CHILD_SUBREAPER)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER")


def set_name(name: str) -> None:
    """What `ps -o comm` shows for this process; the kernel keeps 15 bytes (PR_SET_NAME)."""
    _check(_libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0), "PR_SET_NAME")


def forbid_new_privileges() -> None:
    """No exec of this process or its children gains privileges (PR_SET_NO_NEW_PRIVS)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS")


def forbid_dumps() -> None:
    """No core dump, and no ptrace by others of the same uid (PR_SET_DUMPABLE)."""
    _prctl(_PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE")


def drop_capabilities() -> None:
    """Give up every capability of this process, for good (capabilities(7))."""
    for capability in range(_LAST_CAP + 1):
        try:
            _prctl(_PR_CAPBSET_DROP, capability, "PR_CAPBSET_DROP")
        except OSError:
            break  # past the last capability of this kernel (EINVAL), or not ours to drop (EPERM)
    header, data = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    _check(_libc.capset(header, data), "capset")


def keep_capabilities(*kept: int) -> None:
    """Give up every capability but `kept`, here and in what is executed from here as uid 0 (capabilities(7))."""
    mask = sum(1 << number for number in kept)
    for capability in range(_LAST_CAP + 1):
        if capability in kept:
            continue
        try:
            _prctl(_PR_CAPBSET_DROP, capability, "PR_CAPBSET_DROP")
        except OSError:
            break  # past the last capability of this kernel
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header, data = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), struct.pack("6I", low, low, low, high, high, high)
    _check(_libc.capset(header, data), "capset")


# --- Landlock (landlock(7)) ------------------------------------------------------------------------------

_FS_EXECUTE, _FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FS_ALL_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_FS_FILE_RIGHTS = _FS_EXECUTE | _FS_WRITE_FILE | _FS_READ_FILE | 1 << 14 | 1 << 15  # the rights that a file can carry
_NET_BIND_TCP, _NET_CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2
_RULE_PATH, _RULE_PORT = 1, 2


def landlock_abi() -> int:
    """The Landlock ABI version of this kernel; 0 when there is none."""
    return max(0, _syscall(_SYS_LANDLOCK_CREATE, None, _Unsigned(0), 1))


def landlock(
    *,
    read: Iterable[str] = (),
    write: Iterable[str] = (),
    execute: Iterable[str] = (),
    connect_ports: Iterable[int] | None = None,
    bind: bool = False,
) -> int:
    """Confine the calling thread to the given paths and TCP ports, for good. Call it before any thread starts.

    Args:
        read: files and directories (whole trees) that stay readable; missing ones are passed over.
        write: the same, readable and writable: files may be created, renamed and removed below directories.
        execute: trees from which programs may be executed and read.
        connect_ports: TCP ports that may be connected to; None leaves connecting free.
        bind: TCP ports may be bound; otherwise binding is refused.

    Returns:
        The ABI that was used; 0 means that the kernel has no Landlock and nothing was confined.
        ABI < 4 does not restrict TCP.
    """
    abi = landlock_abi()
    if abi == 0:
        return 0
    # A right that a ruleset handles is denied everywhere except where a rule grants it, and a kernel refuses rights
    # that it does not know (EINVAL). So every right of this kernel's ABI is handled, and no other (landlock(7)).
    handled = next(_FS_ALL_ABI[level] for level in (5, 3, 2, 1) if abi >= level)
    net = (0 if bind else _NET_BIND_TCP) | (0 if connect_ports is None else _NET_CONNECT_TCP) if abi >= 4 else 0
    scoped = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if abi >= 6 else 0
    attributes = struct.pack("QQQ", handled, net, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _check(
        _syscall(_SYS_LANDLOCK_CREATE, attributes, _Unsigned(len(attributes)), 0), "landlock_create_ruleset"
    )
    reading = _FS_READ_FILE | _FS_READ_DIR
    writing = handled & ~_FS_EXECUTE
    grants = (
        [(p, reading) for p in read] + [(p, writing) for p in write] + [(p, reading | _FS_EXECUTE) for p in execute]
    )
    try:
        for path, rights in grants:
            _landlock_path(ruleset, path, rights & handled)
        for port in connect_ports or () if net & _NET_CONNECT_TCP else ():
            rule = struct.pack("QQ", _NET_CONNECT_TCP, port)
            _check(_syscall(_SYS_LANDLOCK_ADD, ruleset, _RULE_PORT, rule, 0), "landlock_add_rule")
        forbid_new_privileges()
        _check(_syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return abi


def _landlock_path(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{fd}"):
            rights &= _FS_FILE_RIGHTS
        rule = struct.pack("=Qi", rights, fd)
        _check(_syscall(_SYS_LANDLOCK_ADD, ruleset, _RULE_PATH, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(fd)


# --- nftables --------------------------------------------------------------------------------------------


class Nftables:
    """libnftables(3) in this process, for the network namespace of the calling thread.

    The library is what the program nft is made of. Loading it takes a tenth of the time of starting that program, and
    no child has to be forked.

    Raises:
        OSError: there is no such library, or it has no memory.
    """

    _NAME, _JSON = "libnftables.so.1", 1 << 4

    def __init__(self) -> None:
        self._library = _Library(self._NAME)
        self._library.nft_ctx_new.restype = _Address
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._library, name).restype = _Text
        self._context = _Address(self._library.nft_ctx_new(0))
        buffers = (self._library.nft_ctx_buffer_output, self._library.nft_ctx_buffer_error)
        if not self._context or any(buffer(self._context) for buffer in buffers):
            raise OSError(f"{self._NAME} cannot be used")

    def run(self, commands: bytes, *, json: bool) -> tuple[bool, bytes, bytes]:
        """Carry out one transaction; returns whether it worked, what it printed, and what it complained about."""
        self._library.nft_ctx_output_set_flags(self._context, self._JSON if json else 0)
        code = self._library.nft_run_cmd_from_buffer(self._context, commands)
        output = self._library.nft_ctx_get_output_buffer(self._context)
        return code == 0, output or b"", self._library.nft_ctx_get_error_buffer(self._context) or b""


# --- SELinux ---------------------------------------------------------------------------------------------


def set_socket_label(label: str) -> None:
    """Give every socket that this thread creates from now on the SELinux `label`; "" goes back to the default.

    The kernel keeps it per thread (/proc/thread-self/attr/sockcreate, selinux(8)).
    """
    fd = os.open("/proc/thread-self/attr/sockcreate", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, label.encode())
    finally:
        os.close(fd)
