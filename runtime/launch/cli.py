"""`terok run`, `terok prepare` and `terok cleanup`."""

from __future__ import annotations

import argparse
import os
import shlex

from ...supervisor.ground import process
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.config import NETWORK_MODES
from ..kit.env import Env
from ..kit.verb import Argument, OneOf, argument, comma_separated, one_of, scope_option, switch, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host.flags import Words
    from .prepare import Prepared
    from .request import Request


WIRING: tuple[Argument | OneOf, ...] = (
    argument("name", metavar="NAME", help="the container's name", values="containers"),
    scope_option("use this scope's credentials, SSH keys and git mirrors (default: none)"),
    argument("--profiles", nargs="+", metavar="PROFILE", help="shield profiles: what it may reach", values="profiles"),
    argument(
        "--network", metavar="MODE", help=", ".join(NETWORK_MODES) + " (default: network.mode)", values="networks"
    ),
    argument(
        "--agent", metavar="A,B", help="agents to configure (default: those the scope has a login for)", values="agents"
    ),
    switch("--restricted", "no new privileges, limits, read-only root"),
    switch("--no-shield", "without the egress firewall"),
    switch("--no-vault", "without the vault"),
    switch("--no-ssh", "without the SSH signer"),
    one_of(switch("--no-gate", "without the git gate"), switch("--gate", "with the git gate (the default)")),
    argument(
        "--gate-ssh",
        choices=("on", "off"),
        default="on",
        help="whether git takes SSH URLs of the gate's repository to the gate, too (default: on)",
    ),
    switch("--allow-missing", "start although the scope or an agent's credential does not exist yet"),
    switch("--allow-engine-socket", "mount a socket of Podman or Docker: the container can then do all that you can"),
)


def _request(args: argparse.Namespace, env: Env, words: Words, *, once: bool) -> Request:
    from ..project import here
    from .prepare import with_ports
    from .request import Request

    env.config = here.applied(env.config, os.getcwd())
    restricted = args.restricted or env.config.restricted.always
    if restricted and args.no_shield and args.program == "terok-executor":
        raise TerokError(
            "terok-executor has no restricted container without the shield: there is no per-run opt-out.",
            fix="remove --no-shield",
            code=Exit.REFUSED,
        )
    request = Request(
        args.name,
        shield=not args.no_shield and env.config.shield.enabled,
        gate=not args.no_gate,
        gate_ssh=args.gate_ssh == "on",
        broker=not args.no_vault,
        ssh=not args.no_ssh,
        scope=args.scope,
        profiles=comma_separated(args.profiles),
        network=args.network,
        agents=comma_separated(None if args.agent is None else [args.agent]),
        restricted=restricted,
        allow_missing=args.allow_missing,
        own_seccomp=any(flag.name == "security-opt" and flag.value.startswith("seccomp") for flag in words.flags),
        once=once,
    )
    return with_ports(request, env.config, words)


def _removes_itself(words: Words) -> bool:
    return any(flag.name == "rm" and flag.value == "true" for flag in words.flags)


def _prepare(args: argparse.Namespace, env: Env, words: Words, *, once: bool = False, now: bool = False) -> Prepared:
    """Check podman's words, then write the bundle; a refused command leaves nothing behind.

    Args:
        once: the container goes with its end.
        now: it starts at once.
    """
    from ...supervisor.ground.layout import check_name
    from ..host import podman, preconditions
    from .refusals import refuse

    preconditions.refuse_remote(env.environ)
    refuse(words, env.layout, allow_engine_socket=args.allow_engine_socket)
    check_name(args.name)
    name = preconditions.NameAsked(args.name, words, env.environ) if now else None
    image = preconditions.ImageAsked(words, env.environ)
    asked = podman.ask_version(env.environ)  # podman answers while the rest is imported
    from . import prepare as steps
    from .resources import refuse_taken

    request = _request(args, env, words, once=once)
    if now:
        refuse_taken(request.published)
    if name is not None:
        name.refuse_existing()
    image.refuse_checkpoint(asked.answer())
    prepared = steps.prepare(request, env.config, env.environ, asked=asked)
    for note in prepared.notes:
        env.note(note)
    return prepared


def _no_image(args: argparse.Namespace, env: Env) -> TerokError:
    """Without `--`, an image that follows `--profiles a b` was read as a profile."""
    from .services import available_profiles

    typed, known = list(args.typed), set(available_profiles(env.layout))
    names = [] if args.rest is not None else (args.profiles or [])
    first = next((at for at, name in enumerate(names) if at and not known.issuperset(name.split(","))), len(names))
    for word in names[first:]:
        typed.reverse()
        typed.remove(word)
        typed.reverse()
    image = shlex.join(names[first:]) or "IMAGE [COMMAND...]"
    return TerokError("No image was given after `--`.", fix=f"{shlex.join(typed)} -- {image}", code=Exit.USAGE)


@verb(
    *WIRING,
    usage="NAME [options] -- [podman's options] IMAGE [COMMAND...]",
    examples=("terok run work --scope myproject -- --rm -it debian:13 bash",),
    to_podman=True,
)
def run(args: argparse.Namespace, env: Env) -> int:
    """Start a container with its services.

    Everything after `--` is passed to `podman run` unchanged.
    """
    from ..host import podman
    from ..host.flags import parse

    words = parse(args.rest or [])
    if not words.rest:
        raise _no_image(args, env)
    prepared = _prepare(args, env, words, once=_removes_itself(words), now=True)
    process.replace(podman.run_argv(env.environ, prepared.flags, prepared.podmans(args.rest)), env.environ)


@verb(
    *WIRING,
    argument(
        "--format",
        choices=["words", "compose", "quadlet", "devcontainer"],
        default="words",
        help="shell words (default), or a file",
    ),
    usage="NAME [options] [-- podman's options, IMAGE, COMMAND...]",
    examples=(
        'eval "podman run $(terok prepare work --scope myproject) debian:13 true"',
        "terok prepare work --format quadlet -- debian:13 >~/.config/containers/systemd/work.container",
    ),
    to_podman=True,
)
def prepare(args: argparse.Namespace, env: Env) -> int:
    """Write a container's wiring and print the flags for `podman run` or `podman create`."""
    from ..host.flags import Words, parse

    words = parse(args.rest or [])
    prepared = _prepare(args, env, words)
    rest = prepared.podmans(args.rest or [])
    everything = [*prepared.flags, *rest]
    if args.format == "words":
        text = shlex.join(everything)
    else:
        from ...supervisor.ground.layout import outer_uid
        from . import formats

        whole = Words(parse(prepared.flags).flags + parse(rest).flags, words.rest)
        if args.format == "devcontainer":
            text = formats.devcontainer(whole, rootless=outer_uid() != 0)
        else:
            text = {"compose": formats.compose, "quadlet": formats.quadlet}[args.format](whole)
    env.out.emit(everything, text)
    return Exit.OK


@verb(
    argument("names", metavar="NAME", nargs="+", help="containers", values="containers"),
    switch("--force", "also while it runs: its services end, its firewall stays"),
    examples=("podman rm -f box && terok cleanup box",),
)
def cleanup(args: argparse.Namespace, env: Env) -> int:
    """Revoke a container's tokens and delete its state.

    The container itself belongs to podman: remove it with `podman rm`. Repeating it is harmless.
    """
    from .teardown import tear_down

    done = {name: tear_down(name, cfg=env.config, force=args.force) for name in args.names}
    text = "\n".join(f"{name}: {'removed' if had else 'nothing to remove'}" for name, had in done.items())
    env.out.emit(done, text)
    return Exit.OK
