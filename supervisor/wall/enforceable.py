"""Which containers the shield refuses: those from which, or beside which, its firewall could be undone."""

from __future__ import annotations

import os

from ..ground.errors import TerokError
from . import firewall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..container.container import Container
    from ..container.origin import Origin

_HEX = frozenset("0123456789abcdef")


def check(container: Container, origin: Origin | None) -> None:
    """Refuse a container whose firewall would not hold.

    NET_ADMIN changes rules and marks, NET_RAW sets marks (kernel >= 5.17) and writes packets past the resolver. A
    network that is shared has the rules of the container that came last: only an empty pod, whose first container this
    is, can be protected; what joins it later is under the same rules.

    Args:
        container: as it was created.
        origin: what Podman's storage says; None when the container was checked at its start already.

    Raises:
        TerokError: with the option to remove.
    """
    held = sorted(container.capabilities & {"CAP_NET_ADMIN", "CAP_NET_RAW"})
    if held:
        raise TerokError(
            f"The container may use {' and '.join(held)}, with which it could undo its firewall.",
            fix="start it without --privileged and --cap-add of these, with --cap-drop NET_ADMIN,NET_RAW",
        )
    if container.foreign:
        raise TerokError(
            f"The container joins the network namespace {container.foreign}, which Podman did not make for it.",
            fix="start it without --network=ns:...",
        )
    if container.joined and origin is not None:
        _check_pod(container, origin)
    elif origin is not None and (others := [pid for pid in _members(container.net) if pid != container.pid]):
        raise TerokError(
            f"Other processes run in the container's network already ({', '.join(map(_command, others[:3]))}).",
            fix="start it with a network of its own",
        )


def _check_pod(container: Container, origin: Origin) -> None:
    part = container.joined.split("/")[2]
    holder = int(part) if part.isdigit() else 0
    names = origin.names_of(holder)
    if not any(is_infra(name) for name in names):
        raise TerokError(
            f"The container joins the network of another one ({names[0] if names else container.joined}), "
            "whose firewall is not its own.",
            fix="start it without --network=container:...",
        )
    others = [pid for pid in _members(container.net) if pid not in (holder, container.pid)]
    # rules that are there already are of this container's previous run: the others were started under them
    if others and not _has_rules(container):
        raise TerokError(
            f"Other processes run in the pod's network already ({', '.join(map(_command, others[:3]))}): they would "
            "share the firewall without having been started under it.",
            fix="stop the pod and start this container first; those with the same terok annotations join it",
        )


def _has_rules(container: Container) -> bool:
    try:
        firewall.observe(container.network)
    except TerokError:
        return False
    return True


def is_infra(name: str) -> bool:
    """Whether Podman gave this name to the container that holds a pod's namespaces: twelve digits of its id, -infra."""
    digits, dash, rest = name.partition("-")
    return bool(dash) and rest == "infra" and len(digits) == 12 and _HEX.issuperset(digits)


def _members(net: int) -> list[int]:
    """Processes of containers in the network namespace behind the descriptor, as far as this one may see them.

    Podman itself enters a container's network for a moment while it sets it up; what shares our mount namespace is
    no container.
    """
    link, own = f"net:[{os.fstat(net).st_ino}]", os.readlink("/proc/self/ns/mnt")
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.readlink(f"/proc/{name}/ns/net") == link and os.readlink(f"/proc/{name}/ns/mnt") != own:
                    members.append(int(name))
            except OSError:
                continue  # it has ended, or is another user's
    return members


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"{file.read().strip()}, pid {pid}"
    except OSError:
        return f"pid {pid}"
