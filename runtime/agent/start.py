"""`terok start`: from a project directory to its agent, in one step.

A container that exists is continued where it was; otherwise login, image and wiring are made, in this order, so that a
question comes before anything slow, and nothing is written before the question is answered.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import NoReturn

from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name, outer_uid
from ..kit.env import Env
from ..launch.prepare import prepare
from ..launch.request import Request
from ..launch.resources import containers as prepared
from . import containers, images, login, project
from .recipes import HOME, RECIPES, UID, WORKSPACE, Recipe, recipe_of, tag

CATATONIT = ("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/bin/catatonit")
"""Where distributions put the small init that `podman run --init` needs."""


@dataclass(frozen=True)
class Order:
    """What the operator asked for.

    Attributes:
        agent: the agent's name; empty: the one whose container this project has.
        scope, name, workspace: as in `project.describe`.
        image: an image instead of the recipe's.
        login: one of `login.WAYS`, or None to ask.
        profiles, network, restricted: as in `launch.request.Request`.
        rm: the container goes with its end.
        detach: return when it runs instead of attaching the terminal.
        words: further arguments for the agent.
    """

    agent: str
    scope: str | None = None
    name: str | None = None
    workspace: str | None = None
    image: str | None = None
    login: str | None = None
    profiles: tuple[str, ...] | None = None
    network: str | None = None
    restricted: bool = False
    rm: bool = False
    detach: bool = False
    words: tuple[str, ...] = ()


def start(order: Order, env: Env) -> NoReturn:
    """Start or continue the agent's container; at a terminal this process becomes podman.

    Raises:
        TerokError: what is missing, with the command that helps.
    """
    if not order.agent:
        _again(order, env)
    recipe = recipe_of(order.agent)
    home = env.environ.get("HOME", "/")
    place = project.describe(
        order.agent, os.getcwd(), home, scope=order.scope, name=order.name, workspace=order.workspace
    )
    check_name(place.scope)
    known = containers.look(check_name(place.container), env.environ)
    if known is not None:
        _continue(known, place, order, env)

    def image() -> str:
        return order.image or _built(recipe, env)

    login.ensure(env, order.agent, place.scope, order.login, image)
    name = image()
    made = prepare(
        Request(
            place.container,
            scope=place.scope,
            allow_missing=True,  # the operator chose to go without, or the agent needs no credential
            profiles=order.profiles,
            network=order.network or network(env.config.network.mode),
            restricted=order.restricted or env.config.restricted.always,
        ),
        env.config,
        env.environ,
    )
    for note in made.notes:
        env.note(note)
    words = run_words(order, recipe, place, name, term=env.environ.get("TERM", "xterm"), root=outer_uid() == 0)
    env.note(f"{place.container}: {order.agent} in {place.workspace}, scope {place.scope}.")
    containers.become(["run", *made.flags, *words], env.environ)


def network(configured: str) -> str:
    """The network mode of an agent's container: the airlock, unless the configuration names a mode."""
    return "airlock" if configured == "auto" else configured


def _again(order: Order, env: Env) -> NoReturn:
    """Without an agent's name: the container that has this directory as its workspace."""
    place = project.describe("", os.getcwd(), env.environ.get("HOME", "/"), scope=None, name=None, workspace=None)
    looked = [containers.look(name, env.environ) for name in prepared(env.config)]
    here = [container for container in looked if container and container.workspace == place.workspace]
    if order.name is not None:
        here = [container for container in here if container.name == order.name]
    if len(here) != 1:
        names = ", ".join(container.name for container in here)
        raise TerokError(
            f"{place.workspace} has {'several containers: ' + names if here else 'no container yet'}.",
            fix="terok start --name NAME" if here else f"terok start {' | '.join(RECIPES)}",
            code=Exit.USAGE if here else Exit.NOT_FOUND,
        )
    _continue(here[0], place, order, env)


def _built(recipe: Recipe, env: Env) -> str:
    """The recipe's image, built when it is not there."""
    base = env.config.agents.base_image
    name = tag(recipe, base)
    if not images.exists(name, env.environ):
        env.note(f"Building the image for {recipe.agent} from {recipe.base or base}, once, with Podman's own network.")
        images.build(recipe, base, env.environ)
    return name


def run_words(order: Order, recipe: Recipe, place: project.Project, image: str, *, term: str, root: bool) -> list[str]:
    """What follows terok's own flags in `podman run`; pure but for the look for an init.

    Args:
        order, recipe, place, image: what to run, and where.
        term: the terminal's type.
        root: Podman runs as real root, which has no `keep-id`: the container's root owns the workspace then.
    """
    # detached, it has a terminal all the same: an agent without one ends at once; `terok start` attaches to it later
    words = ["--detach", "--interactive", "--tty"] if order.detach else ["--interactive"]
    if not order.detach and sys.stdin.isatty():
        words.append("--tty")
    if order.rm:
        words.append("--rm")
    if any(os.path.exists(path) for path in CATATONIT):
        words.append("--init")
    words += ["--user", "0:0"] if root else ["--userns", f"keep-id:uid={UID},gid={UID}"]
    # z: on SELinux hosts the files get a label that containers may use; elsewhere it does nothing
    words += ["--volume", f"{place.workspace}:{WORKSPACE}:{'z' if place.writable else 'ro,z'}"]
    words += ["--volume", f"{volume(place)}:{HOME}", "--env", f"HOME={HOME}", "--env", f"TERM={term}"]
    words += ["--workdir", WORKSPACE, image]
    return [*words, *command(order, recipe)]


def command(order: Order, recipe: Recipe) -> list[str]:
    """The agent's own command line. Its permission prompts are off in here unless the container is restricted."""
    return [*recipe.command, *(() if order.restricted else recipe.unattended), *order.words]


def volume(place: project.Project) -> str:
    """The volume that holds the scope's home directory: settings, history, caches; no credential is in it."""
    return f"terok-{place.scope}-home"


def _continue(known: containers.Known, place: project.Project, order: Order, env: Env) -> NoReturn:
    """Go on with a container that is there already: this process becomes podman."""
    if known.workspace != place.workspace:
        raise TerokError(
            f"The container {known.name} exists and has another workspace: {known.workspace or 'none'}.",
            fix=f"terok start {order.agent} --name ANOTHER, or terok rm {known.name}",
            code=Exit.REFUSED,
        )
    if order.image or order.profiles or order.network or order.words:
        raise TerokError(
            f"The container {known.name} exists; its image, profiles, network and command stay as they are.",
            fix=f"terok start {order.agent} without these options, or terok rm {known.name} first",
            code=Exit.REFUSED,
        )
    if order.detach:
        containers.become(["start", "--", known.name], env.environ)
    if known.running:
        containers.become(["attach", "--", known.name], env.environ)
    containers.become(["start", "--attach", "--interactive", "--", known.name], env.environ)
