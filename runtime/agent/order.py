"""What the operator and the project file ask for, as one order. Pure but for a look at the paths of mounts."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ...supervisor.ground.errors import Exit, TerokError
from ..kit.verb import nearest
from ..project.file import Found, Project
from ..project.names import contains


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        agent: the agent's name; empty: the one whose container this project has.
        scope, name, workspace: as in `names.describe`.
        clone: work on a clone that the gate serves, instead of the directory itself.
        image: an image instead of the recipe's.
        containerfile: the text of a Containerfile whose image is used instead; empty without.
        login: one of `login.WAYS`, or None to ask.
        profiles, network, restricted, allow: as in `launch.request.Request`.
        publish: ports, in Podman's notation.
        mounts: (DIR:PATH[:ro], the directory that a relative DIR starts from).
        environment: NAME=VALUE each.
        rm: the container goes with its end.
        detach: return when it runs instead of attaching the terminal.
        words: further arguments for the agent.
    """

    agent: str
    scope: str | None = None
    name: str | None = None
    workspace: str | None = None
    clone: bool = False
    image: str | None = None
    containerfile: str = ""
    login: str | None = None
    profiles: tuple[str, ...] | None = None
    network: str | None = None
    restricted: bool = False
    allow: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    environment: tuple[str, ...] = ()
    rm: bool = False
    detach: bool = False
    words: tuple[str, ...] = ()


def merged(order: Order, file: Found | None) -> Order:
    """The order, completed by what the project file says; what the operator typed wins, lists are put together."""
    if file is None:
        return order
    said: Project = file.project
    own_image = order.image is not None
    return replace(
        order,
        agent=order.agent or said.agent or "",
        scope=order.scope or said.scope,
        image=order.image or said.image,
        containerfile="" if own_image else file.containerfile,
        allow=(*(said.allow or ()), *order.allow),
        publish=(*(said.publish or ()), *order.publish),
        mounts=(*((mount, file.directory) for mount in said.mounts or ()), *order.mounts),
        environment=(*(f"{name}={value}" for name, value in said.environment or ()), *order.environment),
    )


def fixed_at_creation(order: Order) -> bool:
    """Whether the order holds something that a container which exists can't take over any more."""
    return bool(
        order.image
        or order.profiles
        or order.network
        or order.words
        or order.clone
        or order.allow
        or order.publish
        or order.mounts
        or order.environment
    )


def volumes(order: Order, home: str) -> list[str]:
    """The order's mounts for Podman's --volume, with absolute sources.

    Raises:
        TerokError: a source is no directory or file, or holds the operator's home directory.
    """
    texts = []
    for mount, base in order.mounts:
        source, _, rest = mount.partition(":")
        real = os.path.realpath(os.path.join(base, os.path.expanduser(source)))
        if not os.path.exists(real):
            raise TerokError(f"The mount {mount!r}: there is no {real}.", code=Exit.NOT_FOUND)
        if contains(real, os.path.realpath(home)):
            raise TerokError(f"The mount {mount!r} would show your home directory.", code=Exit.REFUSED)
        if not rest.startswith("/") or ":" in real:
            raise TerokError(f"The mount {mount!r} is not DIR:PATH[:ro] with PATH absolute.", code=Exit.USAGE)
        target, _, mode = rest.partition(":")
        if mode not in ("", "ro", "rw"):
            meant = nearest(mode, ["ro", "rw"]) or "ro"
            raise TerokError(f"The mount {mount!r} ends in {mode!r}.", fix=f"write {meant}", code=Exit.USAGE)
        texts.append(f"{real}:{target}:{'ro,z' if mode == 'ro' else 'z'}")
    return texts


def ports(order: Order) -> list[str]:
    """The order's ports for Podman's --publish: on this machine alone unless an address is given."""
    addressed = [text.count(":") > 1 or text.startswith("[") for text in order.publish]
    return [text if has else f"127.0.0.1:{_both(text)}" for text, has in zip(order.publish, addressed, strict=True)]


def _both(text: str) -> str:
    port, slash, protocol = text.partition("/")
    return text if ":" in port else f"{port}:{port}{slash}{protocol}"
