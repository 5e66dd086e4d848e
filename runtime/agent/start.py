"""`terok start`: from a project directory to its agent, in one step.

A container that exists is continued where it was; otherwise login, image and wiring are made, in this order, so that a
question comes before anything slow, and nothing is written before the question is answered.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import GATE_PORT, check_name, outer_uid
from ..host import podman
from ..host.flags import parse
from ..kit.env import Env
from ..launch.prepare import prepare, with_ports
from ..launch.refusals import refuse
from ..launch.request import Request
from ..launch.resources import refuse_taken
from ..project import connected, names, rights, trust
from ..project import file as project_file
from . import containers, images, login, scopes
from .order import Order, fixed_at_creation, merged, ports, volumes
from .recipes import HOME, RECIPES, UID, WORKSPACE, Recipe, recipe_of, tag

CLONING = 'url=$1; shift; [ -n "$(ls -A)" ] || git clone -- "$url" . || exit; exec "$@"'
"""What runs before the agent in a container that works on a clone: the first start clones."""


def start(order: Order, env: Env) -> NoReturn:
    """Start or continue the agent's container; at a terminal this process becomes podman.

    Raises:
        TerokError: what is missing, with the command that helps.
    """
    place = _place(order, env)
    if not order.agent:
        _again(order, place, env)
    else:
        known = containers.look(check_name(place.container), env)
        if known is not None:
            _continue(known, place, order, env)
    file = project_file.read(place.workspace)
    if file is not None:
        trust.require(file, env.config, scope=order.scope)
        env.config = rights.apply(file.project, env.config)
    whole = merged(order, file)
    if not whole.agent:
        raise TerokError(
            f"{place.workspace} has no container yet.",
            fix="terok start " + " | ".join(RECIPES),
            code=Exit.NOT_FOUND,
        )
    recipe = recipe_of(whole.agent)
    place = _place(whole, env)
    scopes.permit(env, check_name(place.scope), place.workspace, whole.agent, typed=order.scope is not None)
    _begin(whole, recipe, place, file, env)


def _place(order: Order, env: Env) -> names.Place:
    """Names for the order; a directory that has used a scope before goes on using it."""
    place = names.describe(
        order.agent,
        os.getcwd(),
        env.environ.get("HOME", "/"),
        scope=order.scope,
        name=order.name,
        workspace=order.workspace,
    )
    used = [] if order.scope is not None else connected.scopes(env.layout, place.workspace)
    return replace(place, scope=used[0]) if used else place


def _begin(order: Order, recipe: Recipe, place: names.Place, file: project_file.Found | None, env: Env) -> NoReturn:
    """Make everything that is missing, and run."""
    further = _further(order, env)
    if order.clone and not os.path.isdir(env.layout.gate_home(place.scope).root):
        raise TerokError(
            f"--clone needs the git gate, and the scope {place.scope} has no mirror.",
            fix=paste.command("terok", "gate", "add", place.scope, "URL"),
            code=Exit.NOT_FOUND,
        )

    def image() -> str:
        return order.image or _built(recipe, order, place, env)

    way = login.decide(env, order.agent, place.scope, order.login)
    login.store(env, order.agent, place.scope, way, image)
    if way != login.NONE:  # the scope holds the directory's credential from here on, whatever becomes of the image
        connected.connect(env.layout, place.workspace, place.scope)
    name = image()
    connected.connect(env.layout, place.workspace, place.scope)
    request = Request(
        check_name(place.container),
        scope=place.scope,
        allow_missing=True,  # the operator chose to go without, or the agent needs no credential
        profiles=order.profiles,
        network=order.network,
        restricted=order.restricted or env.config.restricted.always,
        allow=order.allow,
        workspace=place.workspace,
        project_file=file.digest if file is not None else "",
    )
    request = with_ports(request, env.config, parse([*further, name]))
    refuse_taken(request.published)
    made = prepare(request, env.config, env.environ)
    for note in made.notes:
        env.note(note)
    words = run_words(order, recipe, place, name, terminal=_terminal(env.environ), root=outer_uid() == 0)
    at = words.index("--workdir")
    env.note(f"{place.container}: {order.agent} in {place.workspace}, scope {place.scope}.")
    containers.become(["run", *made.flags, *words[:at], *made.podmans(further), *words[at:]], env.environ)


def _terminal(environ: Mapping[str, str]) -> dict[str, str]:
    """What the agent is told about the terminal: its type, and how many colours it has."""
    found = {name: environ[name] for name in ("TERM", "COLORTERM") if environ.get(name)}
    return {"TERM": "xterm", **found}


def _further(order: Order, env: Env) -> list[str]:
    """Podman's words for mounts, ports and variables, checked as those of `terok run`."""
    words = [word for volume in volumes(order, env.environ.get("HOME", "/")) for word in ("--volume", volume)]
    words += [word for port in ports(order) for word in ("--publish", port)]
    words += [word for variable in order.environment for word in ("--env", variable)]
    refuse(parse([*words, "IMAGE"]), env.layout)
    return words


def _again(order: Order, where: names.Place, env: Env) -> None:
    """Without an agent's name: continue the container of this directory; return when there is none."""
    names = containers.of_workspace(env.layout, where.workspace)
    looked = [containers.look(name, env) for name in names if order.name in (None, name)]
    here = [container for container in looked if container is not None]
    if len(here) > 1:
        raise TerokError(
            f"{where.workspace} has several containers: {', '.join(container.name for container in here)}.",
            fix="terok start --name NAME",
            code=Exit.USAGE,
        )
    if here:
        _continue(here[0], where, order, env)


def _built(recipe: Recipe, order: Order, place: names.Place, env: Env) -> str:
    """The image of the project's Containerfile, else the recipe's; each is built when it is not there."""
    base = env.config.agents.base_image
    text = order.containerfile
    own = tag(recipe, base)
    if (not text or images.ARGUMENT in text) and not images.exists(own, env.environ):
        env.note(f"Building the image for {recipe.agent} from {recipe.base or base}, once, with Podman's own network.")
        images.build(recipe, base, env.environ)
    if not text:
        return own
    name = images.project_tag(place.scope, text, own)
    if not images.exists(name, env.environ):
        env.note("Building the project's image, once, with Podman's own network.")
        images.build_text(name, text, env.environ, agent_image=own)
    return name


def run_words(
    order: Order, recipe: Recipe, place: names.Place, image: str, *, terminal: Mapping[str, str], root: bool
) -> list[str]:
    """What follows terok's own flags in `podman run`; pure but for the look for an init.

    Args:
        order, recipe, place, image: what to run, and where.
        terminal: variables that describe the terminal.
        root: Podman runs as real root, which has no `keep-id`: the container's root owns the workspace then.
    """
    # detached, it has a terminal all the same: an agent without one ends at once; `terok start` attaches to it later
    words = ["--detach", "--interactive", "--tty"] if order.detach else ["--interactive"]
    if not order.detach and sys.stdin.isatty():
        words.append("--tty")
    if order.rm:
        words.append("--rm")
    if podman.init() is not None:
        words.append("--init")
    words += ["--user", "0:0"] if root else ["--userns", f"keep-id:uid={UID},gid={UID}"]
    if order.clone:
        words += ["--volume", f"{clone_volume(place)}:{WORKSPACE}"]
    else:
        # z: on SELinux hosts the files get a label that containers may use; elsewhere it does nothing
        words += ["--volume", f"{place.workspace}:{WORKSPACE}:{'z' if place.writable else 'ro,z'}"]
    words += ["--volume", f"{scopes.home_volume(place.scope)}:{HOME}", "--env", f"HOME={HOME}"]
    told = [*terminal.items(), *(() if order.restricted else recipe.unattended_env)]
    words += [word for name, value in told for word in ("--env", f"{name}={value}")]
    words += ["--workdir", WORKSPACE, image]
    if order.clone:
        words += ["sh", "-c", CLONING, "clone", f"http://127.0.0.1:{GATE_PORT}/{place.scope}.git"]
    return [*words, *command(order, recipe)]


def command(order: Order, recipe: Recipe) -> list[str]:
    """The agent's own command line. Its permission prompts are off in here unless the container is restricted."""
    return [*recipe.command, *(() if order.restricted else recipe.unattended), *order.words]


def clone_volume(place: names.Place) -> str:
    """The volume that holds the clone of a container which works on one."""
    return f"terok-{place.container}-clone"


def _continue(known: containers.Known, place: names.Place, order: Order, env: Env) -> NoReturn:
    """Go on with a container that is there already: this process becomes podman."""
    if known.workspace != place.workspace:
        raise TerokError(
            f"The container {known.name} exists and has another workspace: {known.workspace or 'none'}.",
            fix=f"{_line(order, '--name', 'ANOTHER')}, or {paste.command('terok', 'rm', known.name)}",
            code=Exit.REFUSED,
        )
    if fixed_at_creation(order):
        raise TerokError(
            f"The container {known.name} exists; its image, network, mounts and command stay as they are.",
            fix=f"{_line(order)} without these options, or {paste.command('terok', 'rm', known.name)} first",
            code=Exit.REFUSED,
        )
    if (order.restricted or env.config.restricted.always) and not known.restricted:
        raise TerokError(
            f"The container {known.name} exists and is not restricted.",
            fix=f"{paste.command('terok', 'rm', known.name)}, then start again",
            code=Exit.REFUSED,
        )
    if order.rm and not known.once:
        raise TerokError(
            f"The container {known.name} exists and stays when it ends.",
            fix=f"{_line(order)} without --rm, or {paste.command('terok', 'rm', known.name)} first",
            code=Exit.REFUSED,
        )
    if known.scope is not None:
        if order.scope not in (None, known.scope):
            raise TerokError(
                f"The container {known.name} exists and uses the scope {known.scope}.",
                fix=_line(order, "--scope", order.scope or "", "--name", "ANOTHER"),
                code=Exit.REFUSED,
            )
        scopes.permit(env, known.scope, place.workspace, order.agent, typed=order.scope is not None)
        connected.connect(env.layout, place.workspace, known.scope)
    _tell_of_changes(known, place, env)
    if order.detach:
        containers.become(["start", "--", known.name], env.environ)
    if known.running:
        containers.become(["attach", "--", known.name], env.environ)
    containers.become(["start", "--attach", "--interactive", "--", known.name], env.environ)


def _line(order: Order, *words: str) -> str:
    """`terok start` with the agent that was named, for people to paste."""
    return paste.command("terok", "start", *([order.agent] if order.agent else []), *words)


def _tell_of_changes(known: containers.Known, place: names.Place, env: Env) -> None:
    """A container keeps what its project file said when it was made; say so when the file says something else now."""
    try:
        file = project_file.read(place.workspace)
    except TerokError as error:
        env.note(str(error))
        return
    if known.project_file != (file.digest if file is not None else ""):
        line = paste.command("terok", "rm", known.name)
        env.note(f"The project file has changed since {known.name} was made. To use it: {line}, and start again.")
