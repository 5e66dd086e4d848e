"""`terok ssh`: the keys that sign for containers, and what each may sign."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ..supervisor.errors import Exit, TerokError

if TYPE_CHECKING:
    from .env import Env
    from .ssh_shelf import Key


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ssh` and its verbs."""
    ssh = commands.add_parser("ssh", help="SSH keys that sign for containers", description=__doc__)
    verbs = ssh.add_subparsers(metavar="VERB", required=True, dest="ssh_verb")

    verb = verbs.add_parser("generate", help="make a new key in the vault")
    _name_and_scopes(verb)
    verb.add_argument("--type", default="ed25519", metavar="TYPE", help="ed25519 (default), ecdsa-256|384|521, rsa")
    verb.add_argument("--bits", type=int, default=3072, help="of an RSA key (default 3072)")
    verb.set_defaults(run=generate)

    verb = verbs.add_parser("import", help="store a private key file (OpenSSH or PEM)")
    verb.add_argument("file", metavar="FILE", help="the private key; - reads standard input")
    _name_and_scopes(verb)
    verb.add_argument(
        "--passphrase-file", metavar="FILE", help="first line: the file's passphrase (default: asked for)"
    )
    verb.set_defaults(run=import_key)

    verb = verbs.add_parser("list", help="show the keys, without their secrets")
    verb.add_argument("--scope", help="only the keys of this scope")
    verb.set_defaults(run=list_keys)

    verb = verbs.add_parser("pub", help="print a public key, for authorized_keys or a Git host's settings")
    verb.add_argument("name", metavar="NAME", nargs="?", help="the key (default: the scope's keys)")
    verb.add_argument("--scope", help="the keys of this scope, its default first")
    verb.set_defaults(run=print_public)


def _name_and_scopes(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", metavar="NAME", nargs="?", help="the key's name (default: the scope's)")
    verb.add_argument("--scope", action="append", default=[], help="a scope that may use the key (repeatable)")
    verb.add_argument("--comment", help="what ssh-add -l shows (default: the name)")
    verb.add_argument("--default", action="store_true", help="list the key first in its scopes")


def _key_name(args: argparse.Namespace) -> str:
    name = args.name or (args.scope[0] if args.scope else "")
    if not name:
        raise TerokError(
            "The key needs a name.", fix="give NAME, or --scope SCOPE to name it like that", code=Exit.USAGE
        )
    return str(name)


def generate(args: argparse.Namespace, env: Env) -> int:
    """terok ssh generate"""
    from . import ssh_formats
    from .ssh_shelf import Shelf

    if args.type not in ssh_formats.GENERATED:
        known = ", ".join(ssh_formats.GENERATED)
        raise TerokError(
            f"Keys of the type {args.type!r} are not generated.", fix=f"use one of {known}", code=Exit.USAGE
        )
    name = _key_name(args)
    private = ssh_formats.generate(args.type, args.bits)
    with Shelf(env, create=True) as shelf:
        key = shelf.add(name, private, comment=args.comment or name, scopes=args.scope, default=args.default)
    return _stored(env, key)


def import_key(args: argparse.Namespace, env: Env) -> int:
    """terok ssh import"""
    from . import ssh_formats
    from .ssh_shelf import Shelf

    if args.file == "-":
        data, comment = sys.stdin.buffer.read(ssh_formats.FILE_MAX), ""
    else:
        data, comment = ssh_formats.read_file(args.file), ssh_formats.comment_of(args.file)
    if not args.name and not args.scope and args.file != "-":
        args.name = os.path.basename(args.file)
    name = _key_name(args)
    private, _ = ssh_formats.load_private(data, lambda: _passphrase(args.passphrase_file, args.file))
    with Shelf(env, create=True) as shelf:
        key = shelf.add(name, private, comment=args.comment or comment or name, scopes=args.scope, default=args.default)
    return _stored(env, key)


def _passphrase(path: str | None, what: str) -> str:
    if path is not None:
        from .ssh_formats import read_file

        return read_file(path).split(b"\n")[0].decode()
    if not sys.stdin.isatty():
        raise TerokError(
            f"{what} is encrypted, and there is no terminal to ask for its passphrase.",
            fix="use --passphrase-file",
            code=Exit.USAGE,
        )
    from getpass import getpass

    return getpass(f"Passphrase of {what}: ")


def _stored(env: Env, key: Key) -> int:
    env.out.emit(key.document(), key.line)
    if not key.scopes:
        env.note(f"No scope uses {key.name} yet: terok ssh link {key.name} --scope SCOPE")
    return Exit.OK


def list_keys(args: argparse.Namespace, env: Env) -> int:
    """terok ssh list"""
    from .ssh_shelf import Shelf

    with Shelf(env) as shelf:
        keys = shelf.of_scope(args.scope) if args.scope else shelf.all()
    rows = [(key.name, key.type, key.fingerprint, ",".join(key.scopes) or "-", key.comment) for key in keys]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    env.out.emit([key.document() for key in keys], "\n".join(lines))
    if not keys:
        env.note("There are no SSH keys" + (f" in the scope {args.scope}." if args.scope else "."))
    return Exit.OK


def print_public(args: argparse.Namespace, env: Env) -> int:
    """terok ssh pub"""
    from .ssh_shelf import Shelf

    with Shelf(env) as shelf:
        keys = [shelf.get(args.name)] if args.name else shelf.of_scope(args.scope) if args.scope else shelf.all()
    if not keys:
        raise TerokError("There are no SSH keys.", fix="terok ssh generate NAME --scope SCOPE", code=Exit.NOT_FOUND)
    env.out.emit([{"name": key.name, "public": key.line} for key in keys], "\n".join(key.line for key in keys))
    return Exit.OK
