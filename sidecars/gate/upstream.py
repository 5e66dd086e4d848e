"""The forge: how it is reached, asked and pushed to, with the scope's own credential."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

from ...supervisor import process
from ...supervisor.errors import Exit, TerokError
from . import credentials, git, refs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...supervisor.layout import GateHome
    from .config import GateConfig
    from .credentials import Way
    from .site import Site

PUSH_SECONDS = 1800.0
FETCH_SECONDS = 1800.0
ASK_SECONDS = 60.0
MESSAGES_MAX = 40
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9._-]+:(?!//)[^\s]+")
_URL = re.compile(r"(https|ssh|http|file)://([^/\s]*)(/[^\s]*)")
_PORCELAIN = re.compile(r"([ +\-*!=])\t([^\t]*):([^\t:]*)\t(.*)")
_REASON = re.compile(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*$")


class Move(NamedTuple):
    """One ref that upstream shall change from `old` to `new`; zeros: does not exist, shall be deleted."""

    ref: str
    old: str
    new: str


class Address(NamedTuple):
    """An upstream URL taken apart: kind is `https`, `ssh`, `http` or `file`; port 0 means the usual one."""

    kind: str
    user: str
    host: str
    port: int
    url: str

    @property
    def base(self) -> str:
        """Scheme, host and port, as `credential.<url>.helper` takes them (gitcredentials(7))."""
        return f"{self.kind}://{self.host}{f':{self.port}' if self.port else ''}"


def parse_url(url: str) -> Address:
    """Check an upstream URL and take it apart.

    Raises:
        TerokError: it is of another kind, holds a password, or would send a credential in the clear.
    """
    if url.startswith("/"):
        return Address("file", "", "", 0, url)
    if url.startswith("-") or not url.isprintable():
        raise TerokError(f"{url[:80]!r} is not a git URL.", code=Exit.USAGE)
    found = _URL.fullmatch(url)
    if found is None:
        if "://" in url or _SCP.fullmatch(url) is None:
            raise TerokError(f"{url[:80]!r} is not an https, ssh or local git URL.", code=Exit.USAGE)
        login, _, _ = url.partition(":")
        user, _, host = login.rpartition("@")
        return Address("ssh", user, host, 0, url)
    kind, authority, path = found.groups()
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


@contextlib.contextmanager
def access(site: Site, config: GateConfig) -> Iterator[Way]:
    """What the scope's git needs to reach upstream; see `credentials.open_way`."""
    with credentials.open_way(site.home, config, parse_url(config.url), site.store, site.key_files) as way:
        yield way


def _run(home: GateHome, way: Way, *arguments: str, timeout: float) -> process.Result:
    pairs = [("safe.directory", home.repo), *way.config]
    env = git.environment(pairs, GIT_DIR=home.repo, **way.variables)
    return process.run([git.program(), *arguments], timeout=timeout, env=env, fds=way.descriptors())


def push(
    home: GateHome, config: GateConfig, way: Way, moves: list[Move], *, atomic: bool, say: Callable[[str], None]
) -> dict[str, str]:
    """Push to upstream, each ref only if it still is what `old` says (compare-and-swap).

    Args:
        say: gets what upstream tells people.

    Returns:
        For each ref "" when upstream took it, else its reason.
    """
    leases = [f"--force-with-lease={move.ref}:{'' if refs.is_zero(move.old) else move.old}" for move in moves]
    specs = [f"{'' if refs.is_zero(move.new) else move.new}:{move.ref}" for move in moves]
    result = _run(
        home,
        way,
        "push",
        "--porcelain",
        "--no-verify",
        "--no-follow-tags",
        "--recurse-submodules=no",
        *(["--atomic"] if atomic else []),
        *leases,
        "--",
        parse_url(config.url).url,
        *specs,
        timeout=PUSH_SECONDS,
    )
    for line in messages(result.err):
        say(line)
    verdicts = parse_porcelain(result.out.decode("utf-8", "surrogateescape"))
    if result.code and not verdicts:
        reason = f"upstream could not be reached: {explain(result)}"
        return {move.ref: reason for move in moves}
    return verdicts


def parse_porcelain(text: str) -> dict[str, str]:
    """The lines of `git push --porcelain`: for each ref "" or the reason (git-push(1), OUTPUT)."""
    verdicts: dict[str, str] = {}
    for line in text.split("\n"):
        found = _PORCELAIN.fullmatch(line)
        if found is None:
            continue
        flag, _, ref, summary = found.groups()
        reason = _REASON.search(summary)
        verdicts[ref] = "" if flag != "!" else f"upstream: {_plain(reason[1] if reason else summary)}"
    return verdicts


def messages(errors: bytes) -> list[str]:
    """What upstream says to people: the `remote:` lines of git's stderr, without control characters."""
    lines = errors.decode("utf-8", "replace").replace("\r", "\n").split("\n")
    said = [_plain(line.removeprefix("remote:")) for line in lines if line.startswith("remote:")]
    return [f"upstream: {line.strip()}" for line in said if line.strip()][:MESSAGES_MAX]


def explain(result: process.Result) -> str:
    """Why git failed to talk to upstream: its `fatal:` line rather than the first."""
    lines = [line.strip() for line in result.err.decode("utf-8", "replace").splitlines() if line.strip()]
    for prefix in ("fatal:", "error:", "ERROR:"):
        for line in lines:
            if line.startswith(prefix) and "Could not read from remote" not in line:
                return _plain(line.removeprefix(prefix).strip())[:300]
    return _plain(lines[0])[:300] if lines else f"exit code {result.code}"


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)[:500]


def fetch(home: GateHome, config: GateConfig, way: Way) -> None:
    """Fetch every branch and tag into the hidden refs that note what upstream has; vanished ones go.

    Raises:
        TerokError: upstream could not be reached, or did not let us in.
    """
    result = _run(
        home,
        way,
        "fetch",
        "--quiet",
        "--no-tags",
        "--prune",
        "--no-auto-maintenance",
        "--no-write-fetch-head",
        "--no-recurse-submodules",
        "--",
        parse_url(config.url).url,
        f"+refs/heads/*:{refs.UPSTREAM}heads/*",
        f"+refs/tags/*:{refs.UPSTREAM}tags/*",
        timeout=FETCH_SECONDS,
    )
    if result.code:
        raise TerokError(f"Upstream of {home.scope} could not be fetched: {explain(result)}.", fix=_fix(config, result))


def _fix(config: GateConfig, result: process.Result) -> str:
    text = result.err.decode("utf-8", "replace")
    if "Authentication failed" in text or "could not read Username" in text or "403" in text:
        return "check the scope's credential: terok vault list"
    if "Host key verification failed" in text:
        return f"check the host's key, then: terok gate set SCOPE --host-key (upstream is {config.url})"
    if "Permission denied" in text:
        return "check that the scope's key is registered at the forge: terok ssh list"
    return ""


class Answer(NamedTuple):
    """What upstream says about itself: full name of its default branch ("" when it has none), length of its names."""

    default_branch: str
    oid_length: int


def ask(home: GateHome, config: GateConfig, way: Way) -> Answer:
    """Ask upstream for its default branch.

    Raises:
        TerokError: upstream could not be reached, or did not let us in.
    """
    env = git.environment(way.config, **way.variables)
    result = process.run(
        [git.program(), "ls-remote", "--symref", "--", parse_url(config.url).url, "HEAD"],
        timeout=ASK_SECONDS,
        env=env,
        fds=way.descriptors(),
    )
    if result.code:
        raise TerokError(f"Upstream of {home.scope} could not be asked: {explain(result)}.", fix=_fix(config, result))
    branch, length = "", 40
    for line in result.out.decode("utf-8", "surrogateescape").splitlines():
        value, _, name = line.partition("\t")
        if name == "HEAD" and value.startswith("ref: refs/heads/"):
            branch = value.removeprefix("ref: ")
        elif name == "HEAD":
            length = len(value)
    return Answer(branch, length)
