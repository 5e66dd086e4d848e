"""`terok gate`: git mirrors that containers clone from and push to, and the review of what they pushed."""

from __future__ import annotations

import argparse
import os
import time

from ...sidecars.gate import config as gate_config
from ...sidecars.gate import mirror, refs, review, state
from ...sidecars.gate.config import DIRECT, MODES, GateConfig, Limits
from ...sidecars.gate.forge import remote, sync
from ...sidecars.gate.forge.address import Address, parse_url
from ...sidecars.gate.policy import KINDS
from ...sidecars.gate.site import Site
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import gates
from ..kit.audit_lines import read
from ..kit.table import plain
from ..kit.verb import Argument, argument, switch, verb
from . import hostkeys
from . import text as gate_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...supervisor.ground.layout import GateHome
    from ..kit.env import Env

SCOPE = argument("scope", metavar="SCOPE", help="the scope that owns the mirror", values="gates")
PROPOSAL = argument("proposal", help="its number or its ref, from `terok gate list SCOPE`", values="proposals")
SETTINGS: tuple[Argument, ...] = (
    argument(
        "--mode", choices=MODES, help="gatekeeping (default): pushes wait for approval; online: passed on at once"
    ),
    argument(
        "--direct",
        choices=DIRECT,
        help="whether the vault may write to the repository beside the gate (default: refuse)",
    ),
    argument(
        "--credential",
        metavar="NAME",
        help="the scope's credential for an https upstream; '' for none",
        values="providers",
    ),
    argument("--username", metavar="NAME", help="the user name for it (default: x-access-token)"),
    argument(
        "--ssh-key",
        metavar="NAME",
        help="the key for an ssh upstream (default: the scope's only one)",
        values="ssh-keys",
    ),
    argument("--host-key", metavar="KEY", help="the ssh host's key or its SHA256 fingerprint; without it, it is shown"),
    argument(
        "--ca-file",
        metavar="FILE",
        help="trust these certificates for an https upstream, not the system's",
        values="files",
    ),
    argument("--refresh", type=int, metavar="SECONDS", help="fetch first when the mirror is older; 0: never"),
    argument("--limit", action="append", metavar="NAME=VALUE", help=f"one of {', '.join(Limits._fields)}"),
)
PATTERNS = tuple(
    argument(
        f"--{kind}",
        action="append",
        metavar="PATTERN",
        help=f"refs that may be pushed as {kind}; repeatable; '' for none; "
        "{container} is the container's name, * is any text",
    )
    for kind in KINDS
)


def _settings(args: argparse.Namespace, base: GateConfig) -> GateConfig:
    """The configuration with what the options change."""
    names = {"mode": "mode", "credential": "credential", "username": "username", "ssh_key": "ssh_key"}
    names |= {"ca_file": "ca_file", "refresh": "refresh_seconds", "direct": "direct"}
    changes: dict[str, Any] = {
        field: getattr(args, option) for option, field in names.items() if getattr(args, option) is not None
    }
    if changes.get("ca_file"):
        changes["ca_file"] = os.path.abspath(changes["ca_file"])
    if args.limit:
        limits = base.limits._asdict()
        for word in args.limit:
            name, _, value = word.partition("=")
            if name not in limits or not value.isdigit() or int(value) < 1:
                raise TerokError(
                    f"--limit {word}: not NAME=VALUE, or NAME is unknown or VALUE not positive.", code=Exit.USAGE
                )
            limits[name] = int(value)
        changes["limits"] = Limits(**limits)
    return base.replace(**changes)


def _home(args: argparse.Namespace, env: Env) -> GateHome:
    return env.layout.gate_home(args.scope)


def _site(args: argparse.Namespace, env: Env) -> Site:
    return gates.site(env.config, args.scope)


def _number(args: argparse.Namespace, home: GateHome) -> int:
    return review.number_of(state.State.peek(home), args.scope, args.proposal)


# -- making and changing --


def _default_credential(args: argparse.Namespace, env: Env, address: Address) -> str:
    """The scope's credential that fits the host: the one named like it (github for github.com), or the only one."""
    from ...sidecars.store.store import Store

    if address.kind != "https":
        return ""
    try:
        with Store.open(env.layout.vault_db, read_only=True) as store:
            names = [entry.name for entry in store.describe("credential", args.scope)]
    except TerokError:
        return ""
    return next((name for name in names if name in address.host.lower().split(".")), "")


@verb(
    argument("scope", metavar="SCOPE", help="the scope that owns the mirror", values="scopes"),
    argument("url", metavar="URL", help="https://, ssh:// or user@host:path; without a password"),
    *SETTINGS,
    examples=("terok gate add work https://github.com/example/project.git",),
)
def add(args: argparse.Namespace, env: Env) -> int:
    """Mirror a repository for a scope."""
    address = parse_url(args.url)
    home = _home(args, env)
    settings = _settings(args, GateConfig(url=args.url))
    if args.credential is None:
        settings = settings.replace(credential=_default_credential(args, env, address))
    if os.path.exists(home.config):
        mirror.create(home, settings)  # says that there is one, before anything is asked
    os.makedirs(home.root, mode=0o700, exist_ok=True)
    if address.kind == "ssh":
        hostkeys.pin(home, address, hostkeys.choose(address, args.host_key or ""))
    site = _site(args, env)
    with remote.access(site, settings) as way:
        answer = remote.ask(home, settings, way)
    settings = settings.replace(
        object_format="sha256" if answer.oid_length == 64 else "sha1",
        default_branch=answer.default_branch or settings.default_branch,
    )
    mirror.create(home, settings)
    try:
        sync.synchronise(site, settings)
        mirror.tidy(home)
    except BaseException:
        mirror.remove(home)
        raise
    gates.publish(env.layout)
    state.log(home, "add", url=settings.url, mode=settings.mode)
    refs_count = mirror.count(home)
    env.out.emit(
        {"scope": args.scope, "path": home.repo, **settings.to_dict(), "refs": refs_count},
        f"{args.scope}: mirror of {args.url} with {refs_count} branches and tags, mode {settings.mode}.\n"
        f"Containers of the scope reach it at http://127.0.0.1:9418/{args.scope}.git",
    )
    return Exit.OK


@verb(SCOPE, *SETTINGS)
def change(args: argparse.Namespace, env: Env) -> int:
    """Change a gate's mode, credential, host key or limits."""
    home = _home(args, env)
    old = gate_config.load(home)
    settings = _settings(args, old)
    if args.host_key is not None:
        address = parse_url(settings.url)
        hostkeys.pin(home, address, hostkeys.choose(address, args.host_key))
    if settings != old:
        gate_config.save(home, settings)
        gates.publish(env.layout)
        state.log(home, "set", mode=settings.mode)
    env.out.emit(settings.to_dict(), gate_text.settings(args.scope, settings))
    return Exit.OK


@verb(
    SCOPE,
    *PATTERNS,
    argument("--protect", action=argparse.BooleanOptionalAction, help="protect tags and the default branch"),
)
def policy(args: argparse.Namespace, env: Env) -> int:
    """Show or change which refs containers may push."""
    home = _home(args, env)
    settings = gate_config.load(home)
    changes: dict[str, Any] = {
        kind: tuple(pattern for pattern in getattr(args, kind) if pattern)
        for kind in KINDS
        if getattr(args, kind) is not None
    }
    for pattern in (text for patterns in changes.values() for text in patterns):
        if not pattern.startswith(("refs/heads/", "refs/tags/")):
            raise TerokError(
                f"The pattern {pattern!r} matches no branch or tag.",
                fix="start it with refs/heads/ or refs/tags/",
                code=Exit.USAGE,
            )
    if args.protect is not None:
        changes["protect"] = args.protect
    if changes:
        policy = settings.policy._replace(**changes)
        settings = settings.replace(policy=policy)
        gate_config.save(home, settings)
        state.log(home, "policy", **policy.to_dict())
    env.out.emit(settings.policy.to_dict(), gate_text.policy(settings))
    return Exit.OK


@verb(SCOPE, switch("--yes", "also when proposals are open"))
def remove(args: argparse.Namespace, env: Env) -> int:
    """Delete a scope's mirror with its open proposals and lost tips."""
    home = _home(args, env)
    gate_config.load(home)
    waiting = len(state.State.peek(home).proposals)
    if waiting and not args.yes:
        raise TerokError(
            f"The gate of {args.scope} has {waiting} open proposals, which removing it would delete.",
            fix=f"terok gate list {paste.quoted(args.scope)}, then terok gate remove {paste.quoted(args.scope)} --yes",
            code=Exit.REFUSED,
        )
    mirror.remove(home)
    gates.publish(env.layout)
    env.out.emit({"scope": args.scope, "removed": True}, f"{args.scope}: the mirror was deleted.")
    return Exit.OK


# -- looking --


def _summary(env: Env, scope: str) -> gate_text.Summary:
    home = env.layout.gate_home(scope)
    settings, kept = gate_config.load(home), state.State.peek(home)
    return {
        "scope": scope,
        "url": settings.url,
        "mode": settings.mode,
        "proposals": len(kept.proposals),
        "synced": kept.synced or None,
        "error": kept.error or None,
    }


@verb(argument("scope", metavar="SCOPE", nargs="?", help="one scope (default: all)", values="gates"))
def list_gates(args: argparse.Namespace, env: Env) -> int:
    """List gates, or one scope's branches and open proposals."""
    if args.scope is None:
        rows = [_summary(env, name) for name in gates.scopes(env.layout)]
        env.out.emit(
            rows,
            gate_text.summaries(rows, env.out, time.time())
            or "There are no gates. `terok gate add SCOPE URL` adds one.",
        )
        return Exit.OK
    summary, home = _summary(env, args.scope), _home(args, env)
    everything = refs.read(home)
    proposals = [proposal for _, proposal in sorted(state.State.peek(home).proposals.items())]
    env.out.emit(
        {**summary, "refs": refs.visible(everything), "proposals": [proposal.to_dict() for proposal in proposals]},
        gate_text.scope(summary, everything, proposals, env.out, time.time()),
    )
    return Exit.OK


@verb(SCOPE)
def path(args: argparse.Namespace, env: Env) -> int:
    """Print the path of the mirror."""
    home = _home(args, env)
    gate_config.load(home)
    env.out.emit({"path": home.repo}, home.repo)
    return Exit.OK


@verb(
    SCOPE,
    argument("-n", "--lines", dest="n", type=int, default=50, metavar="N", help="how many lines (default 50)"),
)
def log(args: argparse.Namespace, env: Env) -> int:
    """Show what was pushed, approved, rejected, restored and fetched."""
    home = _home(args, env)
    gate_config.load(home)
    entries = list(read(home.log))[-args.n :] if args.n > 0 else []
    env.out.emit(entries, gate_text.log(entries, env.out) or "The log is empty.")
    return Exit.OK


@verb(SCOPE, PROPOSAL)
def diff(args: argparse.Namespace, env: Env) -> int:
    """Show an open proposal's commits and changes."""
    home = _home(args, env)
    settings = gate_config.load(home)
    proposal = review.find(state.State.peek(home), args.scope, _number(args, home))
    commits, patch = review.show(home, settings, proposal)
    env.out.emit(
        {**proposal.to_dict(), "commits": commits.splitlines(), "patch": patch},
        gate_text.proposal(env.out, proposal, commits, patch),
    )
    return Exit.OK


# -- acting --


def _say(env: Env) -> Callable[[str], None]:
    return lambda text: env.note(plain(text))


@verb(SCOPE)
def synchronise(args: argparse.Namespace, env: Env) -> int:
    """Fetch from upstream. Rewritten and deleted branches become proposals."""
    site = _site(args, env)
    settings = gate_config.load(site.home)
    with remote.access(site, settings) as way:
        answer = remote.ask(site.home, settings, way)
    if answer.default_branch and answer.default_branch != settings.default_branch:
        settings = settings.replace(default_branch=answer.default_branch)
        gate_config.save(site.home, settings)
        mirror.point_head(site.home, settings.default_branch)
    steps = sync.synchronise(site, settings)
    mirror.tidy(site.home)
    rows = [step._asdict() for step in steps]
    env.out.emit(rows, gate_text.steps(steps, env.out) or f"{args.scope}: already up to date.")
    return Exit.OK


@verb(SCOPE, PROPOSAL)
def approve(args: argparse.Namespace, env: Env) -> int:
    """Push a proposal to upstream, if upstream has not moved since."""
    site = _site(args, env)
    done = review.approve(site, gate_config.load(site.home), _number(args, site.home), _say(env))
    env.out.emit(done.to_dict(), f"{done.kind} {plain(done.ref)} is done.")
    return Exit.OK


@verb(SCOPE, PROPOSAL)
def reject(args: argparse.Namespace, env: Env) -> int:
    """Drop a proposal. It can be restored for 30 days."""
    home = _home(args, env)
    gate_config.load(home)
    done = review.reject(home, _number(args, home))
    env.out.emit(done.to_dict(), f"{done.kind} {plain(done.ref)} is rejected.")
    return Exit.OK


@verb(
    SCOPE,
    argument("tip", metavar="TIP", nargs="?", help="an identity from the list, or a branch: its newest", values="tips"),
)
def restore(args: argparse.Namespace, env: Env) -> int:
    """List tips that were overwritten or deleted, or restore one to its ref."""
    site = _site(args, env)
    settings = gate_config.load(site.home)
    if args.tip is None:
        lost = refs.kept(refs.read(site.home))
        rows = [tip._asdict() for tip in lost]
        env.out.emit(rows, gate_text.lost(lost, env.out) or "No tip was overwritten or deleted in the last 30 days.")
        return Exit.OK
    done = review.restore(site, settings, args.tip, _say(env))
    env.out.emit(
        done._asdict(),
        f"{plain(done.ref)} was restored to {done.tip[:12]}.",
    )
    return Exit.OK
