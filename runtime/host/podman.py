"""What this host's Podman is, and the network that a container gets from it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...supervisor.ground import process
from ...supervisor.ground.errors import Exit, TerokError

AIRLOCK = "airlock"
"""The network mode in which Podman makes no network at all."""
OLDEST = (4, 3, 1)
"""Tested from here on; older ones hand hooks another state."""

PASTA_DNS = "169.254.1.1"
SLIRP_DNS = "10.0.2.3"
"""Where the two rootless networks answer DNS with the host's resolver (slirp4netns(1), pasta(1) --dns-forward)."""
PASTA_HOST = "169.254.1.2"
SLIRP_HOST = "10.0.2.2"
"""Addresses that lead to the host's loopback when that was asked for."""


def find(environ: Mapping[str, str]) -> str:
    """Absolute path of the podman that the operator uses.

    Raises:
        TerokError: there is none on PATH.
    """
    path = which("podman", environ)
    if path is None:
        raise TerokError("podman is not installed or not on PATH.", fix="apt-get install podman   (dnf install podman)")
    return path


def which(program: str, environ: Mapping[str, str]) -> str | None:
    """Absolute path of `program` on the operator's PATH or in the system's directories; None when missing."""
    directories = [*(environ.get("PATH") or "").split(":"), *process.PATH.split(":")]
    for directory in directories:
        candidate = os.path.join(directory, program)
        if directory.startswith("/") and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def init() -> str | None:
    """catatonit, the small static program that `podman run --init` needs, without links; None when missing."""
    return next((os.path.realpath(path) for path in _INIT if os.path.exists(path)), None)


def call(words: Sequence[str], environ: Mapping[str, str], *, timeout: float = 30.0) -> process.Result:
    """Run podman with the operator's environment and return how it ended; raises TerokError when it hangs."""
    return process.run([find(environ), *words], timeout=timeout, env=environ)


def parse_version(text: str) -> tuple[int, ...]:
    """The version in what `PROGRAM --version` prints, as numbers; empty when there is none."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def version(environ: Mapping[str, str]) -> tuple[int, ...]:
    """Podman's version, e.g. (5, 4, 2); raises TerokError when podman is missing or broken."""
    return ask_version(environ).answer()


def ask_version(environ: Mapping[str, str]) -> VersionAsked:
    """Start `podman --version`, which takes as long as our own imports; raises TerokError when podman is missing."""
    return VersionAsked(process.begin([find(environ), "--version"], timeout=10, env=environ))


class VersionAsked:
    """A `podman --version` that is under way."""

    def __init__(self, job: process.Job) -> None:
        self._job = job
        self._version: tuple[int, ...] = ()

    def answer(self) -> tuple[int, ...]:
        """Wait for it; raises TerokError when podman is broken."""
        if not self._version:
            result = self._job.finish()
            self._version = parse_version(result.out.decode(errors="replace"))
            if result.code or not self._version:
                raise TerokError(f"`podman --version` failed: {result.error}", fix="make `podman info` work first")
        return self._version


_INIT = ("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/bin/catatonit")
"""Where distributions put it."""
ANNOTATED = "annotated"
"""The network mode of a container that has only annotations: Podman decided."""


@dataclass(frozen=True)
class NetworkPlan:
    """The network of a container.

    mode: `airlock`, `slirp4netns`, `pasta`, `bridge` or `none`.
    flag: the value of podman's --network.
    forwarder: where dnsmasq asks, ADDRESS or ADDRESS#PORT; None without a network.
    host: the address by which the container reaches ports on the host's 127.0.0.1; None when it can't.
    """

    mode: str
    flag: str
    forwarder: str | None
    host: str | None = None


def plan_network(
    mode: str,
    *,
    rootless: bool,
    podman: tuple[int, ...],
    programs: frozenset[str],
    forwarder: str | None = None,
    host_loopback: bool = False,
    resolvers: Sequence[str] = (),
) -> NetworkPlan:
    """Decide a container's network; pure.

    Args:
        mode: `auto` or one of the modes of `config.NETWORK_MODES`.
        rootless: whether podman runs as an ordinary user.
        podman: its version.
        programs: which of `pasta` and `slirp4netns` are installed.
        forwarder: overrides the mode's own resolver.
        host_loopback: the container must reach ports on the host's 127.0.0.1 (services.mode tcp).
        resolvers: nameservers of the host, for bridges.

    Raises:
        TerokError: the mode is not allowed or can't work here.
    """
    if mode == "host":
        raise TerokError(
            "--network=host is not allowed: the container would share the host's firewall, ports and abstract "
            "sockets, and the shield would filter the host.",
            fix="remove --network, or use airlock, slirp4netns, pasta, bridge or none",
            code=Exit.REFUSED,
        )
    if mode == "auto":
        mode = _automatic(rootless=rootless, podman=podman, programs=programs)
    if mode in ("none", AIRLOCK):
        return NetworkPlan(mode, "none", None)
    if mode == "bridge":
        return NetworkPlan("bridge", "bridge", forwarder or (resolvers[0] if resolvers else None))
    if mode == "slirp4netns":
        _need(mode, programs)
        options = ":allow_host_loopback=true" if host_loopback else ""
        return NetworkPlan(mode, mode + options, forwarder or SLIRP_DNS, SLIRP_HOST if host_loopback else None)
    if mode == "pasta":
        _need(mode, programs)
        if podman < (4, 4):
            raise TerokError(
                f"Podman {'.'.join(map(str, podman))} has no pasta network (4.4 and newer have).",
                fix="use --network slirp4netns",
                code=Exit.USAGE,
            )
        options = f":--dns-forward,{PASTA_DNS}" + (f",--map-host-loopback,{PASTA_HOST}" if host_loopback else "")
        return NetworkPlan(mode, mode + options, forwarder or PASTA_DNS, PASTA_HOST if host_loopback else None)
    raise TerokError(
        f"Unknown network mode {mode[:40]!r}.", fix="auto, airlock, slirp4netns, pasta, bridge or none", code=Exit.USAGE
    )


def _automatic(*, rootless: bool, podman: tuple[int, ...], programs: frozenset[str]) -> str:
    if not rootless:
        return "bridge"
    order = ["pasta", "slirp4netns"] if podman >= (5,) else ["slirp4netns", "pasta"]
    usable = [program for program in order if program in programs and (program != "pasta" or podman >= (4, 4))]
    if not usable:
        raise TerokError(
            f"Rootless containers need {order[0]}, and it is not installed.",
            fix=f"apt-get install {'passt' if order[0] == 'pasta' else order[0]}",
        )
    return usable[0]


def _need(program: str, programs: frozenset[str]) -> None:
    if program not in programs:
        raise TerokError(
            f"{program} is not installed.", fix=f"apt-get install {'passt' if program == 'pasta' else program}"
        )


def network_programs(environ: Mapping[str, str]) -> frozenset[str]:
    """Which of the programs behind rootless networks are installed."""
    return frozenset(name for name in ("pasta", "slirp4netns") if which(name, environ))


def host_resolvers(path: str = "/etc/resolv.conf") -> list[str]:
    """The nameservers of the host that a bridge reaches too: not on loopback, no zone ids (resolv.conf(5))."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            words = [line.split() for line in lines]
    except OSError:
        return []
    servers = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
    return [
        address for address in servers if "%" not in address and not address.startswith("127.") and address != "::1"
    ]


def run_argv(environ: Mapping[str, str], flags: Sequence[str], words: Sequence[str]) -> list[str]:
    """The argument list of `podman run` with terok's flags before the operator's words."""
    return [find(environ), "run", *flags, *words]
