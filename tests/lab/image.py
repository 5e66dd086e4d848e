"""A small image from this machine's own files: no registry is asked for anything.

busybox (static) with all its applets, and a few dynamic programs with the libraries that ldd names.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

PROGRAMS = ("curl", "git", "scp", "ssh", "ssh-add", "ssh-keygen")
SSHD_HELPERS = (Path("/usr/lib/openssh/sshd-session"), Path("/usr/lib/openssh/sshd-auth"))
GIT_HELPERS = ("git-remote-http", "git-remote-https")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwork:x:1000:1000:work:/home/work:/bin/sh\n",
    "etc/group": "root:x:0:\nwork:x:1000:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/ssl/openssl.cnf": "",
}
DIRECTORIES = ("bin", "etc", "home", "lib", "proc", "root", "run", "sys", "dev", "tmp", "usr/bin", "var/tmp")


def find(program: str) -> Path:
    """Where the program is on this machine; AssertionError naming what is missing."""
    found = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/usr/lib/git-core")
    assert found, f"{program} is not installed on this machine; the README's requirements name its package"
    return Path(found)


def libraries(program: Path) -> set[Path]:
    """The shared libraries and the loader of a dynamic program (ldd(1)); empty for a static one."""
    listing = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=10).stdout
    return {Path(path) for path in re.findall(r"(/[^\s)]+) \(0x", listing)}


def applets() -> list[str]:
    """What busybox can do, as paths such as `bin/ls`."""
    return subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True, timeout=10).stdout.split()


def build(programs: Iterable[str] = PROGRAMS) -> bytes:
    """The image's root file system as a tar archive for `podman import`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", mode: int = 0o755, link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
            tar.addfile(entry, io.BytesIO(data))

        for directory in DIRECTORIES:
            add(directory, tarfile.DIRTYPE, mode=0o1777 if directory.endswith("tmp") else 0o755)
        for name, text in FILES.items():
            add(name, data=text.encode(), mode=0o644)
        add("bin/busybox", data=find("busybox").read_bytes())
        taken = {*programs, "busybox"}
        for applet in applets():
            if applet not in taken:
                add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        needed: set[Path] = set()
        paths = {find(name): f"usr/bin/{name}" for name in programs}
        if "git" in paths.values() or "git" in programs:
            paths |= {find(name): f"usr/lib/git-core/{name}" for name in GIT_HELPERS}
        if "sshd" in programs:  # OpenSSH 9.8 and newer serve each session by programs of their own
            paths |= {path: str(path).lstrip("/") for path in SSHD_HELPERS if path.exists()}
        for path, name in paths.items():
            add(name, data=path.read_bytes())
            needed |= libraries(path)
        for library in sorted(needed):
            add(str(library).lstrip("/"), data=library.read_bytes())
    return content.getvalue()
