"""The forge: how it is reached, asked and pushed to, with the scope's own credential."""

from __future__ import annotations

import contextlib
import os
import re
from typing import NamedTuple

from ....supervisor.ground import kernel, process
from ....supervisor.ground.errors import TerokError
from .. import git, refs
from . import credentials
from .address import parse_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ....supervisor.ground.layout import GateHome
    from ..config import GateConfig
    from ..site import Site
    from .credentials import Way

PUSH_SECONDS = 1800.0
FETCH_SECONDS = 1800.0
ASK_SECONDS = 60.0
MESSAGES_MAX = 40
_PORCELAIN = re.compile(r"([ +\-*!=])\t([^\t]*):([^\t:]*)\t(.*)")
_REASON = re.compile(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*$")


class Move(NamedTuple):
    """One ref that upstream shall change from `old` to `new`; zeros: does not exist, shall be deleted."""

    ref: str
    old: str
    new: str


@contextlib.contextmanager
def access(site: Site, config: GateConfig) -> Iterator[Way]:
    """What the scope's git needs to reach upstream; see `credentials.open_way`."""
    with credentials.open_way(site, config, parse_url(config.url)) as way:
        yield way


def _run(home: GateHome, way: Way, *arguments: str, timeout: float) -> process.Result:
    pairs = [("safe.directory", home.repo), *way.config]
    env = git.environment(pairs, GIT_DIR=home.repo, **way.variables)
    return process.run(
        [git.program(), *arguments],
        timeout=timeout,
        env=env,
        fds=way.descriptors(),
        prepare=lambda: _confine(home, way),
    )


_CERTIFICATES = ["/etc/ssl", "/etc/ca-certificates", "/etc/pki", "/usr/share/ca-certificates", "/etc/crypto-policies"]
_NAMES = ["hosts", "nsswitch.conf", "host.conf", "gai.conf", "services", "resolv.conf"]
_NETWORK_FILES = [*_CERTIFICATES, *(f"/etc/{name}" for name in _NAMES)]
_HELPERS = ("sh", "cat", "ssh")
DNS_PORT = 53


def _confine(home: GateHome, way: Way) -> None:
    """Confine the git process that talks to upstream: the mirror, git, ssh, and one TCP port.

    A local upstream is the operator's own repository: its hooks run as they would at the operator's own push.
    """
    if way.address.kind == "file":
        return
    read, execute = git.grants()
    # a rule holds for what a link points to, and resolv.conf often is one
    read += [*(os.path.realpath(path) for path in _NETWORK_FILES), *way.files]
    execute += [os.path.realpath(path) for name in _HELPERS if (path := process.find(name))]
    ports = (way.port or way.address.port or _USUAL_PORTS[way.address.kind], DNS_PORT)
    kernel.landlock(read=read, write=[home.repo, "/dev/null"], execute=execute, connect_ports=ports)


_USUAL_PORTS = {"https": 443, "http": 80, "ssh": 22}


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
        way.address.url,
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
        match = _PORCELAIN.fullmatch(line)
        if match is None:
            continue
        flag, _, ref, summary = match.groups()
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
    lines = [
        line for line in lines if "Could not read from remote" not in line and not line.startswith(("@", "remote:"))
    ]
    for mark in ("Host key verification failed", "Permission denied", "fatal: ", "error: ", "ERROR: ", "ssh: "):
        for line in lines:
            if mark in line:
                return _plain(line.removeprefix(mark) if mark.endswith(" ") else line).strip().rstrip(".")[:300]
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
        way.address.url,
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
        [git.program(), "ls-remote", "--symref", "--", way.address.url, "HEAD"],
        timeout=ASK_SECONDS,
        env=env,
        fds=way.descriptors(),
        prepare=lambda: _confine(home, way),
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
