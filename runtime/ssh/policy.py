"""`terok ssh trust|untrust|policy|confirm|agent`: what a key may sign, for which hosts and users."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.verb import Argument, argument, one_of, scope_option, switch, verb

if TYPE_CHECKING:
    from ...sidecars.ssh.policy import Policy
    from ..kit.env import Env
    from .hosts import HostKey
    from .shelf import Key, Shelf

FLAGS = ("require_bind", "forwarding", "confirm")
HOST = argument("host", metavar="HOST", help="HOST, HOST:PORT or [HOST]:PORT")
SELECTION = (
    scope_option("only this scope (default: the only one there is)"),
    argument("--name", metavar="NAME", help="only this key (default: all keys of the scope)", values="ssh-keys"),
)


def _words(what: str) -> tuple[Argument, Argument]:
    """The options that add to and remove from a list of the policy."""
    return (
        argument(
            f"--{what}", action="append", default=[], metavar=what.upper(), help=f"allow this {what} (repeatable)"
        ),
        argument(f"--no-{what}", action="append", default=[], metavar=what.upper(), help="stop allowing it"),
    )


def _select(shelf: Shelf, args: argparse.Namespace) -> tuple[str, list[Key]]:
    """The scope and the keys that a command line means."""
    keys = [shelf.get(args.name)] if args.name else shelf.all()
    scopes = sorted({scope for key in keys for scope in key.scopes})
    if args.scope is None and len(scopes) > 1:
        raise TerokError("Specify --scope.", fix=f"--scope {'|'.join(scopes)}", code=Exit.USAGE)
    scope = args.scope or (scopes[0] if scopes else "")
    chosen = [key for key in keys if scope in key.scopes]
    if not chosen:
        fix = paste.command("terok", "ssh", "generate", "--scope", scope or "SCOPE")
        raise TerokError(f"The scope {scope or '(none)'} has no such SSH key.", fix=fix, code=Exit.NOT_FOUND)
    return scope, chosen


@verb(
    HOST,
    *SELECTION,
    one_of(
        argument(
            "--key",
            action="append",
            metavar="FILE|LINE",
            help="a known_hosts or .pub file, or one line of it (repeatable)",
            values="files",
        ),
        switch("--scan", "ask the host for its keys and show them"),
    ),
    argument("--fingerprint", action="append", metavar="SHA256:...", help="pin only a key with this fingerprint"),
    argument("--user", action="append", metavar="NAME", help="a remote user name (default: the key's, which is git)"),
    switch("--yes", "do not ask, not even about keys that were only scanned"),
    examples=("terok ssh trust github.com --scope work",),
)
def trust(args: argparse.Namespace, env: Env) -> int:
    """Pin a host's keys: logins to the host may then be signed.

    Without --key and --scan, the keys come from your known_hosts files.
    """
    from . import hosts as ssh_hosts
    from .shelf import Shelf

    host = ssh_hosts.known_name(args.host)
    with Shelf(env) as shelf:
        scope, chosen = _select(shelf, args)
        pinned = all(host in key.policy(scope).get("hosts", {}) for key in chosen)
        only_users = pinned and args.user and not args.key and not args.scan
        host_keys = [] if only_users else _host_keys(args, env, host)
        if host_keys and args.scan and not args.yes and not args.fingerprint:
            _ask(env, host, host_keys)
        for key in chosen:
            entry = key.policy(scope).setdefault("hosts", {}).setdefault(host, {"keys": []})
            entry["keys"] += [key.line for key in host_keys if key.line not in entry["keys"]]
            if args.user:
                entry["users"] = list(dict.fromkeys([*entry.get("users", []), *args.user]))
            shelf.save(key)
    result = {
        "host": host,
        "scope": scope,
        "names": [key.name for key in chosen],
        "keys": [{"key": key.line, "fingerprint": key.fingerprint, "source": key.source} for key in host_keys],
        "users": args.user,
    }
    lines = [f"{key.fingerprint}  {key.line.partition(' ')[0]}  from {key.source}" for key in host_keys]
    env.out.emit(result, "\n".join(lines))
    if not env.out.json_output:
        env.note(f"{', '.join(key.name for key in chosen)} may log in to {host} for the scope {scope}.")
    return Exit.OK


def _host_keys(args: argparse.Namespace, env: Env, host: str) -> list[HostKey]:
    from . import hosts as ssh_hosts

    if args.scan:
        keys = ssh_hosts.scan(host)
    elif args.key:
        keys = [key for text in args.key for key in ssh_hosts.given(text, host)]
    else:
        keys = ssh_hosts.find(host, env.environ)
        if not keys:
            raise TerokError(
                f"Your known_hosts files have no key for {host}.",
                fix=f"terok ssh trust {paste.quoted(args.host)} --key FILE|LINE, "
                "or --scan and compare the fingerprints",
                code=Exit.NOT_FOUND,
            )
    if args.fingerprint:
        offered = ", ".join(key.fingerprint for key in keys)
        keys = [key for key in keys if key.fingerprint in args.fingerprint]
        if not keys:
            raise TerokError(f"{host} has none of these fingerprints; it has {offered}.", code=Exit.REFUSED)
    return keys


def _ask(env: Env, host: str, host_keys: list[HostKey]) -> None:
    if not sys.stdin.isatty():
        raise TerokError(
            f"Confirm that these are the keys of {host}: " + ", ".join(key.fingerprint for key in host_keys),
            fix="compare them with what the host's owner publishes, then repeat with --fingerprint or --yes",
            code=Exit.MANUAL,
        )
    env.note(f"{host} offers these keys:")
    for key in host_keys:
        env.note(f"  {key.fingerprint}  {key.line.partition(' ')[0]}")
    env.note("Compare them with what the host's owner publishes. Trust them? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TerokError("Nothing was pinned.", code=Exit.REFUSED)


@verb(HOST, *SELECTION)
def untrust(args: argparse.Namespace, env: Env) -> int:
    """Remove a host's pins: logins to the host are no longer signed."""
    from . import hosts as ssh_hosts
    from .shelf import Shelf

    host = ssh_hosts.known_name(args.host)
    with Shelf(env) as shelf:
        scope, chosen = _select(shelf, args)
        had = [key for key in chosen if key.policy(scope).get("hosts", {}).pop(host, None) is not None]
        if not had:
            raise TerokError(f"{host} is not pinned for the scope {scope}.", fix="terok ssh list", code=Exit.NOT_FOUND)
        for key in had:
            shelf.save(key)
    env.out.emit({"host": host, "scope": scope, "names": [key.name for key in had]}, "")
    return Exit.OK


@verb(*SELECTION)
def known_hosts(args: argparse.Namespace, env: Env) -> int:
    """Print the pinned host keys as a known_hosts file, for programs in the container."""
    from ...sidecars.ssh import policy as rules
    from .shelf import Shelf

    with Shelf(env) as shelf:
        scope, chosen = _select(shelf, args)
        lines = rules.known_hosts(key.policy(scope) for key in chosen)
    env.out.emit(lines, "\n".join(lines))
    return Exit.OK


@verb(
    argument("name", metavar="NAME", help="the key", values="ssh-keys"),
    scope_option("for this scope (default: the key's only one)"),
    *_words("user"),
    *_words("namespace"),
    argument("--rate", type=int, metavar="N", help="signatures a minute; 0: any number"),
    argument("--require-bind", choices=("yes", "no"), help="sign only for sessions that name their host"),
    argument("--forwarding", choices=("yes", "no"), help="sign for sessions of a forwarded agent"),
    argument("--confirm", choices=("yes", "no"), help="ask you before each signature (terok ssh confirm)"),
    switch("--reset", "return to the strict default, without any pinned host"),
    examples=("terok ssh policy work --confirm yes",),
)
def policy(args: argparse.Namespace, env: Env) -> int:
    """Show or change what a key may sign."""
    from ...sidecars.ssh import policy as rules
    from .shelf import Shelf

    with Shelf(env) as shelf:
        scope, (key, *_) = _select(shelf, args)
        document = key.policy(scope)
        before = json.dumps(document)
        if args.reset:
            document.clear()
        for field, default in (("user", rules.USERS), ("namespace", rules.NAMESPACES)):
            added, removed = getattr(args, field), getattr(args, f"no_{field}")
            if added or removed:
                words = dict.fromkeys([*document.get(f"{field}s", default), *added])
                document[f"{field}s"] = [word for word in words if word not in removed]
        if args.rate is not None:
            document["rate"] = args.rate
        for flag in FLAGS:
            if getattr(args, flag) is not None:
                document[flag] = getattr(args, flag) == "yes"
        if json.dumps(document) != before:
            shelf.save(key)
    env.out.emit({"name": key.name, "scope": scope, "policy": document}, _show(rules.parse(document)))
    return Exit.OK


def _show(rules: Policy) -> str:
    from ...sidecars.ssh.keys import fingerprint

    rate = f"{rules.rate} a minute" if rules.rate else "any number"
    lines = [
        f"namespaces:   {' '.join(rules.namespaces) or 'none'}",
        f"signatures:   {rate}",
        f"require bind: {'yes' if rules.require_bind else 'no'}",
        f"forwarding:   {'yes' if rules.forwarding else 'no'}",
        f"confirm:      {'yes' if rules.confirm else 'no'}",
        f"users:        {' '.join(rules.users) or 'none'}",
    ]
    for blob, pins in rules.pins.items():
        lines += [f"host:         {pin.host} {fingerprint(blob)} as {' '.join(pin.users)}" for pin in pins]
    return "\n".join(lines if rules.pins else [*lines, "host:         none: no login is signed (terok ssh trust HOST)"])


@verb(
    argument(
        "id", metavar="ID", nargs="?", help="one signature (default: show all; on a terminal, ask)", values="signatures"
    ),
    one_of(switch("--yes", "sign"), switch("--no", "refuse")),
)
def confirm(args: argparse.Namespace, env: Env) -> int:
    """Answer signatures that wait for confirmation."""
    from . import questions

    waiting = questions.waiting(env.layout)
    if args.id is not None:
        chosen = [question for question in waiting if question.id == args.id]
        if not chosen:
            raise TerokError(f"No signature {args.id!r} is waiting.", fix="terok ssh confirm", code=Exit.NOT_FOUND)
        if len(chosen) > 1:  # a signer that an attacker controls may have copied another container's ID
            raise TerokError(
                f"{len(chosen)} signatures wait as {args.id!r}, so the ID decides none of them.",
                fix="answer them one by one: terok ssh confirm",
                code=Exit.REFUSED,
            )
        if not args.yes and not args.no:
            fix = f"terok ssh confirm {paste.quoted(args.id)} --yes|--no"
            raise TerokError("Specify --yes or --no.", fix=fix, code=Exit.USAGE)
        questions.answer(chosen[0], yes=args.yes)
        env.out.emit({**chosen[0].shown, "answer": "yes" if args.yes else "no"}, "")
        return Exit.OK
    if args.yes or args.no:
        raise TerokError("Specify the signature ID.", fix="terok ssh confirm ID --yes|--no", code=Exit.USAGE)
    env.out.emit(
        [question.shown for question in waiting], "\n".join(question.text(time.time()) for question in waiting)
    )
    if not waiting:
        env.note("No signature is waiting.")
    if not env.out.json_output and sys.stdin.isatty():
        for question in waiting:
            env.note(f"Sign {question.id} of {question.shown['container']}? [y/N] ")
            questions.answer(question, yes=sys.stdin.readline().strip().lower() in ("y", "yes"))
    return Exit.OK


@verb(
    scope_option("whose keys", required=True),
    argument("command", nargs="*", metavar="COMMAND", help="run it with the agent (default: serve)"),
    usage="--scope SCOPE [-- COMMAND...]",
    examples=("terok ssh agent --scope work -- git fetch",),
)
def agent(args: argparse.Namespace, env: Env) -> int:
    """Serve a scope's keys to a shell on the host, as ssh-agent does."""
    from . import agent as ssh_agent

    return ssh_agent.serve(env, args.scope, args.command, os.getcwd())
