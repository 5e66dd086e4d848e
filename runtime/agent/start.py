"""`terok start`: from a project directory to its agent, in one step.

A container that exists is continued where it was; otherwise login, image and wiring are made, in this order, so that a
question comes before anything slow, and nothing is written before the question is answered.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import GATE_PORT, check_name, outer_uid
from ..host.flags import parse
from ..kit.alive import containers as prepared
from ..kit.env import Env
from ..launch.prepare import prepare, with_ports
from ..launch.refusals import refuse
from ..launch.request import Request
from ..launch.resources import refuse_taken
from ..project import file as project_file
from ..project import names, rights, trust
from . import containers, images, login
from .order import Order, fixed_at_creation, merged, ports, volumes
from .recipes import HOME, RECIPES, UID, WORKSPACE, Recipe, recipe_of, tag

CATATONIT = ("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/bin/catatonit")
"""Where distributions put the small init that `podman run --init` needs."""

CLONING = 'url=$1; shift; [ -n "$(ls -A)" ] || git clone -- "$url" . || exit; exec "$@"'
"""What runs before the agent in a container that works on a clone: the first start clones."""


def start(order: Order, env: Env) -> NoReturn:
    """Start or continue the agent's container; at a terminal this process becomes podman.

    Raises:
        TerokError: what is missing, with the command that helps.
    """
    home = env.environ.get("HOME", "/")
    where = names.describe("", os.getcwd(), home, scope=order.scope, name=order.name, workspace=order.workspace)
    if not order.agent:
        _again(order, where, env)
    else:
        place = names.describe(
            order.agent, os.getcwd(), home, scope=order.scope, name=order.name, workspace=order.workspace
        )
        known = containers.look(check_name(place.container), env.environ)
        if known is not None:
            _continue(known, place, order, env)
    found = project_file.read(where.workspace)
    if found is not None:
        trust.require(found, env.config, where.scope)
        env.config = rights.apply(found.project, env.config)
    whole = merged(order, found)
    if not whole.agent:
        raise TerokError(
            f"{where.workspace} has no container yet.",
            fix="terok start " + " | ".join(RECIPES),
            code=Exit.NOT_FOUND,
        )
    place = names.describe(
        whole.agent, os.getcwd(), home, scope=whole.scope, name=whole.name, workspace=whole.workspace
    )
    _begin(whole, place, found, env)


def _begin(order: Order, place: names.Place, found: project_file.Found | None, env: Env) -> NoReturn:
    """Make everything that is missing, and run."""
    recipe = recipe_of(order.agent)
    check_name(place.scope)
    further = _further(order, env)
    if order.clone and not os.path.isdir(env.layout.gate_home(place.scope).root):
        raise TerokError(
            f"--clone needs the git gate, and the scope {place.scope} has no mirror.",
            fix=paste.command("terok", "gate", "add", place.scope, "URL"),
            code=Exit.NOT_FOUND,
        )

    def image() -> str:
        return order.image or _built(recipe, order, place, env)

    login.ensure(env, order.agent, place.scope, order.login, image)
    name = image()
    request = Request(
        check_name(place.container),
        scope=place.scope,
        allow_missing=True,  # the operator chose to go without, or the agent needs no credential
        profiles=order.profiles,
        network=order.network,
        restricted=order.restricted or env.config.restricted.always,
        allow=order.allow,
    )
    request = with_ports(request, env.config, parse([*further, name]))
    refuse_taken(request.published)
    made = prepare(request, env.config, env.environ)
    for note in made.notes:
        env.note(note)
    words = run_words(order, recipe, place, name, term=env.environ.get("TERM", "xterm"), root=outer_uid() == 0)
    at = words.index("--workdir")
    labels = ["--label", f"{containers.LABEL_WORKSPACE}={place.workspace}"]
    labels += ["--label", f"{containers.LABEL_FILE}={found.digest}"] if found is not None else []
    env.note(f"{place.container}: {order.agent} in {place.workspace}, scope {place.scope}.")
    containers.become(["run", *made.flags, *labels, *words[:at], *made.podmans(further), *words[at:]], env.environ)


def _further(order: Order, env: Env) -> list[str]:
    """Podman's words for mounts, ports and variables, checked as those of `terok run`."""
    words = [word for volume in volumes(order, env.environ.get("HOME", "/")) for word in ("--volume", volume)]
    words += [word for port in ports(order) for word in ("--publish", port)]
    words += [word for variable in order.environment for word in ("--env", variable)]
    refuse(parse([*words, "IMAGE"]), env.layout)
    return words


def _again(order: Order, where: names.Place, env: Env) -> None:
    """Without an agent's name: continue the container of this directory; return when there is none."""
    looked = [containers.look(name, env.environ) for name in prepared(env.layout)]
    here = [container for container in looked if container and container.workspace == where.workspace]
    if order.name is not None:
        here = [container for container in here if container.name == order.name]
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


def run_words(order: Order, recipe: Recipe, place: names.Place, image: str, *, term: str, root: bool) -> list[str]:
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
    if order.clone:
        words += ["--volume", f"{clone_volume(place)}:{WORKSPACE}"]
    else:
        # z: on SELinux hosts the files get a label that containers may use; elsewhere it does nothing
        words += ["--volume", f"{place.workspace}:{WORKSPACE}:{'z' if place.writable else 'ro,z'}"]
    words += ["--volume", f"{volume(place)}:{HOME}", "--env", f"HOME={HOME}", "--env", f"TERM={term}"]
    words += ["--workdir", WORKSPACE, image]
    if order.clone:
        words += ["sh", "-c", CLONING, "clone", f"http://127.0.0.1:{GATE_PORT}/{place.scope}.git"]
    return [*words, *command(order, recipe)]


def command(order: Order, recipe: Recipe) -> list[str]:
    """The agent's own command line. Its permission prompts are off in here unless the container is restricted."""
    return [*recipe.command, *(() if order.restricted else recipe.unattended), *order.words]


def volume(place: names.Place) -> str:
    """The volume that holds the scope's home directory: settings, history, caches; no credential is in it."""
    return f"terok-{place.scope}-home"


def clone_volume(place: names.Place) -> str:
    """The volume that holds the clone of a container which works on one."""
    return f"terok-{place.container}-clone"


def _continue(known: containers.Known, place: names.Place, order: Order, env: Env) -> NoReturn:
    """Go on with a container that is there already: this process becomes podman."""
    if known.workspace != place.workspace:
        raise TerokError(
            f"The container {known.name} exists and has another workspace: {known.workspace or 'none'}.",
            fix=f"terok start {paste.quoted(order.agent)} --name ANOTHER, or terok rm {paste.quoted(known.name)}",
            code=Exit.REFUSED,
        )
    if fixed_at_creation(order):
        raise TerokError(
            f"The container {known.name} exists; its image, network, mounts and command stay as they are.",
            fix=f"terok start {paste.quoted(order.agent)} without these options, "
            f"or terok rm {paste.quoted(known.name)} first",
            code=Exit.REFUSED,
        )
    _tell_of_changes(known, place, env)
    if order.detach:
        containers.become(["start", "--", known.name], env.environ)
    if known.running:
        containers.become(["attach", "--", known.name], env.environ)
    containers.become(["start", "--attach", "--interactive", "--", known.name], env.environ)


def _tell_of_changes(known: containers.Known, place: names.Place, env: Env) -> None:
    """A container keeps what its project file said when it was made; say so when the file says something else now."""
    try:
        found = project_file.read(place.workspace)
    except TerokError as error:
        env.note(str(error))
        return
    if known.project_file != (found.digest if found is not None else ""):
        line = paste.command("terok", "rm", known.name)
        env.note(f"The project file has changed since {known.name} was made. To use it: {line}, and start again.")
