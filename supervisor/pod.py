"""A container that joins the network of one that is served already, as the later containers of a pod do.

One network has one set of rules, one resolver and one set of listeners, which the supervisor of its first container
holds. A later container has the same wiring mounted and no supervisor of its own, if it asks for the same; what asks
for something else must not start, since it would get what is there.
"""

from __future__ import annotations

import os

from . import record, schema
from .container import mounts
from .container.trust import Trust
from .ground import audit, layout
from .ground.errors import Exit, TerokError
from .ground.layout import Bundle
from .ground.log import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container.container import Container
    from .schema import Wiring

_SAME = (
    layout.ANNOTATION_PROFILES,
    layout.ANNOTATION_UDP_PORTS,
    layout.ANNOTATION_NETWORK,
    layout.ANNOTATION_PUBLISH,
)
"""What a container that joins may ask for only as the first one did."""


def host(container: Container, containers: str) -> Bundle | None:
    """The bundle whose supervisor serves the network of a container that is just being created; None without one.

    Args:
        container: one that joins a network (`joined`).
        containers: the directory of all state bundles.
    """
    return served(containers).get(os.fstat(container.net).st_ino)


def served(containers: str) -> dict[int, Bundle]:
    """The networks that live supervisors serve: the inode of each network namespace, and the supervisor's bundle."""
    networks = {}
    for name in _names(containers):
        bundle = Bundle(os.path.join(containers, name))
        known = record.read(bundle.record)
        if known is not None and known.phase == record.READY and known.container is not None and known.alive():
            networks[network_of(known.container.pid)] = bundle
    networks.pop(0, None)
    return networks


def join(container: Container, bundle: Bundle) -> None:
    """Give a container what the first one of its network has.

    Args:
        container: just being created.
        bundle: the first one's.

    Raises:
        TerokError: it asks for something else, or something could not be mounted; it must not start then.
    """
    wiring, known = schema.load(bundle.sidecar), record.read(bundle.record)
    if reason := difference(container.asked, wiring, dict(known.asked) if known else {}):
        raise TerokError(
            f"The network of this container is already served for {wiring.container}, {reason}.",
            fix="give both containers the same terok annotations, or start this one outside of the pod",
            code=Exit.REFUSED,
        )
    trust = Trust(bundle, wiring.runtime_dir, container.identity[:12] + "-") if wiring.trust else None
    mounts.begin(container, wiring.mounts, shared=True, trust=trust).finish()
    try:
        audit.append(bundle.audit, "hook", "joined", container=container.identity[:12])
    except OSError as error:
        say(f"The audit line could not be written: {error.strerror}")


def difference(asked: dict[str, str], wiring: Wiring, first: dict[str, str]) -> str:
    """What a container that joins asks for and does not get, as the end of a sentence; "" when all is well.

    Args:
        asked: its annotations.
        wiring, first: the wiring and the annotations of the network's first container.
    """
    if layout.ANNOTATION_SIDECAR in asked:
        return "and this one has wiring of its own"
    scope = asked.get(layout.ANNOTATION_SCOPE)
    if scope != wiring.scope:
        return f"with the scope {wiring.scope or 'none'}, and this one asks for {scope or 'none'}"
    for key in _SAME:
        if key in asked and asked[key] != first.get(key):
            return f"with {key}={first.get(key, '')}, and this one asks for {asked[key]}"
    return ""


def network_of(pid: int) -> int:
    """The inode of a process's network namespace (namespaces(7)); 0 when it has ended or cannot be looked at."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def _names(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError:
        return []
