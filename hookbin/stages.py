"""The two hook stages: `createRuntime` lets a container start or refuses it, `poststop` takes everything away."""

from __future__ import annotations

import os
import select
import sys
import time

from ..supervisor import audit, layout, process, schema
from ..supervisor.errors import Exit, TerokError
from ..supervisor.quick import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STATE_MAX = 1 << 20
STDIN_DEADLINE = 5.0
"""Seconds for the runtime to hand over the state (a few hundred bytes)."""
_OURS = (layout.ANNOTATION_SIDECAR, layout.ANNOTATION_SCOPE, layout.ANNOTATION_PROFILES, layout.ANNOTATION_STATE_DIR)


def run(arguments: list[str]) -> int:
    """Run the stage named by the only argument; returns the exit code that decides over the container's start."""
    process.reset_signals()  # crun runs hooks with every signal blocked
    os.umask(0o077)
    stages: dict[str, Callable[[dict[str, Any]], None]] = {"createRuntime": create_runtime, "poststop": poststop}
    stage = arguments[0] if len(arguments) == 1 else ""
    state: dict[str, Any] = {}
    try:
        # drained before anything else: crun fails with EPIPE when a hook ends with its stdin unread
        content = _read_stdin()
        if stage not in stages:
            raise TerokError(
                f"Unknown hook stage {' '.join(arguments)[:60]!r}: expected createRuntime or poststop.", code=Exit.USAGE
            )
        state = _parse(content)
        stages[stage](state)
    except TerokError as error:
        _report(state, stage, error)
        return error.code
    except OSError as error:
        _report(state, stage, TerokError(f"The {stage or 'hook'} stage failed: {error}."))
        return Exit.FAILURE
    return Exit.OK


def create_runtime(state: dict[str, Any]) -> None:
    """Bring the container's services up; raises TerokError to refuse its start."""
    path = _annotations(state).get(layout.ANNOTATION_SIDECAR)
    if path is None:
        if any(name in _annotations(state) for name in _OURS):
            raise TerokError(
                f"The container has annotations of terok but no {layout.ANNOTATION_SIDECAR}.",
                fix="start it with `terok run`, or with the flags that `terok prepare` prints",
            )
        return
    pid, bundle = state.get("pid"), state.get("bundle")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        raise TerokError("The OCI state on stdin has no pid of a created container.")
    if not isinstance(bundle, str) or not bundle.startswith("/"):
        raise TerokError("The OCI state on stdin has no absolute bundle path.")
    wiring = schema.load(path)
    from ..supervisor.container import Container
    from ..supervisor.start import start

    start(wiring, Container(pid, bundle))


def poststop(state: dict[str, Any]) -> None:
    """Reap what the supervisor did not; harmless when repeated, late, or for a container that is not ours."""
    path = _annotations(state).get(layout.ANNOTATION_SIDECAR)
    if path is None or not os.path.exists(path):
        return
    wiring = schema.load(path)
    from ..supervisor.reap import reap

    reap(wiring.bundle, wiring.runtime_dir)


def _annotations(state: dict[str, Any]) -> dict[str, str]:
    annotations = state.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise TerokError("The OCI state's annotations are not an object.")
    return {key: value for key, value in annotations.items() if isinstance(value, str)}


def _read_stdin() -> bytes:
    deadline = time.monotonic() + STDIN_DEADLINE
    chunks: list[bytes] = []
    size = 0
    while True:
        wait = deadline - time.monotonic()
        if wait <= 0 or not select.select([0], [], [], wait)[0]:
            raise TerokError(f"No OCI state came on stdin within {STDIN_DEADLINE:g} s.")
        chunk = os.read(0, 65536)
        size += len(chunk)
        if not chunk:
            return b"".join(chunks)
        if size <= STATE_MAX:
            chunks.append(chunk)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        state = loads(content)
    except (ValueError, RecursionError) as error:
        raise TerokError("The OCI state on stdin is not JSON (OCI runtime specification, State).") from error
    if not isinstance(state, dict):
        raise TerokError("The OCI state on stdin is not a JSON object.")
    return state


def _report(state: dict[str, Any], stage: str, error: TerokError) -> None:
    """Say it on stderr (of which crun shows little) and in hook-error.log, where `terok status` finds it."""
    print(f"terok: {error}", file=sys.stderr)
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {stage or 'hook'}: {error}\n".replace("\0", "")
    directory = _error_directory(state)
    if directory is None:
        return
    try:
        path = layout.Bundle(directory).hook_error
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        with open(fd, "a", encoding="utf-8") as log:
            if os.fstat(fd).st_size > 1 << 20:
                os.ftruncate(fd, 0)
            log.write(line)
        audit.append(
            layout.Bundle(directory).audit,
            "hook",
            stage or "hook",
            verdict="refused",
            reason=error.what,
            allow=error.fix,
        )
    except OSError as failure:
        print(f"terok: hook-error.log could not be written: {failure.strerror}", file=sys.stderr)


def _error_directory(state: dict[str, Any]) -> str | None:
    """The bundle that the annotation points into, if it is a directory of ours alone; else the data directory."""
    try:
        path = _annotations(state).get(layout.ANNOTATION_SIDECAR, "")
    except TerokError:
        path = ""
    candidates = [os.path.dirname(path)] if path.startswith("/") and "/../" not in path else []
    candidates.append(layout.Layout.from_environ(os.environ).data)
    for directory in candidates:
        try:
            info = os.lstat(directory)
        except OSError:
            continue
        if os.path.isdir(directory) and info.st_uid == os.geteuid() and not info.st_mode & 0o022:
            return directory
    return None
