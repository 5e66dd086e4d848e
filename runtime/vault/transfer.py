"""`terok vault export` and `import`: a copy of the vault's items, sealed with a passphrase; and vendors' own files.

An export is JSON: `{"terok_export": 1, "scrypt": {...}, "sealed": BASE64}`; what is sealed, or stands under `items`
when `--reveal` wrote it in the clear, is a list of `{kind, scope, name, secret (base64), meta}`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ...sidecars.kit.proxy.egress import parse_url
from ...sidecars.store import credential, proxy, tiers
from ...sidecars.store.records import Item, LockedError
from ...sidecars.store.seal import SealBroken, Sealer
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name
from ..kit import opening, secret_input
from ..kit.verb import argument, scope_option, switch, verb
from . import capture
from .items import provider_of, put

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ...sidecars.roster.model import Capture
    from ...sidecars.store.credential import Credential
    from ...sidecars.store.store import Store
    from ..kit.env import Env

FORMAT = 1
KINDS = (credential.KIND, "ssh-key", "gate", proxy.KIND)
_IDENTITY = ("terok export", FORMAT)


@verb(
    argument("file", metavar="FILE", help="a new file; - is standard output", values="files"),
    scope_option("only this scope"),
    switch("--reveal", "write the secrets unencrypted, without a passphrase"),
)
def run_export(args: argparse.Namespace, env: Env) -> int:
    """Write a copy of the vault's items, encrypted with a passphrase."""
    with opening.unlocked(env) as store:
        items = _collect(store, args.scope)
    document: dict[str, Any] = {"terok_export": FORMAT}
    if args.reveal:
        document["items"] = items
    else:
        key, document["scrypt"] = tiers.stretch_new(secret_input.read("Passphrase for the export", confirm=True))
        sealed = Sealer(key).seal(_IDENTITY, json.dumps(items).encode())
        document["sealed"] = base64.b64encode(sealed).decode()
    data = (json.dumps(document, indent=2 if args.reveal else None) + "\n").encode()
    if args.file == "-":
        sys.stdout.write(data.decode())
        return Exit.OK
    _write(args.file, data)
    env.out.emit({"file": args.file, "items": len(items)}, f"Wrote {len(items)} items to {args.file}.")
    return Exit.OK


def _collect(store: Store, scope: str | None) -> list[dict[str, Any]]:
    items = []
    for entry in store.describe():
        if scope is not None and entry.scope != scope and scope not in entry.meta.get("scopes", ()):
            continue
        item = store.get(entry.kind, entry.scope, entry.name)
        if item is not None:
            secret = base64.b64encode(item.secret).decode()
            items.append(
                {"kind": item.kind, "scope": item.scope, "name": item.name, "secret": secret, "meta": item.meta}
            )
    return items


def _write(path: str, data: bytes) -> None:
    """A new file, 0600; one that is there is not touched."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TerokError(f"Could not write {path}: {error.strerror}.") from error
    with open(fd, "wb") as file:
        file.write(data)


@verb(
    argument(
        "file",
        metavar="FILE",
        help="an export of terok, or with --agent an agent's credential file; - is standard input",
        values="files",
    ),
    argument("--agent", metavar="AGENT", help="FILE is this agent's own credential file", values="agents"),
    scope_option("with --agent: into this scope; otherwise: only this scope of the export"),
    switch("--replace", "replace existing credentials"),
)
def run_import(args: argparse.Namespace, env: Env) -> int:
    """Import credentials from an export of terok, or from an agent's own credential file."""
    text = secret_input.read_all() if args.file == "-" else capture.read_file(args.file)
    if args.agent:
        return import_vendor_file(args, env, text)
    items = _items(text, from_stdin=args.file == "-")
    done, kept = [], []
    with opening.unlocked(env, create=True) as store:
        have = {(entry.kind, entry.scope, entry.name) for entry in store.describe()}
        for item in items:
            identity = (item["kind"], item["scope"], item["name"])
            if args.scope is not None and item["scope"] != args.scope:
                continue
            if identity in have and not args.replace:
                kept.append(identity)
                continue
            store.put(*identity, base64.b64decode(item["secret"]), item["meta"])
            done.append(identity)
    names = [f"{scope}/{name}" for _, scope, name in done]
    env.out.emit({"imported": names, "kept": len(kept)}, f"Imported {len(done)}: {', '.join(names)}" if done else "")
    if kept:
        env.note(f"{len(kept)} exist and were not changed (--replace overwrites them).")
    return Exit.OK


def _items(text: str, *, from_stdin: bool) -> list[dict[str, Any]]:
    """The items of an export.

    Raises:
        TerokError: it is no export, or the passphrase is wrong.
    """
    wrong = TerokError(
        "This is not an export of terok.", fix="for an agent's own file use --agent AGENT", code=Exit.USAGE
    )
    try:
        document = json.loads(text)
        version = document["terok_export"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise wrong from None
    if version != FORMAT:
        raise TerokError(f"The export has format {version}; this program reads {FORMAT}.", code=Exit.USAGE)
    try:
        if "items" in document:
            return _checked(document["items"])
        if from_stdin:
            raise TerokError(
                "The passphrase is read from standard input, so the export must be a file.", code=Exit.USAGE
            )
        sealed, parameters = document["sealed"], document["scrypt"]
        if not isinstance(parameters, dict):
            raise wrong
        key = tiers.stretch(secret_input.read("Passphrase of the export"), parameters)
        return _checked(json.loads(Sealer(key).open(_IDENTITY, base64.b64decode(sealed))))
    except (SealBroken, LockedError):
        raise TerokError("The passphrase is wrong, or the export was changed.", code=Exit.REFUSED) from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise wrong from None


def _checked(items: object) -> list[dict[str, object]]:
    """The items, when each is one that this program could have stored; ValueError, KeyError or TypeError when not."""
    if not isinstance(items, list):
        raise ValueError("no list of items")
    for item in items:
        kind, scope, name, meta = item["kind"], item["scope"], item["name"], item["meta"]
        secret = base64.b64decode(item["secret"], validate=True)
        if kind not in KINDS or not isinstance(scope, str) or not isinstance(name, str) or not isinstance(meta, dict):
            raise ValueError("not an item")
        if scope:
            check_name(scope)
        if kind == proxy.KIND:
            parse_url(f"http://{name}")
        else:
            check_name(name)
        scopes = meta.get("scopes", [])
        if not isinstance(scopes, list) or not all(isinstance(word, str) for word in scopes):
            raise ValueError("its scopes are no list of names")
        if kind == credential.KIND:
            if meta.get("auth", "api-key") not in credential.AUTH_KINDS:
                raise ValueError("an unknown kind of login")
            credential.parse(Item(kind, scope, name, secret, meta, 1, 0.0))
    return items


def import_vendor_file(args: argparse.Namespace, env: Env, text: str) -> int:
    """Store what an agent's own credential file holds."""
    if not args.scope:
        raise TerokError("Specify --scope.", fix="add --scope SCOPE", code=Exit.USAGE)
    check_name(args.scope)
    names = store_captured(env, args.agent, args.scope, text, args.file, replace=args.replace)
    env.out.emit({"imported": names}, f"Imported {', '.join(names)}.")
    return Exit.OK


def store_captured(env: Env, agent: str, scope: str, text: str, source: str, *, replace: bool) -> list[str]:
    """Store the first credential that one of the agent's captures finds in a file.

    Returns:
        `SCOPE/PROVIDER` of what was stored.

    Raises:
        TerokError: the agent has no capture, the file fits none, or there is a credential already.
    """
    failure: TerokError | None = None
    for source_of in captures(env, agent):
        try:
            credential, meta = capture.read(source_of, text, source)
        except TerokError as error:
            failure = failure or error
            continue
        provider_of(env, source_of.provider)
        with opening.unlocked(env, create=True) as store:
            put(store, scope, source_of.provider, credential, meta, replace=replace)
        env.note(_taken_over(source, credential))
        return [f"{scope}/{source_of.provider}"]
    assert failure is not None
    raise failure


def _taken_over(source: str, credential: Credential) -> str:
    """What becomes of the copy that a file still holds."""
    if credential.refresh_token:
        return (
            "The vault has taken over this login and renews it. Each renewal ends the login before, so the copy in "
            f"{source} stops working. To use the agent outside of containers too, log in there again; else delete it."
        )
    return f"{source} still holds the credential. When the agent runs in containers only, delete it."


def captures(env: Env, agent: str) -> Sequence[Capture]:
    """How the vendor's credential of an agent is read.

    Raises:
        TerokError: there is no such agent, or its roster entry has no `capture`.
    """
    from ...sidecars.roster import files

    catalogue, _ = files.load(env.layout)
    if agent not in catalogue.agents:
        known = ", ".join(catalogue.agents)
        raise TerokError(f"There is no agent {agent!r}.", fix=f"use one of: {known}", code=Exit.NOT_FOUND)
    ways = catalogue.agents[agent].capture
    if not ways:
        raise TerokError(
            f"The roster does not say where {agent} keeps its credential.",
            fix="terok vault add SCOPE PROVIDER",
            code=Exit.REFUSED,
        )
    return ways
