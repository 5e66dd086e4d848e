"""`terok ssh`: the keys that sign for containers, and what each may sign."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit.table import table
from ..kit.verb import argument, scope_option, switch, verb

if TYPE_CHECKING:
    from ..kit.env import Env
    from .shelf import Key

TYPES_HELP = "ed25519 (default), ecdsa-256, ecdsa-384, ecdsa-521 or rsa"
KEY = argument("name", metavar="NAME", help="the key", values="ssh-keys")
NEW_KEY = (
    argument("name", metavar="NAME", nargs="?", help="the key's name (default: the scope's)"),
    scope_option("a scope that may use the key (repeatable)", action="append", default=[]),
    argument("--comment", metavar="TEXT", help="what ssh-add -l shows (default: the name)"),
    switch("--default", "list the key first in its scopes"),
)
SCOPES = scope_option("the scope (repeatable)", action="append", required=True)


def _key_name(args: argparse.Namespace) -> str:
    name = args.name or (args.scope[0] if args.scope else "")
    if not name:
        fix = "add NAME, or --scope SCOPE to name the key after the scope"
        raise TerokError("Specify a name for the key.", fix=fix, code=Exit.USAGE)
    return str(name)


def _comment(text: str) -> str:
    if not text.isprintable() or len(text) > 200:
        raise TerokError("A comment is one line of at most 200 printable characters.", code=Exit.USAGE)
    return text


@verb(
    *NEW_KEY,
    argument("--type", default="ed25519", metavar="TYPE", help=TYPES_HELP, values="ssh-types"),
    argument("--bits", type=int, default=3072, metavar="N", help="size of an RSA key (default 3072)"),
    examples=("terok ssh generate --scope work",),
)
def generate(args: argparse.Namespace, env: Env) -> int:
    """Generate a key in the vault."""
    from . import formats
    from .shelf import Shelf

    if args.type not in formats.GENERATED:
        raise TerokError(
            f"terok cannot generate keys of the type {args.type!r}.", fix=f"use {TYPES_HELP}", code=Exit.USAGE
        )
    name = _key_name(args)
    private = formats.generate(args.type, args.bits)
    with Shelf(env, create=True) as shelf:
        key = shelf.add(name, private, comment=_comment(args.comment or name), scopes=args.scope, default=args.default)
    return _stored(env, key)


@verb(
    argument("file", metavar="FILE", help="the private key; - is standard input", values="files"),
    *NEW_KEY,
    argument(
        "--passphrase-file", metavar="FILE", help="its first line is the passphrase (default: ask)", values="files"
    ),
    examples=("terok ssh import ~/.ssh/id_ed25519 --scope work",),
)
def import_key(args: argparse.Namespace, env: Env) -> int:
    """Store a private key file in OpenSSH or PEM format."""
    from . import formats
    from .shelf import Shelf

    if args.file == "-":
        data, comment = sys.stdin.buffer.read(formats.FILE_MAX), ""
    else:
        data, comment = formats.read_file(args.file), formats.comment_of(args.file)
        if not args.name and not args.scope:
            args.name = os.path.basename(args.file)
    name = _key_name(args)
    private = formats.load_private(data, lambda: _passphrase(args.passphrase_file, f"of {args.file}"))
    with Shelf(env, create=True) as shelf:
        key = shelf.add(
            name, private, comment=_comment(args.comment or comment or name), scopes=args.scope, default=args.default
        )
    return _stored(env, key)


def _passphrase(path: str | None, of: str) -> str:
    if path is not None:
        from .formats import read_file

        return read_file(path).split(b"\n")[0].decode(errors="surrogateescape")
    try:
        # not standard input: the key itself may come from there
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise TerokError(
            f"The passphrase {of} is required, and there is no terminal to ask on.",
            fix="use --passphrase-file",
            code=Exit.USAGE,
        ) from None
    os.close(terminal)
    from getpass import getpass

    return getpass(f"Passphrase {of}: ")


def _stored(env: Env, key: Key) -> int:
    env.out.emit(key.document(), key.line)
    if not key.scopes:
        env.note(f"No scope uses {key.name}: terok ssh link {paste.quoted(key.name)} --scope SCOPE")
    return Exit.OK


@verb(scope_option("only the keys of this scope"))
def list_keys(args: argparse.Namespace, env: Env) -> int:
    """List the keys, without their secrets. A scope with * lists the key first."""
    from .shelf import Shelf

    with Shelf(env) as shelf:
        keys = shelf.of_scope(args.scope) if args.scope else shelf.all()
    rows: list[tuple[str, ...]] = [("NAME", "TYPE", "FINGERPRINT", "SCOPES", "HOSTS", "COMMENT")]
    for key in keys:
        scopes = ",".join(f"{scope}*" if scope in key.default else scope for scope in key.scopes)
        hosts = ",".join(sorted({host for document in key.policies.values() for host in document.get("hosts", {})}))
        rows.append((key.name, key.type, key.fingerprint, scopes or "-", hosts or "-", key.comment))
    env.out.emit([key.document() for key in keys], table(rows, env.out) if keys else "")
    if not keys:
        env.note("There are no SSH keys" + (f" in the scope {args.scope}." if args.scope else "."))
    return Exit.OK


@verb(
    argument("name", metavar="NAME", nargs="?", help="the key (default: all)", values="ssh-keys"),
    scope_option("the keys of this scope, its default first"),
    examples=("terok ssh pub --scope work >>~/.ssh/authorized_keys",),
)
def print_public(args: argparse.Namespace, env: Env) -> int:
    """Print public keys, for authorized_keys or a Git host's settings."""
    from .shelf import Shelf

    with Shelf(env) as shelf:
        keys = [shelf.get(args.name)] if args.name else shelf.of_scope(args.scope) if args.scope else shelf.all()
    if not keys:
        raise TerokError("There are no SSH keys.", fix="terok ssh generate NAME --scope SCOPE", code=Exit.NOT_FOUND)
    env.out.emit([{"name": key.name, "public": key.line} for key in keys], "\n".join(key.line for key in keys))
    return Exit.OK


@verb(KEY, SCOPES, switch("--default", "list the key first in that scope"))
def link(args: argparse.Namespace, env: Env) -> int:
    """Let a scope use a key."""
    from ...supervisor.ground.layout import check_name
    from .shelf import Shelf

    with Shelf(env) as shelf:
        key = shelf.get(args.name)
        for scope in args.scope:
            key.link(check_name(scope), default=args.default)
        shelf.save(key)
    return _changed(env, key, f"{key.name} is used by: {', '.join(key.scopes)}.")


@verb(KEY, SCOPES)
def unlink(args: argparse.Namespace, env: Env) -> int:
    """Remove a key, and what it may sign there, from a scope."""
    from .shelf import Shelf

    with Shelf(env) as shelf:
        key = shelf.get(args.name)
        for scope in args.scope:
            key.unlink(scope)
        shelf.save(key)
    return _changed(env, key, f"{key.name} is used by: {', '.join(key.scopes) or 'no scope'}.")


def _changed(env: Env, key: Key, text: str) -> int:
    env.out.emit(key.document(), "")
    if not env.out.json_output:
        env.note(text)
    return Exit.OK


@verb(
    KEY,
    argument("new", metavar="NEW", help="the new name; the same name to change only the comment"),
    argument("--comment", metavar="TEXT", help="what ssh-add -l shows"),
)
def rename(args: argparse.Namespace, env: Env) -> int:
    """Change a key's name, its comment or both."""
    from .shelf import Shelf

    with Shelf(env) as shelf:
        key = shelf.get(args.name) if args.name == args.new else shelf.rename(args.name, args.new)
        if args.comment is not None:
            key.comment = _comment(args.comment)
            shelf.save(key)
    return _changed(env, key, f"{args.name} is now {key.name}, with the comment {key.comment!r}.")


@verb(KEY)
def remove(args: argparse.Namespace, env: Env) -> int:
    """Delete a key. Also remove its public key from the hosts that accept it."""
    from .shelf import Shelf

    with Shelf(env) as shelf:
        key = shelf.get(args.name)
        shelf.remove(args.name)
    return _changed(
        env, key, f"{key.name} ({key.fingerprint}) was deleted. Remove its public key from the hosts that accept it."
    )


@verb(
    KEY,
    argument("--output", metavar="FILE", help="a new file, mode 0600 (default: standard output)", values="files"),
    argument(
        "--passphrase-file", metavar="FILE", help="its first line encrypts the key (default: ask)", values="files"
    ),
    switch("--no-passphrase", "write the key unencrypted"),
)
def export(args: argparse.Namespace, env: Env) -> int:
    """Write a private key to a file, in OpenSSH format."""
    from . import formats
    from .shelf import Shelf

    if args.output is None and sys.stdout.isatty() and not env.out.json_output:
        raise TerokError("A private key is not printed on a terminal.", fix="use --output FILE", code=Exit.USAGE)
    with Shelf(env) as shelf:
        key, private = shelf.get(args.name), shelf.secret(args.name)
    passphrase = "" if args.no_passphrase else _passphrase(args.passphrase_file, f"for {args.output or 'the file'}")
    if not passphrase and not args.no_passphrase:
        raise TerokError(
            "The passphrase is empty.", fix="use --no-passphrase to write the key unencrypted", code=Exit.USAGE
        )
    data = formats.dump_private(private, passphrase)
    document = {"name": key.name, "file": args.output}
    if args.output is None:
        env.out.emit({**document, "private": data.decode()}, data.decode())
    else:
        formats.write_private(args.output, data)
        env.out.emit(document, args.output)
    return Exit.OK
