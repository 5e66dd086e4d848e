"""`terok shield VERB` (and `terok-shield VERB`): change, look at and explain a container's firewall."""

from __future__ import annotations

import re
import time

from ...supervisor.ground.errors import Exit, TerokError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from ...supervisor.ground.layout import Bundle
    from ..kit.env import Env

_DURATION = re.compile(r"([0-9]+)(s|m|h|)")
_UNITS = {"s": 1, "": 1, "m": 60, "h": 3600}
TIME_MAX = 24 * 3600


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `shield` and its verbs."""
    shield = commands.add_parser("shield", help="the egress firewall of a container")
    verbs = shield.add_subparsers(metavar="VERB", required=True, dest="shield_verb")

    def verb(name: str, run: Any, help_: str, *, container: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_, description=help_)
        parser.set_defaults(run=run)
        if container:
            parser.add_argument("name", metavar="NAME", help="the container")
        return parser

    target = "domain, *.domain, address or range, each with an optional :PORT or :PORT/udp"
    allow_ = verb("allow", allow, "let a container reach a destination, now and after restarts")
    allow_.add_argument("targets", nargs="+", metavar="TARGET", help=target)
    allow_.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        help="30s, 5m or 2h, at most until its next start; default: for good",
    )
    verb("deny", deny, "forbid a destination and end what is open to it; it wins over every allowance").add_argument(
        "targets", nargs="+", metavar="TARGET", help=target
    )
    forget_ = verb("forget", forget, "take back what `allow` or `deny` recorded for exactly this target")
    forget_.add_argument("targets", nargs="*", metavar="TARGET", help=target)
    forget_.add_argument("--expired", action="store_true", help="what was allowed for a time that is over")
    verb("down", down, "let everything out but private ranges, until `up` or a restart").add_argument(
        "--all", action="store_true", help="private ranges too; metadata services stay closed"
    )
    verb("up", up, "back to default deny; connections to what is not allowed end")
    verb("bypass", bypass, "`down` for a time; the kernel ends it").add_argument(
        "--for", dest="duration", required=True, metavar="TIME", help="30s, 5m or 2h"
    )
    verb("quarantine", quarantine, "cut the network and the loopback services off; outlives restarts, ends with `up`")
    verb("learn", learn, "record instead of refusing; `learn --print` shows the least profile").add_argument(
        "--print", dest="show", action="store_true", help="print the profile that the recorded connections need"
    )
    verb("reset", reset, "forget every live allowance and denial")
    verb("rules", rules, "the firewall in force, as the kernel has it")
    verb("resolve", resolve, "ask for every allowed name again and show the answers")
    status_ = verb(
        "status", status, "mode, lists, and whether the firewall in force is the expected one", container=False
    )
    status_.add_argument("name", nargs="?", metavar="NAME", help="one container; default: all")
    verb("profiles", profiles, "the profiles there are", container=False)
    preview_ = verb("preview", preview, "what profiles would become, without a container", container=False)
    preview_.add_argument("profiles", nargs="*", metavar="PROFILE", help="default: those of the configuration")
    logs_ = verb("logs", logs, "what was allowed, refused and changed", container=False)
    logs_.add_argument("--container", metavar="NAME", help="one container; default: all")
    logs_.add_argument("-n", dest="lines", type=int, default=20, metavar="N", help="how many lines (20)")
    logs_.add_argument("--follow", action="store_true", help="go on as lines come")
    verb("watch", watch, "show live what is allowed and refused; a key allows or denies it")


def _open(args: argparse.Namespace, env: Env) -> tuple[Bundle, Any]:
    from ...sidecars.shield.live import Running

    bundle = env.layout.bundle(args.name)
    return bundle, Running.find(bundle)


def _targets(args: argparse.Namespace) -> list[Any]:
    from ...sidecars.shield.targets import parse

    return [parse(each) for each in args.targets]


def _say(env: Env, args: argparse.Namespace, running: Any, done: str, notes: list[str], **data: Any) -> int:
    for each in notes:
        env.note(f"terok: {each}")
    when = "" if running is not None else " (at its next start: it does not run now)"
    env.out.emit({"container": args.name, "running": running is not None, "notes": notes, **data}, f"{done}{when}")
    return Exit.OK


def allow(args: argparse.Namespace, env: Env) -> int:
    """`terok shield allow NAME TARGET...`."""
    from ...sidecars.shield import live
    from ...sidecars.shield.special import check_allowed

    targets = _targets(args)
    notes = [note for each in targets for note in check_allowed(each)]
    seconds = _seconds(args.duration) if args.duration else None
    bundle, running = _open(args, env)
    if seconds is not None:
        _must_run(args.name, running)
    until = None if seconds is None else time.time() + seconds
    step = live.allow(bundle, running, targets, notes=notes, until=until)
    if seconds is not None:
        from ...sidecars.shield.later import later

        later(seconds, bundle)
    names = [str(each) for each in targets]
    done = f"Allowed {', '.join(names)} for {args.name}" + (f", for {args.duration}" if args.duration else "")
    return _say(env, args, running, done, notes + list(step.notes), allowed=names, until=until)


def _must_run(name: str, running: Any) -> None:
    if running is None:
        raise TerokError(f"{name} does not run, and every start begins closed.", fix=f"podman start {name}")


def deny(args: argparse.Namespace, env: Env) -> int:
    """`terok shield deny NAME TARGET...`."""
    from ...sidecars.shield import live

    targets = _targets(args)
    bundle, running = _open(args, env)
    step = live.deny(bundle, running, targets)
    names = [str(each) for each in targets]
    return _say(env, args, running, f"Denied {', '.join(names)} for {args.name}", list(step.notes), denied=names)


def forget(args: argparse.Namespace, env: Env) -> int:
    """`terok shield forget NAME TARGET...`."""
    from ...sidecars.shield import live

    if args.expired == bool(args.targets):
        raise TerokError("Either targets or --expired are needed.", code=Exit.USAGE)
    bundle, running = _open(args, env)
    targets = live.lapse(bundle, running) if args.expired else _targets(args)
    if not args.expired:
        live.forget(bundle, running, targets)
    names = [str(each) for each in targets]
    return _say(env, args, running, f"Forgot {', '.join(names) or 'nothing'} for {args.name}", [], forgotten=names)


def _mode(args: argparse.Namespace, env: Env, mode: str, done: str, until: float | None = None) -> int:
    from ...sidecars.shield import live

    bundle, running = _open(args, env)
    if mode not in ("up", "quarantine"):
        _must_run(args.name, running)
    live.set_mode(bundle, running, mode, until)
    return _say(env, args, running, done, [], mode=mode, until=until)


def down(args: argparse.Namespace, env: Env) -> int:
    """`terok shield down NAME [--all]`."""
    kept = "metadata services" if args.all else "private ranges and metadata services"
    return _mode(args, env, "down-all" if args.all else "down", f"{args.name} is open; only {kept} are refused")


def up(args: argparse.Namespace, env: Env) -> int:
    """`terok shield up NAME`."""
    return _mode(args, env, "up", f"{args.name} is closed but for what is allowed")


def bypass(args: argparse.Namespace, env: Env) -> int:
    """`terok shield bypass NAME --for TIME`."""
    seconds = _seconds(args.duration)
    code = _mode(args, env, "bypass", f"{args.name} is open for {args.duration}", time.time() + seconds)
    from ...sidecars.shield.later import later

    later(seconds, env.layout.bundle(args.name))
    return code


def _seconds(duration: str) -> int:
    found = _DURATION.fullmatch(duration)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= TIME_MAX:
        raise TerokError(f"{duration!r} is not a time between 1s and 24h.", fix="--for 5m", code=Exit.USAGE)
    return seconds


def quarantine(args: argparse.Namespace, env: Env) -> int:
    """`terok shield quarantine NAME`."""
    return _mode(args, env, "quarantine", f"{args.name} is cut off; `terok shield up {args.name}` ends it")


def learn(args: argparse.Namespace, env: Env) -> int:
    """`terok shield learn NAME [--print]`."""
    if not args.show:
        return _mode(args, env, "learn", f"{args.name} may reach everything, and it is recorded")
    from .views import least_profile

    return least_profile(args.name, env)


def reset(args: argparse.Namespace, env: Env) -> int:
    """`terok shield reset NAME`."""
    from ...sidecars.shield import live

    bundle, running = _open(args, env)
    live.reset(bundle, running)
    return _say(env, args, running, f"{args.name} has its profiles and nothing else", [])


def rules(args: argparse.Namespace, env: Env) -> int:
    """`terok shield rules NAME`."""
    from .views import show_rules

    return show_rules(*_open(args, env), env)


def resolve(args: argparse.Namespace, env: Env) -> int:
    """`terok shield resolve NAME`."""
    from .views import show_resolved

    return show_resolved(*_open(args, env), env)


def status(args: argparse.Namespace, env: Env) -> int:
    """`terok shield status [NAME]`."""
    from .views import show_status

    return show_status(args.name, env)


def profiles(args: argparse.Namespace, env: Env) -> int:
    """`terok shield profiles`."""
    from .views import show_profiles

    return show_profiles(env)


def preview(args: argparse.Namespace, env: Env) -> int:
    """`terok shield preview [PROFILE...]`."""
    from .views import show_preview

    return show_preview(args.profiles, env)


def logs(args: argparse.Namespace, env: Env) -> int:
    """`terok shield logs`."""
    from ..kit.audit_lines import show_logs

    return show_logs(args.container, args.lines, env, follow=args.follow)


def watch(args: argparse.Namespace, env: Env) -> int:
    """`terok shield watch NAME`."""
    from .watch import watch as run

    return run(args.name, env)
