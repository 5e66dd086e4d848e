"""The two hook stages: `createRuntime` lets a container start or refuses it, `poststop` takes everything away."""

from __future__ import annotations

import os
import select
import sys
import time

from ..supervisor import schema
from ..supervisor.ground import audit, layout
from ..supervisor.ground.errors import Exit, TerokError
from ..supervisor.ground.log import mark, trace
from ..supervisor.ground.quick import dumps, loads, reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..supervisor.container.container import Container
    from ..supervisor.schema import Wiring

STATE_MAX = 1 << 20
STDIN_DEADLINE = 5.0
"""Seconds for the runtime to hand over the state (a few hundred bytes)."""
COMPOSE_DEADLINE = 8.0
"""Seconds for composing the wiring of a container that has only annotations."""
_OTHERS = ("io.podman.annotations.", "io.kubernetes.", "io.container.", "container.apparmor.security.")
"""Keys of Podman and Kubernetes that may end with the name of a container, and so with any word."""


def run(arguments: list[str]) -> int:
    """Run a stage; returns the exit code that decides over the container's start.

    Args:
        arguments: the stage, then the operator's data, runtime and configuration directories as `terok setup` knew
            them (without them, as the environment says), and the file for a trace.
    """
    if len(arguments) == 5:
        trace(arguments.pop())
    mark("stages imported")
    reset_signals()  # crun runs hooks with every signal blocked
    os.umask(0o077)
    stages: dict[str, Callable[[dict[str, object], layout.Layout], None]] = {
        "createRuntime": create_runtime,
        "poststop": poststop,
    }
    stage = arguments[0] if len(arguments) in (1, 4) else ""
    places = layout.Layout(*arguments[1:]) if len(arguments) == 4 else layout.Layout.from_environ(os.environ)
    state: dict[str, object] = {}
    try:
        # drained before anything else: crun fails with EPIPE when a hook ends with its stdin unread
        content = _read_stdin()
        if stage not in stages:
            raise TerokError(
                f"Unknown hook stage {' '.join(arguments)[:60]!r}: expected createRuntime or poststop.", code=Exit.USAGE
            )
        state = _parse(content)
        stages[stage](state, places)
    except TerokError as error:
        _report(state, stage, places, error)
        return error.code
    except OSError as error:
        _report(state, stage, places, TerokError(f"The {stage or 'hook'} stage failed: {error}."))
        return Exit.FAILURE
    return Exit.OK


def create_runtime(state: dict[str, object], places: layout.Layout) -> None:
    """Bring the container's services up; raises TerokError to refuse its start."""
    annotations = _annotations(state)
    if not _meant_for_us(annotations):
        return
    pid, bundle = state.get("pid"), state.get("bundle")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        raise TerokError("The OCI state on stdin has no pid of a created container.")
    if not isinstance(bundle, str) or not bundle.startswith("/"):
        raise TerokError("The OCI state on stdin has no absolute bundle path.")
    from ..supervisor.container.container import Container, read_config
    from ..supervisor.container.origin import Origin
    from ..supervisor.start import start
    from ..supervisor.wall import enforceable

    mark("imported")
    config = read_config(bundle)
    origin = Origin.find(_identity(state), bundle, config)
    origin.refuse_images_words()
    container = Container(origin.identity, pid, bundle, config)
    path = annotations.get(layout.ANNOTATION_SIDECAR)
    if path is None:
        origin.require_known_image()
    if container.joined and _join(container, places):
        return
    if path is None:
        wiring = schema.load(compose(state, places))
    else:
        wiring = schema.load(path)
        origin.require_name(wiring.container)
    if wiring.shield is not None:
        enforceable.check(container, origin)
    mark("read and checked")
    start(wiring, container)
    mark("ready")


def _join(container: Container, places: layout.Layout) -> bool:
    """Give a container that joins the network of a served one the same services; False when that one has none."""
    from ..supervisor import pod
    from ..supervisor.wall import enforceable

    bundle = pod.host(container, places.containers)
    if bundle is None:
        return False
    enforceable.check(container, None)
    pod.join(container, bundle)
    return True


def compose(state: dict[str, object], places: layout.Layout) -> str:
    """Have the wiring written for a container that has only annotations; returns the path of its sidecar JSON.

    That takes the configuration, the roster and the store, which a hook does not know:
    `runtime/launch/annotated.py` does it in a process of its own. It gets the state on stdin and prints the path.

    Raises:
        TerokError: with the sentence that the program printed.
    """
    from ..supervisor.ground import process

    program = layout.program("runtime", "launch", "annotated.py")
    command = [sys.executable, "-I", "-S", program, places.data, places.runtime, places.config]
    done = process.run(
        command, stdin=dumps(state).encode(), timeout=COMPOSE_DEADLINE, env={**process.CLEAN_ENV, **_own_places()}
    )
    path = done.out.decode(errors="replace").strip()
    if done.code != 0 or not path.startswith("/"):
        raise TerokError(f"The wiring could not be composed from the annotations: {done.error}")
    return path


def _own_places() -> dict[str, str]:
    # HOME and its like as the user database has them: the hook's own environment may be the container's
    from pwd import getpwuid

    uid = layout.outer_uid()
    try:
        home = getpwuid(uid).pw_dir
    except KeyError:
        home = "/"
    return {"HOME": home, "XDG_RUNTIME_DIR": f"/run/user/{uid}"}


def poststop(state: dict[str, object], places: layout.Layout) -> None:
    """Reap what the supervisor did not; harmless when repeated, late, or for a container without a supervisor."""
    annotations = _annotations(state)
    path = annotations.get(layout.ANNOTATION_SIDECAR)
    if path is None and any(name in annotations for name in layout.ANNOTATIONS):
        path = places.bundle(annotated_name(state)).sidecar
    if path is None or not os.path.exists(path):
        return
    wiring = schema.load(path)
    from ..supervisor.reap import reap

    reap(wiring.bundle, wiring.runtime_dir)
    if os.path.exists(wiring.bundle.once):
        _forget(wiring, state, places)


def _forget(wiring: Wiring, state: dict[str, object], places: layout.Layout) -> None:
    """Have the bundle deleted if Podman removes the container, which it does after its hooks."""
    from ..supervisor.ground import process

    bundle, podman = state.get("bundle"), os.getppid()
    if not isinstance(bundle, str) or not bundle.startswith("/"):
        return
    program = layout.program("runtime", "care", "forget.py")
    try:
        stamp, started = os.stat(wiring.bundle.sidecar).st_mtime_ns, process.start_time(podman)
        words = [wiring.container, str(stamp), bundle, *((str(podman), str(started)) if podman > 1 else ("0", "0"))]
        command = [sys.executable, "-I", "-S", program, places.data, places.runtime, places.config, *words]
        process.spawn(command, env={**process.CLEAN_ENV, **_own_places()}, new_session=True)
    except (OSError, TerokError):
        pass  # the bundle stays: `terok status` counts it, and `terok doctor --fix` removes it


def annotated_name(state: dict[str, object]) -> str:
    """What a container is called that was started by annotations alone: its short id, as podman prints it."""
    return _identity(state)[:12]


def _meant_for_us(annotations: dict[str, str]) -> bool:
    """Whether an annotation asks for terok's services.

    Raises:
        TerokError: a key only resembles one of terok's, or has no value. Ignoring it would start an open container
            for an operator who asked for a closed one.
    """
    keys = [key for key in annotations if "terok" in key.lower() and not key.startswith(_OTHERS)]
    for key in keys:
        if key not in layout.ANNOTATIONS:
            raise TerokError(
                f"The annotation {key[:60]!r} is unknown.", fix="use one of " + ", ".join(layout.ANNOTATIONS)
            )
        if not annotations[key].strip():
            raise TerokError(f"The annotation {key} has no value.", fix=f"--annotation {key}=VALUE, or remove it")
    return bool(keys)


def _identity(state: dict[str, object]) -> str:
    identity = state.get("id")
    if not isinstance(identity, str):
        raise TerokError("The OCI state on stdin has no id.")
    return layout.check_name(identity)


def _annotations(state: dict[str, object]) -> dict[str, str]:
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


def _parse(content: bytes) -> dict[str, object]:
    try:
        state = loads(content)
    except (ValueError, RecursionError) as error:
        raise TerokError("The OCI state on stdin is not JSON (OCI runtime specification, State).") from error
    if not isinstance(state, dict):
        raise TerokError("The OCI state on stdin is not a JSON object.")
    return state


def _report(state: dict[str, object], stage: str, places: layout.Layout, error: TerokError) -> None:
    """Say it on stderr (of which crun shows little) and in hook-error.log, where `terok status` finds it."""
    print(f"terok: {error}", file=sys.stderr)
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {stage or 'hook'}: {error}\n".replace("\0", "")
    directory = _error_directory(state, places)
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


def _error_directory(state: dict[str, object], places: layout.Layout) -> str | None:
    """The bundle that the annotation points into, if it is the operator's own directory; else the data directory."""
    try:
        path = _annotations(state).get(layout.ANNOTATION_SIDECAR, "")
    except TerokError:
        path = ""
    candidates = [os.path.dirname(path)] if path.startswith("/") and "/../" not in path else []
    candidates.append(places.data)
    for directory in candidates:
        try:
            info = os.lstat(directory)
        except OSError:
            continue
        if os.path.isdir(directory) and info.st_uid == os.geteuid() and not info.st_mode & 0o022:
            return directory
    return None
