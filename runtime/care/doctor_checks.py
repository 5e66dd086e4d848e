"""Checks of what exists only after some use: the vault, logins, bundles, processes, kernel keys, the clock."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from ...sidecars.login.refresh import login_command
from ...sidecars.store import keys, tiers
from ...supervisor import record
from ...supervisor.ground import paste, process
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import Bundle, outer_uid, package_root, program
from ..host import podman
from ..host.podman import ANNOTATED
from ..kit import files
from ..kit.alive import container_alive, containers, supervisor_fd
from ..kit.check import FAIL, OK, WARN, Check
from ..kit.env import Env
from ..launch import services
from ..launch.teardown import tear_down
from ..vault.locks import attention
from . import unprotected, upstreams
from .leftovers import runtime_directories
from .status import container_status

KEYS_NEARLY_ALL = 0.8
"""Share of the kernel-key quota from which containers start to fail soon: each takes about 15 of 200."""
SKEW_SECONDS = 120
ORPHAN_SECONDS = 30
"""A hook that is at work right now is no orphan."""


def vault(env: Env) -> Iterator[Check]:
    """Whether the vault opens, how well it is protected, and which logins and keys need a person."""
    try:
        store = services.open_store(env.layout)
    except TerokError as error:
        yield Check("vault", "vault", FAIL, error.what, error.fix)
        return
    if store is None:
        yield Check("vault", "vault", OK, "empty: no credential was added yet")
        return
    with store:
        try:
            keys.find_data_key(store, keys.key_files(env.layout))
            yield Check("vault", "vault", OK, "unlocked")
        except TerokError as error:
            yield Check("vault", "vault", FAIL, error.what, error.fix)
        protection = tiers.strength(store)
        fix = "terok vault passphrase set" if protection.startswith("weak") else ""
        yield Check("vault", "protection", WARN if fix else OK, protection, fix)
        for entry in store.describe("credential"):
            note = attention(entry, time.time())
            if note:
                yield Check("vault", "login", WARN, note, login_command(entry))


def bundles(env: Env) -> Iterator[Check]:
    """Bundles of containers that do not exist, and running containers without a supervisor or without Podman."""
    unknown = unknown_to_podman(env)
    stale = [name for name in unknown if not container_alive(env.layout.bundle(name))]
    if stale:
        line = paste.command("terok", "cleanup", *stale)
        fix = f"{line}   (or terok doctor --fix)" if line else "terok doctor --fix"
        yield Check("containers", "stale bundles", WARN, f"no container has the name {', '.join(stale)}", fix)
    else:
        yield Check("containers", "stale bundles", OK, "none")
    for name in unknown:
        if name not in stale:
            yield abandoned(env.layout.bundle(name))
    for name in containers(env.layout):
        bundle = env.layout.bundle(name)
        if not container_alive(bundle):
            continue
        fd = supervisor_fd(bundle)
        if fd is None:
            detail = f"{name} runs without one: its firewall holds, its services are gone"
            yield Check("containers", "supervisor", FAIL, detail, paste.command("terok", "heal", name))
        else:
            os.close(fd)
            for trouble in container_status(bundle, now=time.time())["troubles"]:
                yield Check("containers", "services", FAIL, f"{name}: {trouble}", f"less {bundle.log}")


def open_containers(env: Env) -> Iterator[Check]:
    """Containers that run with terok's annotations and without what they ask for."""
    for known in unprotected.never_supervised(env):
        detail = f"{known.name} is UNPROTECTED: it runs without its firewall and services"
        yield Check("containers", "protection", FAIL, detail, unprotected.fix(known, env))


def abandoned(bundle: Bundle) -> Check:
    """A container that runs, guarded, and that no command of Podman ends: `podman run` was killed while it started."""
    known = record.read(bundle.record)
    pid = known.container.pid if known and known.container else 0
    detail = (
        f"{bundle.name} runs (process {pid}), and Podman does not list it: Podman was killed, or has another storage"
    )
    return Check("containers", "unlisted containers", WARN, detail, f"podman unshare kill -KILL {pid}" if pid else "")


def unknown_to_podman(env: Env) -> list[str]:
    """Names of bundles whose container Podman does not list; none when Podman can't be asked.

    A bundle that was prepared and whose container was never started waits for its `podman run`, for however long.
    """
    names = containers(env.layout)
    if not names:
        return []
    try:
        result = podman.call(["ps", "--all", "--no-trunc", "--format", "json"], env.environ)
        listed = json.loads(result.out) if result.code == 0 else None
    except (TerokError, ValueError):
        listed = None
    if not isinstance(listed, list):
        return []
    known = {name for row in listed for name in (row.get("Names") or [])} | {str(row.get("Id"))[:12] for row in listed}
    fresh = time.time() - 60  # prepared a moment ago: the container is about to be created
    return [name for name in names if name not in known and _was_started(env.layout.bundle(name), before=fresh)]


def _was_started(bundle: Bundle, *, before: float) -> bool:
    """Whether a start of the container was attempted: it has a record, or annotations alone had it composed."""
    if os.path.exists(bundle.record):
        return True
    meta = files.read_json(bundle.meta)
    annotated = isinstance(meta, dict) and meta.get("network") == ANNOTATED
    return annotated and os.stat(bundle.root).st_mtime < before


def remove_stale(env: Env) -> list[str]:
    """Clean up every stale bundle; returns a sentence for each."""
    return [
        f"Removed the bundle of {name}"
        for name in unknown_to_podman(env)
        if not container_alive(env.layout.bundle(name)) and tear_down(name, cfg=env.config, force=False)
    ]


@dataclass(frozen=True)
class Orphan:
    """A process of terok that no record names."""

    pid: int
    started: int
    what: str


def orphans(env: Env) -> list[Orphan]:
    """Processes of terok that belong to no container's record."""
    records = [record.read(env.layout.bundle(name).record) for name in containers(env.layout)]
    known = {process for row in records if row for _, process in row.processes()}
    marks = [program("hookbin", "entry.py"), program("sidecars", "boot.py")]
    marks.append(env.layout.containers + "/")
    left = []
    for running in psutil.process_iter():
        try:
            words = running.cmdline()
            started = process.start_time(running.pid)
            age = time.time() - running.create_time()
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue
        name = os.path.basename(words[0]) if words else ""
        ours = any(word.startswith(mark) or f"={mark}" in word for word in words[:8] for mark in marks)
        if ours and record.Process(running.pid, started) not in known and age >= ORPHAN_SECONDS and name != "podman":
            left.append(Orphan(running.pid, started, name))
    return left


def processes(env: Env) -> Iterator[Check]:
    """Whether processes of terok outlived their containers."""
    left = orphans(env)
    if not left:
        yield Check("containers", "orphaned processes", OK, "none")
        return
    detail = ", ".join(f"{orphan.what} (pid {orphan.pid})" for orphan in left)
    yield Check("containers", "orphaned processes", WARN, detail, "terok doctor --fix")


def end_orphans(env: Env) -> list[str]:
    """End every orphan; returns a sentence for each."""
    done = []
    for orphan in orphans(env):
        fd = process.open_same(orphan.pid, orphan.started)
        if fd is None:
            continue
        try:
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            if not process.wait_gone(fd, 2.0):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                process.wait_gone(fd, 2.0)
            done.append(f"Ended {orphan.what} (pid {orphan.pid})")
        except (ProcessLookupError, PermissionError):
            pass
        finally:
            os.close(fd)
    return done


def kernel_keys(env: Env) -> Iterator[Check]:
    """How much of the kernel-key quota is used: past it container starts fail with "Disk quota exceeded"."""
    used = key_usage("/proc/key-users", outer_uid())
    if used is None:
        return
    count, limit = used
    if count < KEYS_NEARLY_ALL * limit:
        yield Check("containers", "kernel keys", OK, f"{count} of {limit}")
        return
    fix = "set keyring = false under [containers] in ~/.config/containers/containers.conf"
    yield Check("containers", "kernel keys", WARN, f"{count} of {limit} are used; a container takes about 15", fix)


def key_usage(path: str, uid: int) -> tuple[int, int] | None:
    """(keys used, quota) of a user, from /proc/key-users (keyrings(7)): the field qnkeys/maxkeys."""
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                name, _, rest = line.partition(":")
                if name.strip() == str(uid):
                    used, _, limit = rest.split()[2].partition("/")
                    return int(used), int(limit)
    except (OSError, ValueError, IndexError):
        pass
    return None


def clock(env: Env) -> Iterator[Check]:
    """Whether the clock runs behind: then certificates are not valid yet, and logins seem to last longer."""
    newest, path = newest_file([package_root(), env.layout.vault, env.layout.config, env.layout.containers])
    behind = newest - time.time()
    if behind > SKEW_SECONDS:
        detail = f"is behind: {path} was written {int(behind)} s in its future"
        yield Check("host", "clock", FAIL, detail, "sudo timedatectl set-ntp true")
    else:
        yield Check("host", "clock", OK, time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def newest_file(directories: list[str]) -> tuple[float, str]:
    """The newest modification time among the files in some directories, and which file has it."""
    newest = (0.0, "")
    for directory in directories:
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            newest = max(newest, (entry.stat(follow_symlinks=False).st_mtime, entry.path))
    return newest


CHECKS: tuple[Callable[[Env], Iterator[Check]], ...] = (
    vault,
    upstreams.proxy,
    bundles,
    open_containers,
    runtime_directories,
    processes,
    kernel_keys,
    clock,
)
