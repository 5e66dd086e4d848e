"""The container trusts its own authority: the image's bundle plus its certificate, mounted where clients look.

Rules of this file:
- the image is hostile: each path is resolved inside its root, only a regular file of bounded size is read, and what is
  in it is copied as bytes and never understood here;
- nothing of the image changes, but for empty files that mounts need (mount(2)), in directories that exist;
- a place that cannot be served is left as it is: a client that looks there fails with its own certificate error.
"""

from __future__ import annotations

import os
import stat

from ..ground import kernel, layout
from ..ground.errors import TerokError
from ..ground.log import say
from . import selinux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ground.layout import Bundle
    from .container import Container

BUNDLE_MAX = 4 << 20
"""Bytes of one bundle; Debian's has 220 KiB. Each is read at every start and held in the runtime directory."""

BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, Gentoo
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/tls/cert.pem",
    "etc/ssl/ca-bundle.pem",  # SUSE
    "var/lib/ca-certificates/ca-bundle.pem",
    "etc/ssl/cert.pem",  # Alpine, and OpenSSL built with --openssldir=/etc/ssl
    "usr/lib/ssl/cert.pem",  # OpenSSL of Debian
    "usr/local/ssl/cert.pem",  # OpenSSL as its own makefile installs it
)
"""Where distributions keep all certificates in one file, the most usual first."""

OPENSSL = ("usr/lib/ssl", "usr/local/ssl")
"""Directories of OpenSSL: it looks for `cert.pem` there, which mostly does not exist, and for hashed names."""

ANCHORS = (
    "usr/local/share/ca-certificates",  # Debian, Ubuntu, Alpine: update-ca-certificates(8)
    "etc/pki/ca-trust/source/anchors",  # Fedora, RHEL: update-ca-trust(8)
    "etc/pki/trust/anchors",  # SUSE
)
"""Where an operator puts certificates, for programs that write the bundle anew from all of them."""
_ANCHOR = "terok.crt"

CHROMIUM = {
    "etc/chromium/policies/managed": (
        "etc/chromium",
        "usr/lib/chromium",
        "usr/lib/chromium-browser",
        "usr/lib64/chromium-browser",
        "ms-playwright",
    ),
    "etc/opt/chrome/policies/managed": ("opt/google/chrome",),
}
"""Where Chromium and Chrome look for policies, and the directories of an image that has them."""
_CHROMIUM_POLICY = "terok.json"
FIREFOX = "etc/firefox/policies"
FIREFOX_SIGNS = ("etc/firefox", "etc/firefox-esr", "usr/lib/firefox", "usr/lib/firefox-esr", "usr/lib64/firefox")
_FIREFOX_POLICY = "policies.json"
FIREFOX_TRUST = (
    f'{{"policies": {{"Certificates": {{"Install": ["{layout.IN_CONTAINER}/{layout.AUTHORITY_FILE}"]}}}}}}\n'
)
"""Firefox reads one file of policies: one of the image's own is left as it is."""
_O_PATH = getattr(os, "O_PATH", 0o10000000)
_INSIDE = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
_IMAGE = _INSIDE | kernel.RESOLVE_NO_XDEV
"""Where files are made: never in a volume, which is a directory of the host's."""


class Trust:
    """Where the files come from and go to.

    Args:
        bundle: the state bundle of the container that has the authority.
        runtime_dir: its runtime directory, which containers see as /run/terok.
        prefix: of the files for one container; one that joins another's network has its own image.
    """

    def __init__(self, bundle: Bundle, runtime_dir: str, prefix: str = "") -> None:
        self.bundle, self.runtime_dir, self.prefix = bundle, runtime_dir, prefix

    def file(self, name: str) -> str:
        """Path of one of the files on the host."""
        return os.path.join(self.runtime_dir, self.prefix + name)


def install(root: int, trust: Trust, container: Container) -> None:
    """Write the files and mount them over the container's places; in its mount namespace, before pivot_root.

    Args:
        root: an O_PATH descriptor of the container's root.

    Raises:
        TerokError: the authority's certificate is missing, or the runtime directory cannot be written.
    """
    try:
        ours = _read_host(trust.bundle.authority)
        _write(trust, container, layout.AUTHORITY_FILE, ours)
        if os.path.exists(trust.bundle.java_trust):
            _write(trust, container, layout.JAVA_TRUST_FILE, _read_host(trust.bundle.java_trust))
        places = _of_image(root)
        content = next(iter(places.values())) if places else host_bundle()
        everything = _write(trust, container, layout.CA_FILE, _joined(content, ours))
        # Images often have one bundle at several places, as links or copies: each content is written once.
        sources = {content: everything}
        for number, other in enumerate(dict.fromkeys(places.values())):
            if other not in sources:
                sources[other] = _write(trust, container, f"ca-{number}.pem", _joined(other, ours))
        for place, other in places.items():
            _mount(root, sources[other], place)
        for directory in OPENSSL:
            if f"{directory}/cert.pem" not in places and _is_directory(root, directory):
                _mount_new(root, everything, directory, "cert.pem")
        for directory in ANCHORS:
            if _is_directory(root, directory) or (directory == ANCHORS[0] and _make(root, directory)):
                _mount_new(root, trust.file(layout.AUTHORITY_FILE), directory, _ANCHOR)
        _into_browsers(root, trust, container)
    except OSError as error:
        raise TerokError(f"The certificates of the container's authority cannot be written: {error}.") from error


def restore(trust: Trust) -> None:
    """Put the files back into a runtime directory that was lost while its container runs; raises TerokError.

    Of the image's bundle nothing can be seen without ours mounted over it, so the host's takes its place.
    """
    try:
        if not os.path.exists(trust.file(layout.CA_FILE)):
            ours = _read_host(trust.bundle.authority)
            _put(trust.file(layout.AUTHORITY_FILE), ours)
            _put(trust.file(layout.CA_FILE), _joined(host_bundle(), ours))
            if os.path.exists(trust.bundle.java_trust):
                _put(trust.file(layout.JAVA_TRUST_FILE), _read_host(trust.bundle.java_trust))
    except OSError as error:
        raise TerokError(f"The certificates of the container's authority cannot be written: {error}.") from error


# --- reading ---------------------------------------------------------------------------------------------


def _of_image(root: int) -> dict[str, bytes]:
    """The image's bundles by their place, each file once: distributions link one to another."""
    places: dict[str, bytes] = {}
    seen: dict[tuple[int, int], bytes] = {}
    for place in BUNDLES:
        try:
            fd = kernel.openat2(root, place, _O_PATH, resolve=_INSIDE)
        except OSError:
            continue  # most images have one or two of them; what cannot be resolved is no bundle
        try:
            info = os.fstat(fd)
            file = (info.st_dev, info.st_ino)
            if file not in seen:
                seen[file] = _read(f"/proc/self/fd/{fd}") if _may_be_bundle(fd, info) else b""
            if seen[file]:
                places[place] = seen[file]
        except OSError as error:
            say(f"trust: /{place} of the image cannot be read, and is left as it is: {error.strerror}")
        finally:
            os.close(fd)
    return places


def _may_be_bundle(fd: int, info: os.stat_result) -> bool:
    """Whether an O_PATH descriptor stands for a stored file that every user may read.

    It has opened nothing yet: a FIFO would block, a device would act. What /proc and /sys show to this process, the
    container must not see; they store nothing and have no blocks (statvfs(3)).
    """
    return stat.S_ISREG(info.st_mode) and bool(info.st_mode & 0o004) and os.fstatvfs(fd).f_blocks > 0


def host_bundle() -> bytes:
    """The host's own bundle of certificates; empty without one.

    For an image that has none: without it, its clients could check no other server.
    """
    for place in BUNDLES:
        try:
            if content := _read(f"/{place}"):
                return content
        except OSError:
            continue
    return b""


def _read(path: str) -> bytes:
    """A file's content; raises OSError (EFBIG) for one that is too large."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        content = file.read(BUNDLE_MAX + 1)
    if len(content) > BUNDLE_MAX:
        raise OSError(27, f"larger than {BUNDLE_MAX >> 20} MiB")
    return content


def _read_host(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        return file.read()


def _joined(bundle: bytes, ours: bytes) -> bytes:
    return bundle + (b"" if bundle.endswith(b"\n") or not bundle else b"\n") + ours


# --- writing and mounting ----------------------------------------------------------------------------------


def _write(trust: Trust, container: Container, name: str, content: bytes) -> str:
    path = trust.file(name)
    _put(path, content)
    selinux.relabel(container.file_label, [path])
    return path


def _put(path: str, content: bytes) -> None:
    """At once under its name: the directory's labels are being set meanwhile, and no client reads it yet."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o644)
        file.write(content)


def _mount(root: int, source: str, place: str) -> None:
    try:
        target = kernel.openat2(root, place, _O_PATH, resolve=_INSIDE)
        try:
            if os.path.samestat(os.fstat(target), os.stat(source)):
                return  # a link to a place that has it already
            tree = kernel.clone_mount(source, read_only=True)
            kernel.attach_mount(tree, target)
            os.close(tree)
        finally:
            os.close(target)
    except OSError as error:
        say(f"trust: nothing can be mounted at /{place}: {error.strerror}")


def _mount_new(root: int, source: str, directory: str, name: str) -> None:
    """Mount at a name of a directory, where an empty file is made if there is none."""
    try:
        above = kernel.openat2(root, directory, _O_PATH | os.O_DIRECTORY, resolve=_IMAGE)
        try:
            # O_EXCL does not follow a link that stands at the name
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=above))
        except FileExistsError:
            pass
        finally:
            os.close(above)
    except OSError as error:
        say(f"trust: no file can be made at /{directory}/{name}: {error.strerror}")
        return
    _mount(root, source, f"{directory}/{name}")


def _into_browsers(root: int, trust: Trust, container: Container) -> None:
    """Browsers have a list of authorities of their own; a policy adds to it, whatever their user's home is."""
    stored = trust.bundle.chromium_policy  # an older version's bundle has none
    for directory, signs in CHROMIUM.items():
        if any(_is_directory(root, sign) for sign in signs) and os.path.exists(stored) and _make_all(root, directory):
            _mount_new(
                root, _write(trust, container, layout.CHROMIUM_FILE, _read_host(stored)), directory, _CHROMIUM_POLICY
            )
    if any(_is_directory(root, sign) for sign in FIREFOX_SIGNS) and _make_all(root, FIREFOX):
        if _has_content(root, f"{FIREFOX}/{_FIREFOX_POLICY}"):
            say(f"trust: /{FIREFOX}/{_FIREFOX_POLICY} is the image's own: Firefox does not trust the authority")
        else:
            policy = _write(trust, container, layout.FIREFOX_FILE, FIREFOX_TRUST.encode())
            _mount_new(root, policy, FIREFOX, _FIREFOX_POLICY)


def _has_content(root: int, path: str) -> bool:
    """Whether there is something at a path, but for an empty file, which an earlier start made for its mount."""
    try:
        fd = kernel.openat2(root, path, _O_PATH, resolve=_INSIDE)
    except OSError:
        return False
    try:
        info = os.fstat(fd)
        return not stat.S_ISREG(info.st_mode) or info.st_size > 0
    finally:
        os.close(fd)


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(kernel.openat2(root, path, _O_PATH | os.O_DIRECTORY, resolve=_IMAGE))
    except OSError:
        return False
    return True


def _make_all(root: int, path: str) -> bool:
    """Make a directory and those above it, as far as they are missing."""
    names = path.split("/")
    parts = ("/".join(names[: depth + 1]) for depth in range(len(names)))
    return all(_is_directory(root, part) or _make(root, part) for part in parts)


def _make(root: int, path: str) -> bool:
    """Make a directory; Debian's for local certificates exists only once its package is installed."""
    above, _, name = path.rpartition("/")
    try:
        parent = kernel.openat2(root, above, _O_PATH | os.O_DIRECTORY, resolve=_IMAGE)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        finally:
            os.close(parent)
    except OSError:
        return False
    return True
