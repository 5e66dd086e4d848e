"""Composes the wiring of a container that was started with annotations alone; run by the createRuntime hook.

`python -I -S annotated.py DATA RUNTIME CONFIG`, the container's OCI state on stdin; prints the sidecar JSON's path, or
one sentence on stderr. It runs on every start of the container, inside Podman's user namespace.

A container's environment can't be changed here any more, so the variables go to the readable file /run/terok/env.
"""

from __future__ import annotations

import os
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..host.podman import NetworkPlan
    from ..kit.config import Config
    from .request import Request


def main() -> int:
    """Make `terok_host` importable, compose, and turn an error into a sentence and an exit code."""
    package = types.ModuleType("terok_host")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
    sys.modules["terok_host"] = package
    from terok_host.supervisor.ground.bootstrap import find_packages
    from terok_host.supervisor.ground.errors import TerokError

    find_packages()
    from terok_host.runtime.launch import annotated

    try:
        print(annotated.compose(sys.stdin.buffer.read(), *sys.argv[1:4]))
    except TerokError as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


def compose(state: bytes, data: str, runtime: str, config: str) -> str:
    """Write the bundle of the container that the OCI state describes; returns its sidecar JSON's path.

    Args:
        state: the OCI state.
        data, runtime, config: the operator's directories, as `Layout` takes them.

    Raises:
        TerokError: the scope is unknown, a profile is, or the container's configuration can't be read.
    """
    import json

    from ...supervisor.container.container import read_config
    from ...supervisor.ground.errors import TerokError
    from ...supervisor.ground.layout import Layout, check_name, container_env
    from ..kit import files
    from ..kit.config import load_at
    from .bundle import env_file
    from .prepare import prepare_in

    try:
        document = json.loads(state)
        identity, bundle = str(document["id"]), str(document["bundle"])
        annotations: dict[str, str] = dict(document.get("annotations") or {})
    except (ValueError, KeyError, TypeError) as error:
        raise TerokError("Standard input is not a valid OCI state.") from error
    cfg = load_at(Layout(data, runtime, config))
    request = request_of(check_name(identity[:12]), annotations, cfg)
    prepared = prepare_in(request, cfg, network_of(document, annotations, read_config(bundle), cfg))
    # the runtime directory is what the container sees, whatever its user
    variables = container_env(cfg.layout.runtime_dir(request.container))
    files.write(variables, env_file(prepared.env), mode=0o644)
    return str(prepared.bundle.sidecar)


def request_of(container: str, annotations: Mapping[str, str], cfg: Config) -> Request:
    """The launch that annotations ask for.

    Raises:
        TerokError: the scope is unknown (NOT_FOUND), a port is none, or ports are to be published without the airlock.
    """
    from ...supervisor.ground import layout
    from ...supervisor.ground.errors import Exit, TerokError
    from ...supervisor.ground.layout import ANNOTATION_PROFILES, ANNOTATION_SCOPE, ANNOTATION_UDP_PORTS, check_name
    from ..host.podman import AIRLOCK
    from ..host.publish import annotated_udp_ports, parse_ports
    from . import services
    from .request import Request

    scope = annotations.get(ANNOTATION_SCOPE)
    if scope is not None:
        services.require_scope(cfg.layout, check_name(scope))
    profiles = annotations.get(ANNOTATION_PROFILES)
    published = annotations.get(layout.ANNOTATION_PUBLISH, "").split()
    if published and annotations.get(layout.ANNOTATION_NETWORK) != AIRLOCK:
        raise TerokError(
            f"The annotation {layout.ANNOTATION_PUBLISH} needs {layout.ANNOTATION_NETWORK}={AIRLOCK}.",
            fix="use podman's --publish in every other network",
            code=Exit.USAGE,
        )
    return Request(
        container,
        scope=scope,
        profiles=tuple(name for name in profiles.split(":") if name) if profiles else None,
        udp_ports=annotated_udp_ports(annotations.get(ANNOTATION_UDP_PORTS, "")),
        published=parse_ports(published),
        once=True,
    )


def network_of(
    state: Mapping[str, object], annotations: Mapping[str, str], config: Mapping[str, object], cfg: Config
) -> NetworkPlan:
    """The network that Podman gave the container, or the airlock, which closes that one.

    Raises:
        TerokError: it has one, and the address at which it answers DNS cannot be told; or the annotation is wrong.
    """
    from ...supervisor.ground.errors import Exit, TerokError
    from ...supervisor.ground.layout import ANNOTATION_NETWORK
    from ..host import podman, resolver

    wanted = annotations.get(ANNOTATION_NETWORK)
    if wanted is not None and wanted != podman.AIRLOCK:
        raise TerokError(
            f"The annotation {ANNOTATION_NETWORK} is {wanted[:40]!r}; it can only be {podman.AIRLOCK}.",
            fix="use podman's --network for every other network",
            code=Exit.USAGE,
        )
    if wanted == podman.AIRLOCK:
        return podman.NetworkPlan(podman.AIRLOCK, "", None)
    return podman.NetworkPlan(podman.ANNOTATED, "", cfg.shield.forwarder or resolver.find(state, config))


if __name__ == "__main__":
    sys.exit(main())
