"""`terok run`, `terok prepare` and `terok cleanup`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ...supervisor.ground.errors import Exit, TerokError
from ..kit.config import NETWORK_MODES
from ..kit.env import Env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .compose import Launch


def register(commands: Any) -> None:
    """Add the three verbs."""
    parser = commands.add_parser(
        "run",
        help="start a container with its services",
        description="Start a container with its services. What stands after '--' goes to `podman run` as it is.",
        epilog="example: terok run work --scope myproject -- --rm -it debian:13 bash",
        usage="terok run [options] NAME -- [podman flags] IMAGE [COMMAND...]",
    )
    _add_wiring(parser)
    parser.set_defaults(run=run)
    parser = commands.add_parser(
        "prepare",
        help="write a container's wiring and print the podman flags for it",
        description="Write a container's wiring and print the flags for `podman run` or `podman create`.",
        epilog='example: eval "podman run $(terok prepare work --scope myproject) debian:13 true"',
        usage="terok prepare [options] NAME [-- podman flags IMAGE COMMAND...]",
    )
    _add_wiring(parser)
    parser.add_argument(
        "--format", choices=["words", "compose", "quadlet"], default="words", help="shell words (default), or a file"
    )
    parser.set_defaults(run=prepare)
    parser = commands.add_parser(
        "cleanup",
        help="revoke a container's tokens and delete its state",
        description="Revoke a container's tokens and delete its state. The container itself is podman's: remove it "
        "with `podman rm`. Repeating it is harmless.",
    )
    parser.add_argument("names", metavar="NAME", nargs="+", help="containers")
    parser.add_argument("--force", action="store_true", help="also while it runs: its services end, its firewall stays")
    parser.set_defaults(run=cleanup)


def _add_wiring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the container's name")
    parser.add_argument("--scope", help="whose credentials, keys and mirrors it may use; none without")
    parser.add_argument("--profiles", nargs="+", metavar="PROFILE", help="shield profiles: what it may reach")
    parser.add_argument("--network", metavar="MODE", help=", ".join(NETWORK_MODES) + " (default: network.mode)")
    parser.add_argument("--agent", metavar="A,B", help="agents to configure (default: those the scope has a login for)")
    parser.add_argument("--restricted", action="store_true", help="no new privileges, limits, read-only root")
    for service, what in (
        ("shield", "the egress firewall"),
        ("vault", "the vault"),
        ("ssh", "the SSH signer"),
        ("gate", "the git gate"),
    ):
        parser.add_argument(f"--no-{service}", action="store_true", help=f"without {what}")


def _request(args: argparse.Namespace, env: Env, words: list[str]) -> Any:
    from ..host.publish import udp_ports
    from ..kit import project
    from .request import Request

    env.config = project.apply(env.config, os.getcwd())
    agents = tuple(name for name in args.agent.split(",") if name) if args.agent is not None else None
    return Request(
        args.name,
        shield=not args.no_shield and env.config.shield.enabled,
        gate=not args.no_gate,
        broker=not args.no_vault,
        ssh=not args.no_ssh,
        scope=args.scope,
        profiles=tuple(args.profiles) if args.profiles else None,
        network=args.network,
        agents=agents,
        restricted=args.restricted or env.config.restricted.always,
        udp_ports=udp_ports(words),
    )


def _launch(args: argparse.Namespace, env: Env, words: list[str]) -> Launch:
    """Check podman's words, then compose; a refused command leaves nothing behind."""
    from ..host import podman
    from . import refusals

    refusals.reject_managed_flags(words)
    refusals.reject_managed_volumes(words)
    refusals.reject_private_sources(words, env.layout)
    asked = podman.ask_version(env.environ)  # podman answers while the rest is imported
    from .compose import launch

    made = launch(_request(args, env, words), env.config, env.environ, asked=asked)
    for note in made.notes:
        env.note(note)
    return made


def run(args: argparse.Namespace, env: Env) -> int:
    """Compose, then become podman."""
    from ..host.flags import parse

    words = args.rest or []
    if not parse(words).rest:
        raise TerokError("No image was given.", fix=f"terok run {args.name} -- IMAGE [COMMAND...]", code=Exit.USAGE)
    made = _launch(args, env, words)
    from . import exec_podman

    exec_podman(made.flags, words)


def prepare(args: argparse.Namespace, env: Env) -> int:
    """Compose and print."""
    made = _launch(args, env, args.rest or [])
    from . import format_args, formats

    everything = [*made.flags, *(args.rest or [])]
    forms = {"compose": formats.compose, "quadlet": formats.quadlet}
    text = forms[args.format](everything) if args.format in forms else format_args(everything, output_json=False)
    env.out.emit(everything, text)
    return Exit.OK


def cleanup(args: argparse.Namespace, env: Env) -> int:
    """Tear down each container named."""
    from .cleanup import tear_down

    done = {name: tear_down(name, cfg=env.config, force=args.force) for name in args.names}
    text = "\n".join(f"{name}: {'removed' if had else 'nothing to remove'}" for name, had in done.items())
    env.out.emit(done, text)
    return Exit.OK
