"""`terok shield VERB` (and `terok-shield VERB`): change, look at and explain a container's firewall."""

from __future__ import annotations

import re
import time

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.verb import CONTAINER, argument, comma_separated, one_of, switch, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ...sidecars.shield.live import Running
    from ...sidecars.shield.targets import Target
    from ...supervisor.ground.layout import Bundle
    from ..kit.env import Env

_DURATION = re.compile(r"([0-9]+)(s|m|h|)")
_UNITS = {"s": 1, "": 1, "m": 60, "h": 3600}
TIME_MAX = 24 * 3600


DESTINATION = "domain, *.domain, address or range, each with an optional :PORT or :PORT/udp"
TARGETS = argument("targets", nargs="+", metavar="TARGET", help=DESTINATION)
FOR = argument("--for", dest="duration", metavar="TIME", required=True, help="30s, 5m or 2h")


def _open(args: argparse.Namespace, env: Env) -> tuple[Bundle, Running | None]:
    from ...sidecars.shield.live import Running

    bundle = env.layout.bundle(args.name)
    return bundle, Running.find(bundle)


def _targets(args: argparse.Namespace) -> list[Target]:
    from ...sidecars.shield.targets import parse

    return [parse(target) for target in args.targets]


def _say(env: Env, args: argparse.Namespace, running: object, done: str, notes: list[str], **data: object) -> int:
    for note in notes:
        env.note(f"terok: {note}")
    when = "" if running is not None else " (from its next start: it is not running)"
    env.out.emit({"container": args.name, "running": running is not None, "notes": notes, **data}, f"{done}{when}")
    return Exit.OK


@verb(
    CONTAINER,
    TARGETS,
    argument("--for", dest="duration", metavar="TIME", help="30s, 5m or 2h, at most until it stops; default: for good"),
    examples=("terok shield allow box example.com", "terok shield allow box '*.example.com:443' --for 5m"),
)
def allow(args: argparse.Namespace, env: Env) -> int:
    """Allow a container to reach a destination, now and after restarts."""
    from ...sidecars.shield import live
    from ...sidecars.shield.special import check_allowed

    targets = _targets(args)
    notes = [note for target in targets for note in check_allowed(target)]
    seconds = seconds_of(args.duration) if args.duration else None
    bundle, running = _open(args, env)
    if seconds is not None:
        _must_run(args.name, running)
    until = None if seconds is None else time.time() + seconds
    step = live.allow(bundle, running, targets, notes=notes, until=until)
    if seconds is not None:
        from ...sidecars.shield.later import later

        later(seconds, bundle)
    names = [str(target) for target in targets]
    from .show import allowed_text

    done = allowed_text(targets, args.name, step.state.model) + (f", for {args.duration}" if args.duration else "")
    return _say(env, args, running, done, notes + list(step.notes), allowed=names, until=until)


def _must_run(name: str, running: object) -> None:
    if running is None:
        raise TerokError(
            f"{name} is not running; temporary changes end when it stops.", fix=paste.command("podman", "start", name)
        )


@verb(CONTAINER, TARGETS, examples=("terok shield deny box example.com",))
def deny(args: argparse.Namespace, env: Env) -> int:
    """Deny a destination and end its open connections. A deny entry wins over every allow entry."""
    from ...sidecars.shield import live

    targets = _targets(args)
    bundle, running = _open(args, env)
    step = live.deny(bundle, running, targets)
    names = [str(target) for target in targets]
    return _say(env, args, running, f"Denied {', '.join(names)} for {args.name}", list(step.notes), denied=names)


@verb(
    CONTAINER,
    argument("targets", nargs="*", metavar="TARGET", help=DESTINATION),
    switch("--expired", "delete the entries whose time is over"),
)
def forget(args: argparse.Namespace, env: Env) -> int:
    """Delete an allow or deny entry: the one of exactly this target."""
    from ...sidecars.shield import live

    if args.expired == bool(args.targets):
        raise TerokError("Either targets or --expired are needed.", code=Exit.USAGE)
    bundle, running = _open(args, env)
    targets = live.lapse(bundle, running) if args.expired else _targets(args)
    if not args.expired:
        live.forget(bundle, running, targets)
    names = [str(target) for target in targets]
    return _say(env, args, running, f"Forgot {', '.join(names) or 'nothing'} for {args.name}", [], forgotten=names)


def _mode(args: argparse.Namespace, env: Env, mode: str, done: str, until: float | None = None) -> int:
    from ...sidecars.shield import live

    bundle, running = _open(args, env)
    if mode not in ("up", "quarantine", "ask") or until is not None:
        _must_run(args.name, running)
    live.set_mode(bundle, running, mode, until)
    return _say(env, args, running, done, [], mode=mode, until=until)


@verb(CONTAINER, switch("--all", "private ranges too; metadata services remain closed"))
def down(args: argparse.Namespace, env: Env) -> int:
    """Allow everything but private ranges and metadata services, until `up` or a restart."""
    kept = "metadata services" if args.all else "private ranges and metadata services"
    return _mode(args, env, "down-all" if args.all else "down", f"{args.name} is open, except for {kept}")


@verb(CONTAINER)
def up(args: argparse.Namespace, env: Env) -> int:
    """Return to default deny. Connections that are not allowed end."""
    return _mode(args, env, "up", f"{args.name} is back to default deny")


@verb(CONTAINER, FOR, examples=("terok shield bypass box --for 5m",))
def bypass(args: argparse.Namespace, env: Env) -> int:
    """Open the firewall as `down` does, for a limited time. The kernel ends it."""
    seconds = seconds_of(args.duration)
    code = _mode(args, env, "bypass", f"{args.name} is open for {args.duration}", time.time() + seconds)
    from ...sidecars.shield.later import later

    later(seconds, env.layout.bundle(args.name))
    return code


@verb(
    CONTAINER,
    argument("--for", dest="duration", metavar="TIME", help="30s, 5m or 2h; default: until `up`, restarts included"),
    examples=("terok shield ask box", "terok shield ask box --for 1h", "terok shield pending"),
)
def ask(args: argparse.Namespace, env: Env) -> int:
    """Hold connections to names that nothing allows, up to a minute, until `decide` or a key of `watch` answers.

    What is undecided is refused. Nothing of the question leaves this machine before. Only in the airlock.
    """
    seconds = seconds_of(args.duration) if args.duration else None
    until = None if seconds is None else time.time() + seconds
    code = _mode(args, env, "ask", f"{args.name} asks before it reaches a new name: terok shield pending", until)
    if seconds is not None:
        from ...sidecars.shield.later import later

        later(seconds, env.layout.bundle(args.name))
    return code


@verb(
    argument("name", nargs="?", metavar="NAME", help="one container (default: all)", values="containers"),
    examples=("terok shield pending", "terok shield pending box --json"),
)
def pending(args: argparse.Namespace, env: Env) -> int:
    """Show the connections that wait for a decision, the oldest first."""
    from ..kit.table import table
    from .asked import HEADER
    from .asked import pending as waiting

    questions, now = waiting(env.layout, args.name), time.time()
    text = table([HEADER, *(held.row(now) for held in questions)], env.out) if questions else "Nothing waits."
    env.out.emit([held.plain() for held in questions], text)
    return Exit.OK


@verb(
    argument("id", metavar="ID", help="from `terok shield pending`"),
    argument("answer", choices=("allow", "deny"), help="what becomes of the connections that wait"),
    one_of(
        argument("--once", action="store_true", help="only these connections (default)"),
        argument("--for", dest="duration", metavar="TIME", help="allow the name for 30s, 5m or 2h"),
        argument("--always", action="store_true", help="make a lasting entry, as `terok shield allow` and `deny` do"),
    ),
    examples=("terok shield decide 0a1b2c3d4e5f allow --for 10m", "terok shield decide 0a1b2c3d4e5f deny --always"),
)
def decide(args: argparse.Namespace, env: Env) -> int:
    """Answer a question of a container: the connections that wait go on, or are refused."""
    from . import asked

    if args.duration and args.answer == asked.DENY:
        raise TerokError(
            "--for goes with allow only.",
            fix=paste.command("terok", "shield", "decide", args.id, "deny"),
            code=Exit.USAGE,
        )
    seconds = seconds_of(args.duration) if args.duration else None
    held = asked.find(env.layout, args.id)
    once = not args.always and seconds is None
    asked.decide(env.layout.bundle(held.container), held.question, args.answer, once=once, seconds=seconds)
    how = f"for {args.duration}" if seconds else "for good" if args.always else "once"
    done = f"{'Allowed' if args.answer == asked.ALLOW else 'Denied'} {held.question.target} for {held.container}, {how}"
    env.out.emit({**held.plain(), "answer": args.answer, "how": how}, done)
    return Exit.OK


def seconds_of(duration: str) -> int:
    """The seconds of `30s`, `5m` or `2h`; raises TerokError (USAGE) beyond 24 hours or for anything else."""
    match = _DURATION.fullmatch(duration)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= TIME_MAX:
        raise TerokError(f"{duration!r} is not a time between 1s and 24h.", fix="--for 5m", code=Exit.USAGE)
    return seconds


@verb(CONTAINER)
def quarantine(args: argparse.Namespace, env: Env) -> int:
    """Isolate the container: no network, no loopback services. Survives restarts; undo with `up`."""
    end = paste.command("terok", "shield", "up", args.name)
    return _mode(args, env, "quarantine", f"{args.name} is isolated; `{end}` ends it")


@verb(
    CONTAINER,
    argument("--print", dest="show", action="store_true", help="print the profile that the recorded connections need"),
    examples=("terok shield learn box", "terok shield learn box --print"),
)
def learn(args: argparse.Namespace, env: Env) -> int:
    """Record destinations instead of refusing them. `learn --print` prints the smallest profile that allows them."""
    if not args.show:
        return _mode(args, env, "learn", f"{args.name} is open; terok records its destinations")
    from .views import least_profile

    return least_profile(args.name, env)


@verb(CONTAINER)
def reset(args: argparse.Namespace, env: Env) -> int:
    """Delete every allow and deny entry that was made at runtime."""
    from ...sidecars.shield import live

    bundle, running = _open(args, env)
    profiles = live.reset(bundle, running).state.profiles
    back = f"profile{'s' if len(profiles) > 1 else ''} {' '.join(profiles)}" if profiles else "no profile"
    return _say(env, args, running, f"{args.name}: back to {back}", [])


@verb(
    CONTAINER,
    switch("--nft", "print the rules as the kernel has them, in nft's language"),
    examples=("terok shield rules box", "terok shield rules box --nft"),
)
def rules(args: argparse.Namespace, env: Env) -> int:
    """Show what the container may reach: destination, ports, why, known addresses, and packets in the audit log.

    With --nft, or with --nft and --json, the rules that the kernel has.
    """
    bundle, running = _open(args, env)
    if args.nft:
        from .views import show_rules

        return show_rules(bundle, running, env)
    from .show import rules_of, rules_text

    table = rules_of(bundle, running)
    env.out.emit([row._asdict() for row in table], rules_text(table, env.out))
    return Exit.OK


@verb(CONTAINER)
def resolve(args: argparse.Namespace, env: Env) -> int:
    """Resolve every allowed name again and show the answers."""
    from .views import show_resolved

    return show_resolved(*_open(args, env), env)


@verb(argument("name", nargs="?", metavar="NAME", help="one container (default: all)", values="containers"))
def status(args: argparse.Namespace, env: Env) -> int:
    """Show mode, entries, and whether the firewall in force is the expected one."""
    from .views import show_status

    return show_status(args.name, env)


@verb()
def profiles(args: argparse.Namespace, env: Env) -> int:
    """List the profiles."""
    from .views import show_profiles

    return show_profiles(env)


@verb(
    argument("profiles", nargs="*", metavar="PROFILE", help="default: those of the configuration", values="profiles"),
    examples=("terok shield preview dev-python",),
)
def preview(args: argparse.Namespace, env: Env) -> int:
    """Show what profiles allow, without a container."""
    from .views import show_preview

    return show_preview(list(comma_separated(args.profiles) or ()), env)


@verb(
    argument("name", nargs="?", metavar="NAME", help="one container (default: all)", values="containers"),
    argument("--container", metavar="NAME", help="the same", values="containers"),
    argument("-n", "--lines", type=int, default=20, metavar="N", help="how many lines (default 20)"),
    argument("-f", "--follow", action="store_true", help="wait for new lines and print them"),
    argument("--since", metavar="TIME", help="only what is newer: 30s, 5m, 2h, or a time such as 2026-01-31T12:00:00Z"),
)
def logs(args: argparse.Namespace, env: Env) -> int:
    """Show what was allowed, refused and changed. Times are local; --json has them in UTC (RFC 3339)."""
    from ..kit.audit_lines import show_logs, since_text

    since = since_text(args.since, time.time()) if args.since else ""
    return show_logs(args.name or args.container, args.lines, env, follow=args.follow, since=since)


@verb(CONTAINER)
def watch(args: argparse.Namespace, env: Env) -> int:
    """Show live what is allowed and refused. A key allows or denies it."""
    from .watch import watch as run

    return run(args.name, env)
