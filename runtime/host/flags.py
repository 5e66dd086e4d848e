"""Reads the words of a `podman run` as podman does, so that nothing hides between a flag and the image's command.

podman's parser (pflag) takes `--flag=value`, `--flag value`, `-f value`, `-fvalue`, `-f=value` and clusters of short
flags, has no abbreviations of long flags, and stops at the first word that is not a flag: the image. To find that word
one must know which flags take a value. A flag that is in neither table is refused unless it is written with `=`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...supervisor.ground.errors import Exit, TerokError

_SWITCHES = """
    detach disable-content-trust env-host help http-proxy init interactive no-healthcheck no-hostname no-hosts
    oom-kill-disable passwd privileged publish-all quiet read-only read-only-tmpfs replace rm rmi rootfs sig-proxy
    tls-verify tty unsetenv-all
    remote syslog trace transient-store
"""
SWITCHES = frozenset(_SWITCHES.split())
"""Flags without a value, of `podman run` in 4.3 to 5.x and, in the last line, of podman itself."""

_VALUED = """
    add-host annotation arch attach authfile blkio-weight blkio-weight-device cap-add cap-drop cert-dir cgroup-conf
    cgroup-parent cgroupns cgroups chrootdirs cidfile conmon-pidfile cpu-count cpu-percent cpu-period cpu-quota
    cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems creds decryption-key detach-keys device
    device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops dns dns-option dns-search
    entrypoint env env-file env-merge expose gidmap gpus group-add group-entry health-cmd health-interval
    health-log-destination health-max-log-count health-max-log-size health-on-failure health-retries
    health-start-period health-startup-cmd health-startup-interval health-startup-retries health-startup-success
    health-startup-timeout health-timeout hostname hosts-file hostuser image-volume init-ctr init-path io-maxbandwidth
    io-maxiops ip ip6 ipc isolation kernel-memory label label-file log-driver log-opt mac-address memory
    memory-reservation memory-swap memory-swappiness mount name network network-alias oom-score-adj os passwd-entry
    personality pid pidfile pids-limit platform pod pod-id-file preserve-fd preserve-fds publish pull rdt-class
    requires restart retry retry-delay sdnotify seccomp-policy secret security-opt shm-size shm-size-systemd
    signature-policy stop-signal stop-timeout storage-opt subgidname subuidname sysctl systemd timeout tmpfs tz uidmap
    ulimit umask unsetenv user userns uts variant volume volumes-from workdir
    cdi-spec-dir cgroup-manager config conmon connection cpu-profile events-backend hooks-dir identity imagestore
    log-level memory-profile module namespace network-cmd-path network-config-dir out registries-conf root runroot
    runtime runtime-flag ssh storage-driver tmpdir url volumepath
"""
VALUED = frozenset(_VALUED.split())
"""Flags with a value, of `podman run` and, in the last three lines, of podman itself."""

ALIASES = {
    "dns-opt": "dns-option",
    "healthcheck-command": "health-cmd",
    "healthcheck-interval": "health-interval",
    "healthcheck-retries": "health-retries",
    "healthcheck-start-period": "health-start-period",
    "healthcheck-timeout": "health-timeout",
    "net": "network",
    "override-arch": "arch",
    "override-os": "os",
    "override-variant": "variant",
}
"""Other spellings that podman accepts (cmd/podman/utils/alias.go)."""

SHORT = {
    "a": "attach",
    "c": "cpu-shares",
    "d": "detach",
    "e": "env",
    "h": "hostname",
    "i": "interactive",
    "l": "label",
    "m": "memory",
    "p": "publish",
    "P": "publish-all",
    "q": "quiet",
    "r": "remote",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
}


class Flag(NamedTuple):
    """One flag as podman will understand it: its full name without dashes, and its value ("true" for a switch)."""

    name: str
    value: str
    written: str


class Words(NamedTuple):
    """The parsed words: flags, then the image and its command."""

    flags: list[Flag]
    rest: list[str]


def parse(words: Sequence[str]) -> Words:
    """Split the words of `podman run` into flags and the rest.

    Raises:
        TerokError: a flag that is not known is written without `=`, so that its value can't be told from the image;
            or a flag's value is missing.
    """
    flags: list[Flag] = []
    pending = list(words)
    while pending:
        word = pending[0]
        if word == "--":
            return Words(flags, pending[1:])
        if not word.startswith("-") or word == "-":
            break
        pending.pop(0)
        flags += _long(word, pending) if word.startswith("--") else _cluster(word, pending)
    return Words(flags, pending)


def without(words: Sequence[str], *names: str) -> list[str]:
    """The same words of `podman run` without the flags of these names; raises TerokError as `parse` does."""
    kept: list[str] = []
    pending = list(words)
    while pending and pending[0] not in ("--", "-") and pending[0].startswith("-"):
        before = list(pending)
        word = pending.pop(0)
        flags = _long(word, pending) if word.startswith("--") else _cluster(word, pending)
        if any(flag.name in names for flag in flags):
            kept += [f"--{flag.name}={flag.value}" for flag in flags if flag.name not in names]
        else:
            kept += before[: len(before) - len(pending)]
    return kept + pending


def _long(word: str, pending: list[str]) -> list[Flag]:
    written, equals, value = word.partition("=")
    name = ALIASES.get(written[2:], written[2:])
    if equals:
        return [Flag(name, value, written)]
    if name in SWITCHES:
        return [Flag(name, "true", written)]
    if name not in VALUED:
        raise _unknown(written)
    return [Flag(name, _take(written, pending), written)]


def _cluster(word: str, pending: list[str]) -> list[Flag]:
    flags: list[Flag] = []
    for at, letter in enumerate(word[1:], start=1):
        written = f"-{letter}"
        name = SHORT.get(letter)
        if name is None:
            raise _unknown(written)
        following = word[at + 1 :]
        if name in SWITCHES:
            if following.startswith("="):
                return [*flags, Flag(name, following[1:], written)]
            flags.append(Flag(name, "true", written))
            continue
        value = following.removeprefix("=") if following else _take(written, pending)
        return [*flags, Flag(name, value, written)]
    return flags


def _take(written: str, pending: list[str]) -> str:
    if not pending:
        raise TerokError(f"podman's option {written} needs a value.", code=Exit.USAGE)
    return pending.pop(0)


def _unknown(written: str) -> TerokError:
    return TerokError(
        f"terok does not know podman's option {written[:60]} and cannot tell whether it takes a value.",
        fix=f"write it as {written[:60]}=VALUE (=true for a switch)",
        code=Exit.USAGE,
    )


def is_on(value: str) -> bool:
    """Whether a switch's value means yes, as Go's strconv.ParseBool; anything odd counts as yes."""
    return value not in ("0", "f", "F", "false", "False", "FALSE")
