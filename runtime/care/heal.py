"""`terok heal NAME`: a new supervisor for a running container without one, as after both its processes were killed.

Until then everything stays closed: the firewall is in the kernel, the sockets refuse. The new supervisor opens the
same sockets; where the runtime directory was removed, it is made and mounted into the container again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ...supervisor import record, schema, strays
from ...supervisor.ground import layout, paste, process
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle
from ...supervisor.wall import resolver
from ..host import podman
from ..kit import files
from ..kit.alive import missing_sockets
from ..kit.env import Env
from ..kit.verb import CONTAINER, verb

_TIMEOUT = 30.0


@verb(CONTAINER, examples=("terok heal box",))
def run(args: argparse.Namespace, env: Env) -> int:
    """Start a new supervisor for a running container that has lost its own, as after both its processes were killed.

    Until then the firewall stays in force and the container's services are unreachable. A dnsmasq that answers and no
    longer puts addresses into the firewall is started anew.
    """
    bundle = env.layout.bundle(args.name)
    if not os.path.exists(bundle.sidecar):
        raise TerokError(f"{bundle.name} is not a terok container.", fix="terok status lists them", code=Exit.NOT_FOUND)
    with files.locked(bundle.heal_lock):  # of several at once, the first one heals and the others find it done
        healthy = supervised(bundle)
        if not healthy:
            heal(bundle, env)
    if healthy and restart_resolver(bundle):
        env.out.emit({"container": args.name, "healed": True}, f"{args.name}: dnsmasq was started anew.")
        return Exit.OK
    if healthy:
        env.out.emit({"container": args.name, "healed": False}, f"{args.name} already has a supervisor.")
        return Exit.OK
    env.out.emit({"container": args.name, "healed": True}, f"{args.name} has a new supervisor.")
    return Exit.OK


def supervised(bundle: Bundle) -> bool:
    """True when the supervisor or its standby, as recorded, is alive, and the sockets are where clients look."""
    known = record.read(bundle.record)
    if known is None or not any(half is not None and half.alive() for half in (known.supervisor, known.standby)):
        return False
    return not missing_sockets(known)


def restart_resolver(bundle: Bundle) -> bool:
    """Have the supervisor start dnsmasq anew when it got stuck (`resolver.unread`); False when it did not."""
    known = record.read(bundle.record)
    dns = known.service(strays.DNSMASQ).process if known else None
    supervisor = known.supervisor.open() if known and known.supervisor else None
    if supervisor is None:
        return False
    try:
        if dns is None or not resolver.stuck(dns.pid):
            return False
        signal.pidfd_send_signal(supervisor, signal.SIGHUP)
        return True
    finally:
        os.close(supervisor)


def heal(bundle: Bundle, env: Env) -> None:
    """Start a supervisor inside Podman's user and mount namespaces, where the hook would have started it.

    Raises:
        TerokError: there is no such container, it is not running, or the supervisor could not be brought up.
    """
    state = inspect(bundle.name, env)
    if not state["State"]["Running"]:
        raise TerokError(
            f"{bundle.name} is not running, so there is nothing to heal.",
            fix=paste.command("podman", "start", bundle.name),
        )
    oci_bundle = os.path.dirname(state["OCIConfigPath"])
    words = [bundle.sidecar, state["Id"], str(state["State"]["Pid"]), oci_bundle]
    inner = [sys.executable, "-m", "terok_host.runtime.care.heal", *words]
    command = inner if layout.outer_uid() == 0 else ["unshare", *inner]
    environ = dict(env.environ)
    done = (
        process.run(command, timeout=_TIMEOUT, env=environ)
        if command is inner
        else podman.call(command, environ, timeout=_TIMEOUT)
    )
    if done.code != 0:
        raise TerokError(f"The supervisor of {bundle.name} could not be started: {done.error}")


def inspect(name: str, env: Env) -> dict[str, Any]:
    """What `podman container inspect` says of the container; raises TerokError when there is none."""
    done = podman.call(["container", "inspect", "--", name], env.environ, timeout=_TIMEOUT)
    if done.code != 0:
        raise TerokError(f"Podman knows no container {name}: {done.error}", code=Exit.NOT_FOUND)
    description: dict[str, object] = json.loads(done.out)[0]
    return description


def inside(words: list[str]) -> int:
    """The part inside Podman's namespaces: ends what is left of the old services and detaches a new supervisor."""
    from ...supervisor.container.container import Container, read_config
    from ...supervisor.reap import end_processes
    from ...supervisor.start import start
    from ...supervisor.wall import enforceable

    path, identity, pid, oci_bundle = words
    wiring = schema.load(path)
    container = Container(identity, int(pid), oci_bundle, read_config(oci_bundle))
    if wiring.shield is not None:
        enforceable.check(container, None)
    end_processes(wiring.bundle)
    start(wiring, container, detach=detach, running=True)
    return Exit.OK


def detach(body: Callable[[], int], keep: list[int]) -> int:
    """Become a daemon (own session, no inherited descriptors but `keep`, no core dumps) and run the body."""
    import daemon

    context = daemon.DaemonContext(
        detach_process=True, umask=0o077, working_directory="/", files_preserve=keep, signal_map={}
    )
    context.open()
    return body()


if __name__ == "__main__":
    try:
        sys.exit(inside(sys.argv[1:]))
    except TerokError as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)
