"""`terok vault passphrase ...`: the ways in which the vault is unlocked. Each change wraps 32 bytes again, no more."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ...sidecars.store import keys, tiers
from ...sidecars.store.recovery import RECOVERY_TIER, new_recovery_key, recovery_kek
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import outer_uid
from ..kit import files, opening, secret_input
from ..kit.verb import argument, switch, verb

if TYPE_CHECKING:
    from ...sidecars.store.store import Store
    from ..kit.env import Env

PASSPHRASE_MIN = 10
"""Characters; scrypt makes a guess cost some tenths of a second, which protects no short one."""


TIERS = (keys.KEY_FILE_TIER, *tiers.UNLOCK_ORDER)


@verb()
def list_tiers(args: argparse.Namespace, env: Env) -> int:
    """List the ways to unlock the vault."""
    with opening.closed(env) as store:
        names = sorted(store.tiers())
        env.out.emit({"tiers": names, "strength": tiers.strength(store)}, "\n".join([*names, tiers.strength(store)]))
    return Exit.OK


@verb(switch("--keep-key-file", "keep the key file: the passphrase is a second way"))
def set_passphrase(args: argparse.Namespace, env: Env) -> int:
    """Protect the vault with a passphrase. The key file is removed."""
    with opening.unlocked(env, create=True) as store:
        if tiers.PASSPHRASE in store.tiers():
            raise TerokError(
                "The vault already has a passphrase.", fix="terok vault passphrase change", code=Exit.REFUSED
            )
        passphrase = _new_passphrase()
        data_key = _data_key(store, env)
        tiers.add_passphrase(store, data_key, passphrase)
        if not args.keep_key_file:
            _leave_key_file(store, env, data_key)
        return _done(store, env)


@verb()
def change_passphrase(args: argparse.Namespace, env: Env) -> int:
    """Change the passphrase. Running containers do not notice."""
    old, new = secret_input.lines(["Old passphrase", "New passphrase"])
    _check(new)
    with opening.closed(env) as store:
        data_key = tiers.open_passphrase(store, old)
        tiers.add_passphrase(store, data_key, new)
        return _done(store, env)


@verb(
    argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments"),
    examples=("terok vault passphrase command pass show terok",),
)
def set_command(args: argparse.Namespace, env: Env) -> int:
    """Unlock the vault with the output of a program."""
    argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not argv:
        raise TerokError("Specify a command.", fix="terok vault passphrase command pass show terok", code=Exit.USAGE)
    with opening.unlocked(env, create=True) as store:
        data_key = _data_key(store, env)
        tiers.add_command(store, data_key, argv, env.environ)
        _leave_key_file(store, env, data_key)
        return _done(store, env)


@verb(argument("tier", choices=(keys.KEY_FILE_TIER, tiers.SYSTEMD, tiers.KEYRING), help="the way"))
def add_tier(args: argparse.Namespace, env: Env) -> int:
    """Add a way to unlock the vault that needs no passphrase."""
    with opening.unlocked(env, create=True) as store:
        data_key = _data_key(store, env)
        if args.tier in store.tiers() and (args.tier != keys.KEY_FILE_TIER or os.path.exists(env.layout.vault_key)):
            raise TerokError(f"The vault already has the tier {args.tier}.", code=Exit.REFUSED)
        if args.tier == keys.KEY_FILE_TIER:
            keys.add_key_file(store, env.layout.vault_key, data_key)
        elif args.tier == tiers.SYSTEMD:
            tiers.add_systemd(store, data_key, env.environ, root=outer_uid() == 0)
        else:
            tiers.add_keyring(store, data_key)
        if args.tier != keys.KEY_FILE_TIER:
            _leave_key_file(store, env, data_key)
        return _done(store, env)


@verb(argument("tier", choices=TIERS, help="the way"))
def remove_tier(args: argparse.Namespace, env: Env) -> int:
    """Remove a way to unlock the vault. The last one cannot be removed."""
    with opening.unlocked(env) as store:
        if args.tier not in store.tiers():
            raise TerokError(f"The vault has no {args.tier} tier.", code=Exit.NOT_FOUND)
        if not tiers.others(store, args.tier):
            raise TerokError(
                f"{args.tier} is the last way to unlock the vault besides the recovery key.",
                fix="add another one first: terok vault passphrase set",
                code=Exit.REFUSED,
            )
        if args.tier == keys.KEY_FILE_TIER:
            _leave_key_file(store, env, _data_key(store, env))
        else:
            if args.tier == tiers.KEYRING:
                tiers.forget_keyring(store)
            store.remove_tier(args.tier)
        return _done(store, env)


@verb()
def new_recovery(args: argparse.Namespace, env: Env) -> int:
    """Make a new recovery key. The old one stops working."""
    with opening.unlocked(env) as store:
        key = new_recovery_key()
        keys.wrap(store, RECOVERY_TIER, recovery_kek(key), _data_key(store, env))
    env.out.emit({"recovery_key": key}, key)
    env.note("This is the new recovery key, shown only now. The old one no longer works.")
    return Exit.OK


def _new_passphrase() -> str:
    return _check(secret_input.read("New passphrase of the vault", confirm=True))


def _check(passphrase: str) -> str:
    if len(passphrase) < PASSPHRASE_MIN:
        raise TerokError(f"A passphrase must have at least {PASSPHRASE_MIN} characters.", code=Exit.USAGE)
    return passphrase


def _data_key(store: Store, env: Env) -> bytes:
    return keys.find_data_key(store, keys.key_files(env.layout))


def _leave_key_file(store: Store, env: Env, data_key: bytes) -> None:
    """Replace the key file by an unlocked copy under the runtime directory: containers that run now do not notice."""
    if keys.KEY_FILE_TIER not in store.tiers():
        return
    keys.write_key_file(env.layout.unlocked_key, data_key, data_key=True)
    store.remove_tier(keys.KEY_FILE_TIER)
    files.remove_file(env.layout.vault_key)


def _done(store: Store, env: Env) -> int:
    names = sorted(store.tiers())
    env.out.emit({"tiers": names, "strength": tiers.strength(store)}, f"Ways to unlock the vault: {', '.join(names)}.")
    return Exit.OK
