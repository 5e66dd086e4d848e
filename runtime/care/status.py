"""`terok status`: containers, their supervisors and sidecars, from the records that the supervisors write."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import TypedDict

from ...sidecars.airlock.published.settings import Published
from ...supervisor import record, services, strays
from ...supervisor.ground import kernel, paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle
from ...supervisor.record import Record, Row
from ...supervisor.wall import resolver
from ..kit import check, files, processes
from ..kit.alive import containers, missing_sockets
from ..kit.config import Config
from ..kit.env import Env, Output
from ..kit.table import table
from ..kit.verb import argument, switch, verb
from ..launch.resources import published_before, require_bundle
from . import landlock, unprotected

ERROR_TAIL = 4096
UNPROTECTED, ON_DEMAND = "UNPROTECTED", "on demand"


class Numbers(TypedDict):
    """A process; uptime in seconds, memory in bytes; None when it does not run."""

    pid: int | None
    state: str
    uptime: float | None
    memory: int | None


class Supervisor(Numbers):
    """The pair of supervisor and standby."""

    processes: int


class Sidecar(Numbers):
    """One service."""

    name: str
    restarts: int
    last_exit: str | None


class Port(TypedDict):
    """A published port: where it is on the host, and in the container."""

    host: str
    host_port: int
    port: int
    protocol: str


class Status(TypedDict):
    """One container, as `--json` shows it."""

    container: str
    passing: bool
    state: str
    scope: str | None
    mode: str
    network: str | None
    profiles: list[str]
    ports: object
    published: list[Port]
    container_pid: int | None
    supervisor: Supervisor
    sidecars: list[Sidecar]
    memory: int
    sockets: list[str]
    troubles: list[str]
    error: str | None


@verb(
    argument("names", metavar="NAME", nargs="*", help="containers (default: all)", values="containers"),
    switch("--all", "also stopped containers that were started by annotations or with --rm"),
    examples=("terok status", "terok status box"),
)
def run(args: argparse.Namespace, env: Env) -> int:
    """Show every container that terok prepared, or the ones named, with its processes.

    MEMORY is the proportional set size (PSS): pages that processes share are divided among them.
    """
    names = args.names or containers(env.layout)
    statuses = []
    for name in names:
        try:
            statuses.append(container_status(require_bundle(env.config, name), now=time.time()))
        except TerokError as error:
            if args.names or error.code != Exit.NOT_FOUND:
                raise  # else one that was started with --rm, and has ended since the list was made
    open_ = {known.bundle: known for known in unprotected.never_supervised(env)}
    for row in statuses:
        row["state"] = UNPROTECTED if row["container"] in open_ else row["state"]
    shown = [row for row in statuses if args.names or args.all or not row["passing"]]
    text = render(shown, env.out, details=bool(args.names)) if shown or not statuses else ""
    if len(shown) < len(statuses):
        text += "\n" if text else ""
        text += f"{len(statuses) - len(shown)} stopped, started by annotations or with --rm: terok status --all"
    refused = None if args.names else _last_line(env.layout.hook_error)[0]
    if refused:
        text += f"\n{env.out.paint('last refused start without wiring', 'bad')}: {refused}"
    confined = landlock.check(kernel.landlock_abi())
    if not args.names and confined.state != check.OK:
        text += f"\n{env.out.paint(f'Landlock: {confined.detail}', 'warning')}"
    for known in open_.values():
        sentence = "runs without its firewall and services; the hooks were not there when it was started"
        text += f"\n{known.name}: {env.out.paint(UNPROTECTED, 'bad')}: {sentence}. Fix: {unprotected.fix(known, env)}"
    names_open = [known.name for known in open_.values()]
    report = {"containers": statuses, "refused": refused, "landlock": confined.detail, "unprotected": names_open}
    env.out.emit(report, text)
    return Exit.OK


def container_status(bundle: Bundle, *, now: float) -> Status:
    """Everything about one container, as plain data.

    Args:
        bundle: its state bundle.
        now: Unix time, for uptimes.
    """
    meta = files.read_json(bundle.meta)
    meta = meta if isinstance(meta, dict) else {}
    known = record.read(bundle.record)
    supervisor = processes.look(known.supervisor if known else None, now=now)
    alive = known is not None and known.alive()
    sidecars = [_sidecar(name, row, now) for name, row in (known.services if known else ())]
    standby = processes.look(known.standby if known else None, now=now)
    running = [seen for seen in (supervisor, standby) if seen]
    return {
        "container": bundle.name,
        "passing": not alive and os.path.exists(bundle.once),
        "state": _state(known, supervisor, standby, container_alive=alive),
        "scope": meta.get("scope"),
        "mode": "restricted" if meta.get("restricted") else "standard",
        "network": meta.get("network"),
        "profiles": meta.get("profiles", []),
        "ports": meta.get("ports"),
        "published": [
            {"host": port.host, "host_port": port.host_port, "port": port.port, "protocol": "tcp"}
            for port in published_before(bundle)
        ],
        "container_pid": known.container.pid if alive and known and known.container else None,
        "supervisor": _supervisor(known, supervisor, running),
        "sidecars": sidecars,
        "memory": sum(process.memory for process in running) + sum(sidecar["memory"] or 0 for sidecar in sidecars),
        "sockets": list(known.sockets) if known and supervisor else [],
        "troubles": _troubles(known, supervisor),
        "error": last_error(bundle, known),
    }


def _state(
    known: Record | None, supervisor: processes.Seen | None, standby: processes.Seen | None, *, container_alive: bool
) -> str:
    """One word: prepared, starting, running, ending, stopped or failed; unsupervised or suspended, its supervisor.

    A standby alone still means running: it has just taken over, or could not write so.
    """
    if known is None:
        return "prepared"
    if supervisor is not None and supervisor.suspended:
        return "suspended"
    if supervisor is not None or (standby is not None and container_alive):
        return "running" if known.phase == record.READY else known.phase
    if container_alive and not known.over():
        return "unsupervised"
    return "failed" if known.phase == record.FAILED else "stopped"


def _troubles(known: Record | None, supervisor: processes.Seen | None) -> list[str]:
    """What is wrong with a running container's services, each in a sentence with what helps."""
    if known is None or supervisor is None:
        return []
    lines = list(known.troubles)
    if supervisor.suspended:
        lines.append(f"the supervisor is stopped by a signal: kill -CONT {supervisor.pid}")
    resolver_process = known.service(strays.DNSMASQ).process
    if resolver_process is not None and resolver.stuck(resolver_process.pid):
        lines.append(f"dnsmasq: {resolver.STUCK}: terok heal {paste.quoted(known.name)}")
    if missing_sockets(known):
        lines.append(f"the runtime directory was removed: terok heal {paste.quoted(known.name)}")
    lines += [f"{name} cannot start: {row.last_exit}" for name, row in known.services if row.state == services.FAILED]
    lines += [
        f"{name} could not serve: {row.last_exit}"
        for name, row in known.services
        if row.gave_up and row.state in (services.WAITING, services.BACKOFF)
    ]
    return lines


def _supervisor(known: Record | None, seen: processes.Seen | None, running: list[processes.Seen]) -> Supervisor:
    return {
        "pid": seen.pid if seen else None,
        "state": "suspended" if seen and seen.suspended else known.phase if known and seen else "ended",
        "uptime": seen.uptime if seen else None,
        "memory": sum(process.memory for process in running) if seen else None,
        "processes": len(running),
    }


def _sidecar(name: str, row: Row, now: float) -> Sidecar:
    seen = processes.look(row.process, now=now)
    return {
        "name": name,
        "pid": seen.pid if seen else None,
        "state": "ended" if row.state == "running" and seen is None else row.state or "?",
        "restarts": row.restarts,
        "uptime": seen.uptime if seen else None,
        "memory": seen.memory if seen else None,
        "last_exit": row.last_exit,
    }


def last_error(bundle: Bundle, known: Record | None) -> str | None:
    """The newest error: the record's, else the last line of hook-error.log written after the record."""
    line, when = _last_line(bundle.hook_error)
    if known is None:
        return line
    return known.error or (line if when >= known.started else None)


def _last_line(path: str) -> tuple[str | None, float]:
    """The last line of a log and when it was written; None when there is none."""
    try:
        with open(path, "rb") as log:
            info = os.fstat(log.fileno())
            log.seek(max(0, info.st_size - ERROR_TAIL))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return None, 0.0
    return (lines[-1] if lines else None), info.st_mtime


def render(containers: Sequence[Status], out: Output, *, details: bool) -> str:
    """The tables for people: a line a process, errors and sockets below."""
    if not containers:
        return "No container was prepared. `terok run NAME -- IMAGE` starts one."
    rows: list[tuple[str, ...]] = [("CONTAINER", "SERVICE", "STATE", "PID", "RESTARTS", "UPTIME", "MEMORY")]
    for row in containers:
        rows += _rows(row)
    text = table(rows, out)
    for row in containers:
        for line in row["troubles"]:
            text += f"\n{row['container']}: {out.paint('trouble', 'bad')}: {line}"
        if row["error"]:
            text += f"\n{row['container']}: {out.paint('last error', 'bad')}: {row['error']}"
        if details:
            text += "\n" + "\n".join(_details(row))
    return text


def _rows(row: Status) -> list[tuple[str, ...]]:
    scope = f" ({row['scope']})" if row["scope"] else ""
    mode = "" if row["mode"] == "standard" else f" [{row['mode']}]"
    supervisor = row["supervisor"]
    title = row["container"] + scope + mode
    rows: list[tuple[str, ...]] = [(title, "container", row["state"], _text(row["container_pid"]), "", "", "")]
    if supervisor["pid"] is None:
        return rows
    rows.append(("", "supervisor", supervisor["state"], *_numbers(supervisor, "")))
    for sidecar in row["sidecars"]:
        rows.append(("", sidecar["name"], service_word(sidecar["state"]), *_numbers(sidecar, str(sidecar["restarts"]))))
    return rows


def _numbers(numbers: Numbers, restarts: str) -> tuple[str, str, str, str]:
    return (_text(numbers["pid"]), restarts, duration(numbers["uptime"]), size(numbers["memory"]))


def _details(status: Status) -> list[str]:
    lines = [f"{status['container']}: network {status['network']}, profiles {' '.join(status['profiles']) or 'none'}"]
    lines += [f"  publishes {Published(row['host'], row['host_port'], row['port'])}" for row in status["published"]]
    lines += [f"  listens on {path}" for path in status["sockets"]]
    lines += [
        f"  {sidecar['name']} last ended: {sidecar['last_exit']}"
        for sidecar in status["sidecars"]
        if sidecar["last_exit"]
    ]
    return lines


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def service_word(state: str) -> str:
    """A service's state for people: one that waits for its first connection is `on demand`."""
    return ON_DEMAND if state == services.WAITING else state


def duration(seconds: float | None) -> str:
    """Seconds for people: 42s, 3m10s, 5h02m, 3d04h."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02d}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02d}h"


def size(count: int | None) -> str:
    """Bytes for people, in MB."""
    return "-" if count is None else f"{count / 1e6:.1f} MB"


def status_of(cfg: Config, container: str) -> dict[str, object]:
    """The status of one container, for orchestrators; raises TerokError (NOT_FOUND) when it was never prepared."""
    return {**container_status(require_bundle(cfg, container), now=time.time())}
