"""`terok start`, `shell`, `stop`, `rm`, `ps` and `agents image`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.env import Env
from ..kit.verb import argument, comma_separated, scope_option, switch, verb
from . import containers
from .login import WAYS

_AGENTS = "claude, codex, gemini, opencode, copilot, vibe, aider or shell"
AGENT = argument("agent", metavar="AGENT", help=_AGENTS, values="recipes")
NAMES = argument("names", metavar="NAME", nargs="+", help="containers", values="containers")


@verb(
    argument("agent", metavar="AGENT", nargs="?", default="", help=_AGENTS, values="recipes"),
    scope_option(
        "whose credentials, keys and mirrors (default: the last one used here, else named like the directory)"
    ),
    argument("--name", metavar="NAME", help="the container's name (default: DIRECTORY-AGENT)"),
    argument(
        "--workspace",
        metavar="DIR[:ro]",
        help="the directory that the agent works in (default: the current one); :ro read-only",
        values="directories",
    ),
    switch("--clone", "work on a clone that the scope's git gate serves, not on the directory itself"),
    argument("--image", metavar="IMAGE", help="an image of your own that has the agent"),
    argument("--login", choices=WAYS, help="what to do when the scope has no credential, instead of asking"),
    argument("--profiles", nargs="+", metavar="PROFILE", help="shield profiles", values="profiles"),
    argument(
        "--network",
        metavar="MODE",
        help="network mode (default: network.mode)",
        values="networks",
    ),
    argument("--allow", metavar="TARGET", action="append", default=[], help="a further destination that it may reach"),
    argument("--publish", metavar="PORT", action="append", default=[], help="publish a port, on 127.0.0.1 by default"),
    argument("--mount", metavar="DIR:PATH[:ro]", action="append", default=[], help="a further directory of the host"),
    argument("--env", metavar="NAME=VALUE", action="append", default=[], help="an environment variable"),
    switch("--restricted", "the agent asks before it acts; see terok run"),
    switch("--rm", "remove the container when it ends"),
    switch("--detach", "return as soon as it runs"),
    argument("words", nargs="*", metavar="ARGUMENT", help="further arguments for the agent, after --"),
    usage="[options] [AGENT] [-- ARGUMENT...]",
    examples=(
        "terok start claude",
        "terok start codex --workspace ~/src/project --restricted",
        "terok start shell --rm",
    ),
)
def start(args: argparse.Namespace, env: Env) -> int:
    """Start an agent in the current project, or continue where it was.

    The first start makes what is missing: the scope's credential (asked for once), the agent's image, the container.
    The project is mounted at /workspace, and its files stay yours. The agent's settings and history are kept in a
    volume of the scope. A .terok.yml in the project completes what is not given here. In the container the agent does
    not ask for permission, unless --restricted is given. Without AGENT, the container of this project continues, or the
    agent that .terok.yml names starts.
    """
    import os

    from .order import Order
    from .start import start as begin

    missing = [text for text in args.env if "=" not in text[1:]]
    if missing:  # podman would copy the host's value
        raise TerokError(f"--env takes NAME=VALUE, not {missing[0]!r}.", code=Exit.USAGE)
    order = Order(
        agent=args.agent,
        scope=args.scope,
        name=args.name,
        workspace=args.workspace,
        clone=args.clone,
        image=args.image,
        login=args.login,
        profiles=comma_separated(args.profiles),
        network=args.network,
        restricted=args.restricted,
        allow=tuple(args.allow),
        publish=tuple(args.publish),
        mounts=tuple((mount, os.getcwd()) for mount in args.mount),
        environment=tuple(args.env),
        rm=args.rm,
        detach=args.detach,
        words=tuple(args.words),
    )
    begin(order, env)


@verb(
    argument("name", metavar="NAME", help="a running container", values="containers"),
    argument("words", nargs="*", metavar="COMMAND", help="a command instead of a shell, after --"),
    usage="NAME [-- COMMAND...]",
    examples=("terok shell project-claude", "terok shell project-claude -- git log"),
)
def shell(args: argparse.Namespace, env: Env) -> int:
    """Open a shell in a running container, beside the agent and with the same rights."""
    import sys

    container = containers.require(args.name, env)
    if not container.running:
        raise TerokError(
            f"{args.name} is not running.", fix=paste.command("podman", "start", args.name), code=Exit.REFUSED
        )
    words = args.words or ["sh", "-c", "exec $(command -v bash || command -v sh)"]
    terminal = ["--tty"] if sys.stdin.isatty() else []
    containers.become(["exec", "--interactive", *terminal, "--", args.name, *words], env.environ)


@verb(NAMES, examples=("terok stop project-claude",))
def stop(args: argparse.Namespace, env: Env) -> int:
    """Stop containers. Their wiring and their files stay; `terok start` or `podman start` continues them."""
    _podman(["stop", "--time", "3", "--", *_known(args.names, env)], env)
    env.out.emit({"stopped": args.names}, "\n".join(f"{name}: stopped" for name in args.names))
    return Exit.OK


@verb(
    NAMES,
    switch("--force", "also while it is running"),
    examples=("terok rm project-claude",),
    exits=((Exit.REFUSED, "a container is running and --force was not given"),),
)
def rm(args: argparse.Namespace, env: Env) -> int:
    """Remove containers together with what terok keeps for them: tokens are revoked, state bundles deleted.

    The scope, its credentials and the volume with the agent's settings stay.
    """
    from ..launch.teardown import tear_down

    running = [name for name in args.names if (container := containers.look(name, env)) and container.running]
    if running and not args.force:
        raise TerokError(
            f"{', '.join(running)}: running.",
            fix=paste.command("terok", "rm", "--force", *args.names),
            code=Exit.REFUSED,
        )
    removed = {}
    for name in args.names:
        had = containers.look(name, env) is not None
        if had:
            _podman(["rm", "--force", "--time", "3", "--", name], env)
        removed[name] = tear_down(name, cfg=env.config, force=True) or had
    missing = [name for name, done in removed.items() if not done]
    text = "\n".join(f"{name}: {'removed' if done else 'nothing to remove'}" for name, done in removed.items())
    env.out.emit(removed, text)
    return Exit.NOT_FOUND if len(missing) == len(removed) else Exit.OK


@verb(switch("--all", "stopped ones too"), examples=("terok ps --all",))
def ps(args: argparse.Namespace, env: Env) -> int:
    """List the containers that terok prepared, as Podman sees them. `terok status` shows their services."""
    from ..kit.alive import containers as prepared
    from ..kit.table import table
    from ..launch.resources import published_before

    looked = [containers.look(name, env) for name in prepared(env.layout)]
    known = [container for container in looked if container and (args.all or container.running)]
    ports = {row.name: published_before(env.layout.bundle(row.name)) for row in known}
    lines = [("CONTAINER", "STATE", "IMAGE", "WORKSPACE", "PORTS")]
    lines += [
        (row.name, row.state, row.image, row.workspace or "-", ", ".join(map(str, ports[row.name])) or "-")
        for row in known
    ]
    rows = [{**asdict(row), "published": [asdict(port) for port in ports[row.name]]} for row in known]
    env.out.emit(rows, table(lines, env.out))
    return Exit.OK


def _known(names: list[str], env: Env) -> list[str]:
    for name in names:
        containers.require(name, env)
    return names


def _podman(words: list[str], env: Env) -> None:
    from ..host import podman

    result = podman.call(words, env.environ, timeout=60)
    if result.code != 0:
        raise TerokError(f"podman {words[0]} failed: {result.error}")


@verb(
    AGENT,
    switch("--print", "print the Containerfile and build nothing", dest="show"),
    switch("--rebuild", "build every step again, from a new look at the base image"),
    argument("--base", metavar="IMAGE", help="start from this image (default: agents.base_image)"),
    examples=("terok agents image claude", "terok agents image claude --print"),
)
def image(args: argparse.Namespace, env: Env) -> int:
    """Build an agent's image, or print its Containerfile. `terok start` builds it when it is missing.

    The image's tag is made from the text of its Containerfile: a changed recipe makes another image. The build uses
    Podman's own network, without the rules and credentials of terok.
    """
    from . import images, recipes

    recipe = recipes.recipe_of(args.agent)
    base = args.base or env.config.agents.base_image
    if args.show:
        text = recipes.containerfile(recipe, base)
        env.out.emit({"image": recipes.tag(recipe, base), "containerfile": text}, text)
        return Exit.OK
    name, built = recipes.tag(recipe, base), False
    if args.rebuild or not images.exists(name, env.environ):
        images.build(recipe, base, env.environ, fresh=args.rebuild)
        built = True
    env.out.emit({"image": name, "built": built}, f"{name}{'' if built else ' (already built)'}")
    return Exit.OK
