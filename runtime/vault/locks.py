"""`terok vault status`, `unlock` and `lock`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from ...sidecars.login.refresh import login_command
from ...sidecars.roster import files
from ...sidecars.store import keys, tiers
from ...sidecars.store.credential import KIND
from ...sidecars.store.records import LockedError
from ...sidecars.store.recovery import RECOVERY_TIER, recovery_kek
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import outer_uid
from ..kit import opening, secret_input
from ..kit.files import remove_file
from ..kit.verb import argument, switch, verb

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ...sidecars.store.records import Entry
    from ...sidecars.store.store import Store
    from ..kit.env import Env

EXPIRY_WARNING = 7 * 86400


@verb()
def status(args: argparse.Namespace, env: Env) -> int:
    """Show whether the vault is unlocked, by which tiers it can be, and what needs attention."""
    state = report(env)
    lines = [f"vault      {env.layout.vault_db}"]
    if not state["exists"]:
        lines.append("state      none yet; `terok vault add SCOPE PROVIDER` makes it")
    else:
        word = env.out.paint("unlocked", "good") if state["unlocked"] else env.out.paint("locked", "warning")
        lines += [
            f"state      {word}" + ("" if state["unlocked"] else f" (terok vault unlock): {state['reason']}"),
            f"tiers      {', '.join(state['tiers'])}",
            f"strength   {state['strength']}",
            f"holds      {state['credentials']} credentials in {len(state['scopes'])} scopes, {state['keys']} SSH keys",
        ]
    lines.append(f"routes     {state['routes']}")
    lines += [f"allows     {line}" for line in state["allows"]]
    lines += [f"attention  {line}" for line in state["attention"]]
    env.out.emit(state, "\n".join(lines))
    return Exit.OK


def report(env: Env) -> dict[str, Any]:
    """What `status` prints, as plain data; `doctor` uses it too."""
    state: dict[str, Any] = {
        "path": env.layout.vault_db, "exists": opening.exists(env), "unlocked": False, "reason": "", "tiers": [],
        "strength": "", "credentials": 0, "keys": 0, "scopes": [], "routes": "", "allows": [],
        "attention": [],
    }  # fmt: skip
    try:
        catalogue, warning = files.load(env.layout)
        state["routes"] = f"{len(catalogue.providers)} providers, {len(catalogue.agents)} agents"
        state["attention"] += [warning] if warning else []
    except TerokError as error:
        state["routes"] = f"wrong: {error}"
    if not state["exists"]:
        return state
    with opening.closed(env) as store:
        state["tiers"], state["strength"] = sorted(store.tiers()), tiers.strength(store)
        entries = store.describe()
        credentials = [entry for entry in entries if entry.kind == KIND]
        state["credentials"], state["keys"] = len(credentials), len([e for e in entries if e.kind == "ssh-key"])
        state["scopes"] = sorted({entry.scope for entry in credentials})
        state["allows"] = [f"{e.scope}/{e.name}: {text}" for e in credentials for text in allowances(e.meta)]
        state["attention"] += [
            f"{line} (fix: {login_command(entry)})" for entry in credentials if (line := attention(entry, time.time()))
        ]
        try:
            keys.ensure_unlocked(store, keys.key_files(env.layout))
            state["unlocked"] = True
        except LockedError as error:
            state["reason"] = error.what
    return state


def allowances(meta: Mapping[str, object]) -> list[str]:
    """What a credential allows beyond the use of its phantom tokens, for people."""
    return [
        *(["ambient: it goes with requests over TLS that carry no credential"] if meta.get("ambient") else []),
        *(["requests may carry a foreign credential"] if meta.get("foreign") == "allow" else []),
    ]


def attention(entry: Entry, now: float) -> str:
    """What a person should know about a credential; empty when all is well."""
    name = f"{entry.scope}/{entry.name}"
    state = entry.meta.get("refresh") or {}
    if state:
        return f"{name}: {state.get('reason', 'the last refresh failed')}"
    expires = entry.meta.get("expires_at")
    if entry.meta.get("auth") == "oauth" or not isinstance(expires, int | float):
        return ""
    if now >= expires:
        return f"{name}: it ended on {day(expires)}"
    return f"{name}: it ends on {day(expires)}" if now >= expires - EXPIRY_WARNING else ""


def day(seconds: float) -> str:
    """A date, for people."""
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


@verb(
    argument("--tier", choices=tiers.UNLOCK_ORDER, help="use this way (default: what works, the passphrase last)"),
    switch("--recovery", "use the recovery key"),
)
def unlock(args: argparse.Namespace, env: Env) -> int:
    """Unlock the vault until the next reboot or `terok vault lock`."""
    with opening.closed(env) as store:
        if store.setting("check") is None:
            raise TerokError("There is no vault yet.", fix="terok vault add SCOPE PROVIDER", code=Exit.NOT_FOUND)
        tier, data_key = _open(args, env, store)
        store.unlock(data_key)
        if tier != keys.KEY_FILE_TIER:
            keys.write_key_file(env.layout.unlocked_key, data_key, data_key=True)
        store.release()
    text = "The vault is unlocked by its key file." if tier == keys.KEY_FILE_TIER else f"Unlocked ({tier})."
    env.out.emit({"unlocked": True, "tier": tier}, text)
    return Exit.OK


def _open(args: argparse.Namespace, env: Env, store: Store) -> tuple[str, bytes]:
    """The tier that opened the vault, and the data key."""
    if args.recovery:
        key = recovery_kek(secret_input.read("Recovery key"))
        return RECOVERY_TIER, keys.unwrap(store, RECOVERY_TIER, key)
    if args.tier:
        return args.tier, _open_tier(args.tier, env, store)
    have = store.tiers().keys()
    if keys.KEY_FILE_TIER in have:
        try:
            return keys.KEY_FILE_TIER, keys.find_data_key(store, [env.layout.vault_key], unlocking=True)
        except LockedError as error:
            env.note(f"key-file: {error.what}")
    for tier in tiers.UNLOCK_ORDER:
        if tier not in have:
            continue
        try:
            return tier, _open_tier(tier, env, store)
        except LockedError as error:
            if tier == tiers.PASSPHRASE:
                raise
            env.note(f"{tier}: {error.what}")
    raise LockedError("The vault could not be unlocked.", fix="terok vault unlock --recovery")


def _open_tier(tier: str, env: Env, store: Store) -> bytes:
    if tier == tiers.PASSPHRASE:
        if tier not in store.tiers():
            raise LockedError("The vault has no passphrase.", fix="terok vault status")
        return tiers.open_passphrase(store, secret_input.read("Passphrase of the vault"))
    if tier == tiers.COMMAND:
        return tiers.open_command(store, env.environ)
    if tier == tiers.SYSTEMD:
        return tiers.open_systemd(store, env.environ, root=outer_uid() == 0)
    return tiers.open_keyring(store)


@verb()
def lock(args: argparse.Namespace, env: Env) -> int:
    """Lock the vault: remove every unlocked copy of its key, and use no key file until it is unlocked.

    Containers keep running. Their requests are answered with 503 until the vault is unlocked.
    """
    with opening.closed(env) as store:
        store.hold()
        key_file = keys.KEY_FILE_TIER in store.tiers() and os.path.exists(env.layout.vault_key)
    removed = remove_file(env.layout.unlocked_key)
    env.out.emit({"locked": True, "removed": removed, "key_file": key_file}, "Locked.")
    if key_file:
        env.note(
            f"The key file {env.layout.vault_key} stays: `terok vault unlock` asks for nothing, and a program that"
            " reads your files can read the secrets. A passphrase instead: terok vault passphrase set"
        )
    return Exit.OK
