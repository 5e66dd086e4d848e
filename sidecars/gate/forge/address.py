"""Upstream URLs: which are taken, and their parts. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from ....supervisor.ground.errors import Exit, TerokError

_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9._-]+:(?!//)[^\s]+")
_URL = re.compile(r"(https|ssh|http|file)://([^/\s]*)(/[^\s]*)")


class Address(NamedTuple):
    """An upstream URL taken apart: kind is `https`, `ssh`, `http` or `file`; port 0 means the usual one."""

    kind: str
    user: str
    host: str
    port: int
    url: str

    @property
    def repository(self) -> str:
        """Its path on the host, without slashes around it and without `.git`."""
        _, scheme, rest = self.url.partition("://")
        path = rest.partition("/")[2] if scheme else self.url.partition(":")[2]
        return path.strip("/").removesuffix(".git").strip("/")

    @property
    def base(self) -> str:
        """Scheme, host and port, as `credential.<url>.helper` takes them (gitcredentials(7))."""
        return f"{self.kind}://{self.host}{f':{self.port}' if self.port else ''}"


def spellings(url: str, *, ssh: bool) -> list[str]:
    """How git's users write a repository's URL: as given, over https, and over SSH, with and without `.git`.

    Args:
        url: the upstream's.
        ssh: also what leads to the forge over SSH, when the URL itself does not.
    """
    address = parse_url(url)
    plain = [url.removesuffix("/").removesuffix(".git")]
    if address.kind in ("https", "ssh") and not address.port and address.repository:
        plain.append(f"https://{address.host}/{address.repository}")
        if ssh:
            plain += [f"git@{address.host}:{address.repository}", f"ssh://git@{address.host}/{address.repository}"]
    return [spelling for base in dict.fromkeys(plain) for spelling in (f"{base}.git", base)]


def parse_url(url: str) -> Address:
    """Check an upstream URL and take it apart.

    Raises:
        TerokError: it is of another kind, holds a password, or would send a credential in the clear.
    """
    if url.startswith("/"):
        return Address("file", "", "", 0, url)
    # git would take a URL that begins with a dash for an option, and ssh a host that does.
    if url.startswith("-") or not url.isprintable():
        raise TerokError(f"{url[:80]!r} is not a git URL.", code=Exit.USAGE)
    match = _URL.fullmatch(url)
    if match is None:
        if "://" in url or _SCP.fullmatch(url) is None:
            raise TerokError(f"{url[:80]!r} is not an https, ssh or local git URL.", code=Exit.USAGE)
        login, _, _ = url.partition(":")
        user, _, host = login.rpartition("@")
        return Address("ssh", user, host, 0, url)
    kind, authority, path = match.groups()
    user, at, host_port = authority.rpartition("@")
    if ":" in user or (at and kind in ("https", "http")):
        raise TerokError(
            "The URL holds a credential.",
            fix="store it with `terok vault add` and leave it out of the URL",
            code=Exit.USAGE,
        )
    host, colon, port = host_port.rpartition(":") if not host_port.endswith("]") else (host_port, "", "")
    host, port = (host, port) if colon else (host_port, "")
    if kind == "file":
        return Address(kind, "", "", 0, path)
    if (
        not re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", host)
        or host.startswith("-")
        or not re.fullmatch(r"[0-9]*", port)
    ):
        raise TerokError(f"{url[:80]!r} has no usable host.", code=Exit.USAGE)
    if kind == "http" and host not in ("127.0.0.1", "localhost", "[::1]"):
        raise TerokError("http:// would send the credential in the clear.", fix="use the https:// URL", code=Exit.USAGE)
    return Address(kind, user, host, int(port or 0), url)
