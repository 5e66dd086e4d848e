"""`terok mcp add`, `list`, `show`, `pin`, `remove`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

from ...sidecars.mcp import offer, servers
from ...sidecars.mcp.names import check_name, names
from ...sidecars.mcp.offer import Offer
from ...sidecars.mcp.servers import Server
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import files
from ..kit.env import Env
from ..kit.table import escaped
from ..kit.verb import argument, comma_separated, scope_option, switch, verb

NAME = argument("name", metavar="NAME", help="the server's name")
SCOPE = scope_option("whose agents use it (default: named like the directory)")
TOOLS = argument("--tools", metavar="A,B", help="the tools that agents may use; '*': all that you accept (the default)")
YES = switch("--yes", "accept the tools' texts without asking")
UNREAD = ((Exit.MANUAL, "the tools' texts are not accepted, and there was no terminal to ask at"),)


@verb(
    NAME,
    SCOPE,
    argument("--image", metavar="IMAGE", required=True, help="an image that has the server's program"),
    TOOLS,
    argument("--profiles", nargs="+", metavar="PROFILE", help="shield profiles: what it may reach", values="profiles"),
    argument("--env", metavar="NAME=VALUE", action="append", default=[], help="an environment variable"),
    argument("--mount", metavar="DIR:PATH[:ro]", action="append", default=[], help="a directory of the host"),
    switch("--no-vault", "without the scope's credentials"),
    YES,
    argument("words", nargs="*", metavar="COMMAND", help="its program and arguments, after --"),
    usage="NAME --image IMAGE [options] -- COMMAND...",
    examples=("terok mcp add time --scope work --image localhost/mcp-time:1 -- mcp-server-time",),
    exits=UNREAD,
)
def add(args: argparse.Namespace, env: Env) -> int:
    """Run an MCP server in a container of its own, for the agents of a scope.

    The server is a program that speaks MCP on its standard input and output. Its container has its own shield profiles
    and phantom tokens. What its tools say about themselves becomes part of a model's prompt: it is shown here, and
    agents get the texts that you accept. Containers that are made from now on find the server in their agents'
    configuration.
    """
    from ..agent.order import Order, volumes
    from ..launch.request import Request
    from . import container

    if not args.words:
        raise TerokError("The server's command is missing.", fix="put it after --", code=Exit.USAGE)
    missing = [text for text in args.env if "=" not in text[1:]]
    if missing:
        raise TerokError(f"--env takes NAME=VALUE, not {missing[0]!r}.", code=Exit.USAGE)
    scope, directory = _scope(args, env)
    name = check_name(args.name)
    box = f"mcp-{scope}-{name}"
    if os.path.exists(servers.path_of(directory, name)) or os.path.exists(env.layout.bundle(box).root):
        fix = paste.command("terok", "mcp", "remove", name, "--scope", scope)
        raise TerokError(f"The scope {scope} has a server {name} already.", fix=fix, code=Exit.REFUSED)
    order = Order(agent="", mounts=tuple((mount, os.getcwd()) for mount in args.mount))
    words = [word for volume in volumes(order, env.environ.get("HOME", "/")) for word in ("--volume", volume)]
    words += [word for variable in args.env for word in ("--env", variable)]
    request = Request(
        box,
        scope=scope,
        broker=not args.no_vault,
        ssh=False,
        gate=False,
        mcp=False,
        allow_missing=True,
        profiles=comma_separated(args.profiles),
    )
    container.create(request, args.image, words, env)
    server = Server(name, scope, box, tuple(args.words), _tools(args.tools, None), Offer())
    try:
        current = container.ask(server, env)
        files.make_dir(directory)
        _keep(server, env)
    except BaseException:
        container.remove(box, env)
        raise
    return _accept(server, current, env, yes=args.yes)


@verb(SCOPE)
def list_servers(args: argparse.Namespace, env: Env) -> int:
    """List the MCP servers of a scope."""
    from ..kit.table import table

    scope, directory = _scope(args, env)
    known = [_load(directory, name, scope) for name in names(directory)]
    rows = [[server.name, str(len(_usable(server))), server.container, shlex.join(server.command)] for server in known]
    data = [_described(server) for server in known]
    env.out.emit(data, table([("SERVER", "TOOLS", "CONTAINER", "COMMAND"), *rows], env.out) if rows else "")
    if not known:
        env.note(f"The scope {scope} has no MCP server.")
    return Exit.OK


@verb(NAME, SCOPE)
def show(args: argparse.Namespace, env: Env) -> int:
    """Show a server, the tools that agents may use, and the texts that you have accepted."""
    scope, directory = _scope(args, env)
    server = _load(directory, args.name, scope)
    lines = [
        f"server:    {server.name}",
        f"scope:     {scope}",
        f"container: {server.container}",
        f"command:   {shlex.join(server.command)}",
        f"tools:     {', '.join(_usable(server)) or 'none'}",
        "",
        *(line[1:] for line in offer.difference(Offer(), server.accepted) if line[:1] == "+" and line[:3] != "+++"),
    ]
    env.out.emit(_described(server) | {"accepted": list(server.accepted.tools.values())}, _text(lines))
    return Exit.OK


@verb(NAME, SCOPE, TOOLS, YES, examples=("terok mcp pin time --scope work --tools get_current_time",), exits=UNREAD)
def pin(args: argparse.Namespace, env: Env) -> int:
    """Ask a server what it offers now, show what has changed, and accept it.

    Until then, a tool whose text has changed is neither offered to agents nor called.
    """
    from . import container

    scope, directory = _scope(args, env)
    server = _load(directory, args.name, scope)
    if args.tools is not None:
        server = replace(server, tools=_tools(args.tools, server.tools))
        _keep(server, env)
    return _accept(server, container.ask(server, env), env, yes=args.yes)


@verb(NAME, SCOPE)
def remove(args: argparse.Namespace, env: Env) -> int:
    """Remove a server: its container, its tokens, and what you accepted. Repeating it is harmless."""
    from . import container

    scope, directory = _scope(args, env)
    had = files.remove_file(servers.path_of(directory, args.name))
    container.remove(f"mcp-{scope}-{args.name}", env)
    env.out.emit({"server": args.name, "removed": had}, f"{args.name}: {'removed' if had else 'nothing to remove'}")
    return Exit.OK


def _scope(args: argparse.Namespace, env: Env) -> tuple[str, str]:
    """The scope, and the directory of its servers."""
    from ..project.names import slug

    scope = args.scope or slug(os.path.basename(os.getcwd()))
    return scope, env.layout.mcp_servers(scope)


def _load(directory: str, name: str, scope: str) -> Server:
    server = servers.load(directory, name)
    if server is None:
        fix = paste.command("terok", "mcp", "list", "--scope", scope)
        raise TerokError(f"The scope {scope} has no MCP server {name}.", fix=fix, code=Exit.NOT_FOUND)
    return server


def _tools(text: str | None, before: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if text is None:
        return before
    return None if text == "*" else comma_separated([text])


def _usable(server: Server) -> list[str]:
    return list(offer.allowed(server.accepted, server.accepted.tools, server.tools))


def _keep(server: Server, env: Env) -> None:
    files.write(servers.path_of(env.layout.mcp_servers(server.scope), server.name), server.to_text(), sync=True)


def _described(server: Server) -> dict[str, object]:
    return {
        "server": server.name,
        "scope": server.scope,
        "container": server.container,
        "command": list(server.command),
        "tools": _usable(server),
        "digest": server.accepted.digest,
    }


def _accept(server: Server, current: Offer, env: Env, *, yes: bool) -> int:
    """Show what differs from what was accepted, and accept it."""
    lines = offer.difference(server.accepted, current)
    unknown = sorted(set(server.tools or ()) - current.tools.keys())
    if unknown:
        env.note(f"The server has no tool {', '.join(unknown)}.")
    accepted = replace(server, accepted=current)
    if yes or not lines:
        _keep(accepted, env)
    data = _described(accepted if yes or not lines else server) | {"diff": lines}
    env.out.emit(data, _text(lines))
    command = paste.command("terok", "mcp", "pin", server.name, "--scope", server.scope)
    if lines and not yes:
        if env.out.json_output or not sys.stdin.isatty():
            env.note(f"Not accepted: there is no terminal to ask at. `{command} --yes` accepts these texts.")
            return Exit.MANUAL
        if not env.agrees("Let agents see and use these tools?"):
            env.note(f"Not accepted. `{command}` asks again.")
            return Exit.REFUSED
        _keep(accepted, env)
    env.note(f"Agents of {server.scope} may use: {', '.join(_usable(accepted)) or 'nothing'}.")
    return Exit.OK


def _text(lines: Sequence[str]) -> str:
    """A server's words on a terminal."""
    return "\n".join(map(escaped, lines))
