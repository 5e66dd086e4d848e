"""The supervisor's record, `supervisor.json` in the bundle: who runs, in which phase, and what went wrong last.

Written whole to a temporary file and renamed, so a reader always sees one state; anyone may `cat` it. `Record` is what
every reader sees; `Record.document` and `_decode` are the only two places that know the file's keys.
"""

from __future__ import annotations

from .ground import durable
from .ground.pids import Process as Process
from .ground.quick import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import dataclass
else:
    from .ground.frozen import dataclass

SCHEMA = 1
READY, ENDED, FAILED = "ready", "ended", "failed"
"""Phases that readers ask for; a supervisor is also `starting` and `ending`."""


@dataclass(frozen=True)
class Row:
    """What the record says of one service: its process, its state (see `services`), and how its last one ended.

    gave_up: its last process ended by itself because it could not serve, and none has served since.
    """

    process: Process | None = None
    state: str = ""
    since: float = 0.0
    restarts: int = 0
    last_exit: str | None = None
    gave_up: bool = False


@dataclass(frozen=True)
class Record:
    """The state of one container's supervisor.

    name, identity: what Podman calls the container, and its id.
    container: its init. supervisor, standby: the pair; None when it does not run.
    phase: `starting`, `ready`, `ending`, `ended` or `failed`.
    started: when the supervisor was started, in Unix time.
    error: the last thing that went wrong. troubles: what is wrong now and is tried again.
    asked: the container's `terok.*` annotations. sockets: where services listen. services: each service by its name.
    """

    name: str
    identity: str = ""
    container: Process | None = None
    supervisor: Process | None = None
    standby: Process | None = None
    phase: str = "starting"
    started: float = 0.0
    error: str | None = None
    troubles: tuple[str, ...] = ()
    asked: tuple[tuple[str, str], ...] = ()
    sockets: tuple[str, ...] = ()
    services: tuple[tuple[str, Row], ...] = ()

    def alive(self) -> bool:
        """Whether the container's init still runs."""
        return self.container is not None and self.container.alive()

    def over(self) -> bool:
        """Whether the supervisor has taken everything down."""
        return self.phase in (ENDED, FAILED)

    def service(self, name: str) -> Row:
        """What is known of a service; an empty row when there is none of that name."""
        return dict(self.services).get(name) or Row()

    def processes(self) -> Iterator[tuple[str, Process]]:
        """Every process: `supervisor`, `standby`, and the services by name."""
        named = [("supervisor", self.supervisor), ("standby", self.standby)]
        for name, process in [*named, *((name, row.process) for name, row in self.services)]:
            if process is not None:
                yield name, process

    def after_the_end(self) -> Record:
        """The record of a supervisor that did not live to write its last one."""
        return Record(
            self.name, self.identity, self.container, phase=ENDED, started=self.started, error=self.error,
            troubles=self.troubles,
        )  # fmt: skip

    def document(self) -> dict[str, object]:
        """The file's content."""
        return {
            "schema": SCHEMA,
            "container": self.name,
            "container_id": self.identity,
            "container_pid": self.container.pid if self.container else None,
            "container_start_time": self.container.start_time if self.container else None,
            **_pair(self.supervisor),
            "standby": _pair(self.standby) if self.standby else None,
            "phase": self.phase,
            "started": self.started,
            "error": self.error,
            "troubles": list(self.troubles),
            "annotations": dict(self.asked),
            "sockets": list(self.sockets),
            "sidecars": {
                name: {
                    **_pair(row.process),
                    "state": row.state,
                    "restarts": row.restarts,
                    "last_exit": row.last_exit,
                    "since": row.since,
                    "gave_up": row.gave_up,
                }
                for name, row in self.services
            },
        }


def write(path: str, record: Record) -> None:
    """Replace the record at `path`; the directory must exist. Raises OSError.

    Only the holder of the bundle's lock writes. What it tells of ends with the machine, so the disk is not waited for.
    """
    durable.replace(path, dumps(record.document()) + "\n", durable=False, only_writer=True)


def read(path: str) -> Record | None:
    """The record, or None when there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            document = loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return None
    return _decode(document)


def _decode(document: dict[str, object]) -> Record:
    """Read leniently: a record of another version, or a damaged one, tells what it can."""
    services, sockets, troubles = document.get("sidecars"), document.get("sockets"), document.get("troubles")
    started, error, asked = document.get("started"), document.get("error"), document.get("annotations")
    return Record(
        name=str(document.get("container") or ""),
        identity=str(document.get("container_id") or ""),
        container=_process(document, "container_"),
        supervisor=_process(document),
        standby=_process(document.get("standby")),
        phase=str(document.get("phase") or ""),
        started=started if isinstance(started, (int, float)) else 0.0,
        error=error if isinstance(error, str) else None,
        troubles=tuple(line for line in troubles if isinstance(line, str)) if isinstance(troubles, list) else (),
        asked=tuple((key, str(value)) for key, value in asked.items()) if isinstance(asked, dict) else (),
        sockets=tuple(line for line in sockets if isinstance(line, str)) if isinstance(sockets, list) else (),
        services=tuple((name, _row(row)) for name, row in services.items()) if isinstance(services, dict) else (),
    )


def _row(document: object) -> Row:
    if not isinstance(document, dict):
        return Row()
    since, restarts, last_exit = document.get("since"), document.get("restarts"), document.get("last_exit")
    return Row(
        process=_process(document),
        state=str(document.get("state") or ""),
        since=since if isinstance(since, (int, float)) else 0.0,
        restarts=restarts if isinstance(restarts, int) else 0,
        last_exit=last_exit if isinstance(last_exit, str) else None,
        gave_up=document.get("gave_up") is True,
    )


def _pair(process: Process | None) -> dict[str, int | None]:
    return {"pid": process.pid if process else None, "start_time": process.start_time if process else None}


def _process(document: object, prefix: str = "") -> Process | None:
    if not isinstance(document, dict):
        return None
    pid, started = document.get(f"{prefix}pid"), document.get(f"{prefix}start_time")
    if type(pid) is not int or type(started) is not int or pid <= 0:
        return None
    return Process(pid, started)
