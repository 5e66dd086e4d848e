"""`terok vault list`, `add`, `rotate`, `remove` and `show`."""

from __future__ import annotations

import json
import os
import ssl
import time
from typing import TYPE_CHECKING, Any

from ...sidecars.roster import catalog, files
from ...sidecars.roster.model import Provider
from ...sidecars.roster.providers import url_problem
from ...sidecars.store import credential
from ...sidecars.store.credential import KIND, Credential
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name
from ..kit import alive, opening, secret_input
from ..kit.table import table
from ..kit.verb import Argument, argument, scope_option, switch, verb
from .locks import allowances, attention, day

if TYPE_CHECKING:
    import argparse

    from ...sidecars.store.records import Entry
    from ...sidecars.store.store import Store
    from ..kit.env import Env


NAMES = (
    argument("scope", metavar="SCOPE", help="the scope that owns the credential", values="scopes"),
    argument(
        "provider", metavar="PROVIDER", help="for example anthropic, github, custom, custom-NAME", values="providers"
    ),
)
SECRET = (
    argument("--user", metavar="NAME", help="user name of a basic credential"),
    argument("--expires", metavar="DATE", help="when the secret expires (YYYY-MM-DD), for status and doctor"),
    switch("--force", "store a secret that looks like another provider's"),
)
AT_ITS_HOSTS: tuple[Argument, ...] = (
    argument(
        "--foreign",
        choices=("allow", "refuse"),
        help="requests over TLS to the provider's hosts may carry a credential of the client's own (default: refuse)",
    ),
)
ROUTE: tuple[Argument, ...] = (
    argument("--auth", choices=("api-key", "oauth", "basic"), help="kind of secret (default: the provider's first)"),
    argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a variable of the provider's route"),
    argument("--upstream", metavar="URL", help="where requests go; required for the provider custom"),
    switch("--allow-private", "the upstream may have a private address"),
    argument("--ca-bundle", metavar="FILE", help="trust these certificates for the upstream", values="files"),
    argument("--header", metavar="NAME", help="send the secret in this header"),
    argument("--prefix", default="", metavar="TEXT", help="text before the secret in --header"),
    switch("--replace", "replace an existing credential"),
)


@verb(scope_option("only this scope"))
def list_items(args: argparse.Namespace, env: Env) -> int:
    """List the credentials, without their secrets."""
    entries: list[Entry] = []
    if opening.exists(env):
        with opening.closed(env) as store:
            entries = store.describe(KIND, args.scope)
    env.out.emit([describe(entry) for entry in entries], table([HEAD, *map(_row, entries)], env.out) if entries else "")
    if not entries:
        env.note("There are no credentials: terok vault add SCOPE PROVIDER, or terok auth AGENT")
    return Exit.OK


def describe(entry: Entry) -> dict[str, object]:
    """One credential as plain data, without its secret."""
    meta = {name: value for name, value in entry.meta.items() if name != "refresh"}
    return {
        "scope": entry.scope,
        "provider": entry.name,
        "version": entry.version,
        "updated": entry.updated,
        "attention": attention(entry, time.time()),
        **meta,
    }


HEAD = ("SCOPE", "PROVIDER", "KIND", "SINCE", "DETAILS")


def _row(entry: Entry) -> tuple[str, ...]:
    meta = entry.meta
    details = [str(meta[name]) for name in ("account", "upstream") if meta.get(name)]
    details += [f"{name}={value}" for name, value in meta.get("variables", {}).items()]
    details += allowances(meta)
    details += [note] if (note := attention(entry, time.time())) else []
    return (entry.scope, entry.name, str(meta.get("auth", "api-key")), day(entry.updated), "  ".join(details))


def provider_of(env: Env, name: str) -> Provider:
    """A provider of the roster.

    Raises:
        TerokError: there is none of this name.
    """
    catalogue, warning = files.load(env.layout)
    if warning:
        env.note(warning)
    provider = catalogue.provider(name)
    if provider is None:
        known = ", ".join(catalogue.providers)
        raise TerokError(f"There is no provider {name!r}.", fix=f"use one of: {known}", code=Exit.NOT_FOUND)
    return provider


@verb(
    *NAMES,
    *SECRET,
    *ROUTE,
    switch("--ambient", "add the secret to requests over TLS to the provider's hosts that carry no credential"),
    *AT_ITS_HOSTS,
    examples=("terok vault add work github <token.txt",),
)
def add(args: argparse.Namespace, env: Env) -> int:
    """Store a credential. The secret is asked for on a terminal, or read from standard input."""
    check_name(args.scope)
    provider = provider_of(env, args.provider)
    meta = route_meta(args, provider)
    secret = _ask(args.provider, meta["auth"])
    check_shape(env, args, args.provider, secret)
    with opening.unlocked(env, create=True) as store:
        put(store, args.scope, args.provider, secret, meta, replace=args.replace)
    check = paste.command("terok", "vault", "check", args.scope, args.provider)
    env.note(f"To see whether the provider accepts it: {check}")
    if running := alive.running_in_scope(env.layout, args.scope):
        listed = ", ".join(running[:5]) + (" ..." if len(running) > 5 else "")
        env.note(
            f"{listed}: usable at http://127.0.0.1:9419 now, and at the provider's own hosts after another prepare."
        )
    return _said(env, args.scope, args.provider, "Stored")


def check_shape(env: Env, args: argparse.Namespace, name: str, secret: Credential) -> None:
    """Notice a secret that is another provider's by how it begins: it would be sent to the wrong service.

    Raises:
        TerokError: it begins like another provider's, and --force was not given.
    """
    catalogue, _ = files.load(env.layout)
    provider = catalogue.provider(name)
    owners = catalogue.meant_for(secret.secret)
    if args.force or not owners or name in owners or provider is None or provider.custom:
        return
    titles = " or ".join(catalogue.providers[owner].title for owner in owners)
    raise TerokError(
        f"This secret begins like one of {titles}; it would be sent to {provider.title}. Nothing was stored.",
        fix=f"terok vault add {paste.quoted(args.scope)} {paste.quoted(owners[0])}, or --force when it is right",
        code=Exit.REFUSED,
    )


def put(store: Store, scope: str, name: str, secret: Credential, meta: dict[str, object], *, replace: bool) -> None:
    """Store a credential.

    Args:
        store: unlocked.
        scope, name: where.
        secret: the credential.
        meta: its meta, without what can be told from the credential.
        replace: overwrite one that is there.

    Raises:
        TerokError: there is one (REFUSED), or the secret cannot be sent in a header.
    """
    if not replace and any(entry.name == name for entry in store.describe(KIND, scope)):
        raise TerokError(
            f"The scope {scope} has a credential for {name}.",
            fix=f"terok vault rotate {paste.quoted(scope)} {paste.quoted(name)}, or --replace",
            code=Exit.REFUSED,
        )
    credential.check_secret(secret.secret)
    meta = {**meta, "auth": secret.auth}
    if secret.expires_at is not None:
        meta["expires_at"] = secret.expires_at
    if secret.user:
        meta["user"] = secret.user
    store.put(KIND, scope, name, secret.encode(), meta)


@verb(*NAMES, *SECRET)
def rotate(args: argparse.Namespace, env: Env) -> int:
    """Replace a credential's secret. Running containers use the new one at once."""
    with opening.unlocked(env) as store:
        entry = _entry(store, args.scope, args.provider)
        kind = str(entry.meta.get("auth", "api-key"))
        secret = _ask(args.provider, kind)
        check_shape(env, args, args.provider, secret)
        meta = {
            name: value for name, value in entry.meta.items() if name not in ("refresh", "refreshed_at", "expires_at")
        }
        meta.update(_common_meta(args))
        put(store, args.scope, args.provider, secret, meta, replace=True)
    return _said(env, args.scope, args.provider, "Replaced")


@verb(
    *NAMES,
    argument(
        "--ambient",
        choices=("on", "off"),
        help="add the secret to requests over TLS to the provider's hosts that carry no credential",
    ),
    *AT_ITS_HOSTS,
    examples=("terok vault set work github --ambient on",),
)
def change(args: argparse.Namespace, env: Env) -> int:
    """Change what a credential allows, without its secret. Running containers follow at once."""
    if args.ambient is None and args.foreign is None:
        raise TerokError("There is nothing to change.", fix="add --ambient or --foreign", code=Exit.USAGE)
    with opening.closed(env) as store:
        meta = dict(_entry(store, args.scope, args.provider).meta)
        for name, chosen, value in (
            ("ambient", args.ambient == "on", True),
            ("foreign", args.foreign == "allow", "allow"),
        ):
            if getattr(args, name) is not None:
                meta.pop(name, None)
                meta.update({name: value} if chosen else {})
        store.set_meta(KIND, args.scope, args.provider, meta)
    return _said(env, args.scope, args.provider, "Changed")


@verb(*NAMES)
def remove(args: argparse.Namespace, env: Env) -> int:
    """Delete a credential. Requests of running containers that need it are refused."""
    with opening.closed(env) as store:
        _entry(store, args.scope, args.provider)
        store.remove(KIND, args.scope, args.provider)
    return _said(env, args.scope, args.provider, "Removed")


@verb(*NAMES, switch("--reveal", "print the secret too"))
def show(args: argparse.Namespace, env: Env) -> int:
    """Show one credential."""
    if not args.reveal:
        with opening.closed(env) as store:
            shown = describe(_entry(store, args.scope, args.provider))
    else:
        with opening.unlocked(env) as store:
            shown = describe(_entry(store, args.scope, args.provider))
            item = store.get(KIND, args.scope, args.provider)
            assert item is not None
            shown["secret"] = item.secret.decode()
    lines = [f"{name:<14} {value if isinstance(value, str) else json.dumps(value)}" for name, value in shown.items()]
    env.out.emit(shown, "\n".join(lines))
    return Exit.OK


def route_meta(args: argparse.Namespace, provider: Provider) -> dict[str, Any]:
    """The meta that the options of `add` ask for.

    Raises:
        TerokError: an option does not fit the provider.
    """
    kinds = list(provider.auth)
    kind = args.auth or ("basic" if args.user and "basic" in kinds else kinds[0])
    if kind not in kinds:
        raise TerokError(f"{args.provider} takes {' or '.join(kinds)}, not {kind}.", code=Exit.USAGE)
    meta: dict[str, object] = {"auth": kind, "source": "typed", **_common_meta(args)}
    variables = _variables(args, provider)
    if variables:
        meta["variables"] = variables
    if args.upstream:
        meta["upstream"] = _upstream(args)
    elif provider.custom:
        raise TerokError(f"{args.provider} has no default upstream.", fix="add --upstream https://...", code=Exit.USAGE)
    if args.allow_private:
        meta["allow_private"] = True
    if args.ca_bundle:
        meta["ca_bundle"] = _ca_bundle(args.ca_bundle)
    if args.header:
        if not args.header.replace("-", "").isalnum() or not args.header.isascii() or not args.prefix.isprintable():
            raise TerokError(f"{args.header!r} is not a valid header name.", code=Exit.USAGE)
        meta["auth_header"], meta["auth_prefix"] = args.header, args.prefix
    if args.ambient:
        meta["ambient"] = True
    if args.foreign == "allow":
        meta["foreign"] = "allow"
    catalog.effective(provider, meta)
    return meta


def _common_meta(args: argparse.Namespace) -> dict[str, object]:
    meta: dict[str, object] = {}
    if args.user:
        if not args.user.isascii() or not args.user.isprintable() or ":" in args.user:
            raise TerokError("A user name must be printable ASCII without a colon.", code=Exit.USAGE)
        meta["user"] = args.user
    if args.expires:
        try:
            meta["expires_at"] = time.mktime(time.strptime(args.expires, "%Y-%m-%d"))
        except ValueError:
            raise TerokError(f"{args.expires!r} is not a date like 2026-12-31.", code=Exit.USAGE) from None
    return meta


def _variables(args: argparse.Namespace, provider: Provider) -> dict[str, str]:
    values = {}
    for word in args.set:
        name, equals, value = word.partition("=")
        if not equals or name not in provider.variables:
            known = ", ".join(provider.variables) or "none"
            raise TerokError(f"--set {word}: {args.provider} has these values: {known}.", code=Exit.USAGE)
        values[name] = value
    return values


def _upstream(args: argparse.Namespace) -> str:
    url = str(args.upstream).rstrip("/")
    problem = url_problem(url)
    if not problem and url.startswith("http:") and not args.allow_private:
        problem = "an http:// upstream would carry the secret in the clear; use https, or add --allow-private"
    if problem:
        raise TerokError(f"--upstream: {problem}.", code=Exit.USAGE)
    return url


def _ca_bundle(path: str) -> str:
    path = os.path.abspath(path)
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise TerokError(f"{path} is not a CA bundle: {error.__class__.__name__}.", code=Exit.USAGE) from None
    return path


def _ask(name: str, kind: str) -> Credential:
    """The secret, as its kind is written."""
    text = secret_input.read(
        f"{'Password or token' if kind == 'basic' else 'Key' if kind == 'api-key' else 'Login'} for {name}",
        whole=kind == "oauth",
    )
    if kind != "oauth":
        return Credential(kind, credential.check_secret(text))
    try:
        fields = json.loads(text)
        return Credential(
            "oauth", fields["access_token"], refresh_token=fields.get("refresh_token"),
            expires_at=fields.get("expires_at"), scopes=tuple(fields.get("scopes", ())),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        raise TerokError(
            "A login must be JSON with access_token, and optionally refresh_token and expires_at (Unix seconds).",
            fix="use terok auth AGENT",
            code=Exit.USAGE,
        ) from None


def _entry(store: Store, scope: str, name: str) -> Entry:
    row = next((entry for entry in store.describe(KIND, scope) if entry.name == name), None)
    if row is None:
        raise TerokError(
            f"The scope {scope} has no credential for {name}.",
            fix=paste.command("terok", "vault", "add", scope, name),
            code=Exit.NOT_FOUND,
        )
    return row


def _said(env: Env, scope: str, name: str, done: str) -> int:
    env.out.emit({"scope": scope, "provider": name, "done": done.lower()}, f"{done}: {scope}/{name}")
    return Exit.OK
