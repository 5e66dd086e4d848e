"""`terok vault proxy`: the credential of the HTTP proxy that leads out of the operator's network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...sidecars.store import credential
from ...sidecars.store.proxy import KIND, SCOPE
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import egress, opening, secret_input
from ..kit.verb import argument, verb

if TYPE_CHECKING:
    import argparse

    from ..kit.env import Env


@verb()
def show(args: argparse.Namespace, env: Env) -> int:
    """Show which proxy is configured, and which proxies have a credential."""
    way = egress.egress(env.config.network)
    users: dict[str, str] = {}
    if opening.exists(env):
        with opening.closed(env) as store:
            users = {entry.name: str(entry.meta.get("user", "")) for entry in store.describe(KIND, SCOPE)}
    lines = [f"{way.url or 'No proxy is configured'}: {_has(way.authority, users)}" if way.host else _none()]
    lines += [f"{name}: not in use, user {user}" for name, user in users.items() if name != way.authority]
    data = {"proxy": way.url or None, "no_proxy": list(way.direct), "credentials": users}
    env.out.emit(data, "\n".join(lines))
    return Exit.OK


def _has(proxy: str, users: dict[str, str]) -> str:
    return f"credential of {users[proxy]}" if proxy in users else "no credential"


def _none() -> str:
    return "No proxy is configured: terok config set network.upstream_proxy http://HOST:PORT"


@verb(
    argument("--user", metavar="NAME", help="user name at the proxy", required=True),
    examples=("terok vault proxy set --user jane <password.txt",),
)
def change(args: argparse.Namespace, env: Env) -> int:
    """Store the user and password for the configured proxy. The password is asked for, or read from standard input."""
    proxy = _configured(env)
    user = str(args.user)
    if not user or not user.isascii() or not user.isprintable() or ":" in user:
        raise TerokError("A user name must be printable ASCII without a colon.", code=Exit.USAGE)
    password = credential.check_secret(secret_input.read(f"Password of {user} at {proxy}"))
    with opening.unlocked(env, create=True) as store:
        store.put(KIND, SCOPE, proxy, password.encode(), {"user": user})
    env.out.emit({"proxy": proxy, "user": user, "done": "stored"}, f"Stored: the credential of {user} for {proxy}")
    return Exit.OK


@verb(argument("proxy", nargs="?", metavar="HOST:PORT", help="which proxy's (default: the configured one's)"))
def remove(args: argparse.Namespace, env: Env) -> int:
    """Delete a proxy's credential."""
    proxy = args.proxy or _configured(env)
    with opening.closed(env) as store:
        if all(entry.name != proxy for entry in store.describe(KIND, SCOPE)):
            raise TerokError(f"There is no credential for the proxy {proxy}.", code=Exit.NOT_FOUND)
        store.remove(KIND, SCOPE, proxy)
    env.out.emit({"proxy": proxy, "done": "removed"}, f"Removed: the credential for {proxy}")
    return Exit.OK


def _configured(env: Env) -> str:
    way = egress.egress(env.config.network)
    if not way.host:
        fix = "terok config set network.upstream_proxy http://HOST:PORT"
        raise TerokError("No proxy is configured.", fix=fix, code=Exit.USAGE)
    return way.authority
