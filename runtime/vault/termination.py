"""`terok vault tls`: where HTTPS at the providers' own hosts is on, for all containers, a scope, a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...sidecars.roster import brokered
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import check_name
from ..kit.config import load
from ..kit.config_edit import change
from ..kit.verb import argument, scope_option, verb

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ..kit.config import VaultConfig
    from ..kit.env import Env


@verb(
    argument("state", metavar="on|off", nargs="?", choices=("on", "off"), help="default: show where it is off"),
    scope_option("for the containers of this scope"),
    argument("--host", metavar="HOST", help="for this host of a provider"),
    examples=(
        "terok vault tls",
        "terok vault tls off --scope work",
        "terok vault tls off --host api.github.com",
        "terok vault tls off --scope work --host api.github.com",
        "terok vault tls on --scope work",
    ),
    files=("~/.config/terok/config.yml",),
)
def run_tls(args: argparse.Namespace, env: Env) -> int:
    """Show or change where HTTPS at the providers' own hosts is on: everywhere, for a scope, for a host, for both.

    It changes `vault.tls` and `vault.tls_except` in the configuration, and counts from the next `prepare`, `run` or
    `start`. Where it is off, agents get the vault's address http://127.0.0.1:9419.
    """
    cfg = env.config.vault
    host = args.host and args.host.lower().rstrip(".")
    where = entry(args.scope, host)
    if args.state is None:
        if where:
            raise TerokError("Say `on` or `off` for a scope or a host.", code=Exit.USAGE)
    elif not where:
        change(env.layout, "vault.tls", args.state == "on")
    else:
        change(env.layout, "vault.tls_except", listed(cfg.tls_except, where, on=args.state == "on"))
    now = load(env.environ).vault
    for line in wider(now, args.scope, host) if args.state == "on" else ():
        env.note(f"It stays off here: `{line}` turns it on.")
    env.out.emit({"tls": now.tls, "except": list(now.tls_except)}, text(now))
    return Exit.OK


def entry(scope: str | None, host: str | None) -> str:
    """How `vault.tls_except` writes it; empty for everything. Raises TerokError (USAGE) for a wrong name."""
    if scope is not None:
        check_name(scope)
    if host is not None:
        try:
            brokered.parse(f"{host}:{brokered.HTTPS_PORT}")
        except ValueError:
            raise TerokError(f"{host[:100]!r} is not a host name.", fix="terok vault routes", code=Exit.USAGE) from None
    return (f"{scope}/" if scope else "") + (host or "")


def listed(before: Sequence[str], where: str, *, on: bool) -> list[str]:
    """`vault.tls_except` with an entry taken out or added; pure."""
    without = [known for known in before if known != where]
    return without if on else [*without, where]


def wider(cfg: VaultConfig, scope: str | None, host: str | None) -> list[str]:
    """The commands that turn on what keeps TLS off although the entry itself is gone; pure."""
    words = ["terok", "vault", "tls", "on"]
    commands = [] if cfg.tls else [paste.command(*words)]
    if scope and host and f"{scope}/" in cfg.tls_except:
        commands.append(paste.command(*words, "--scope", scope))
    if scope and host and host in cfg.tls_except:
        commands.append(paste.command(*words, "--host", host))
    return commands


def text(cfg: VaultConfig) -> str:
    """For people."""
    lines = [f"HTTPS at the providers' own hosts: {'on' if cfg.tls else 'off'}"]
    for known in cfg.tls_except:
        scope, slash, host = known.rpartition("/")
        where = (f"scope {scope}" if slash else "every scope") + (f", host {host}" if host else "")
        lines.append(f"  off for {where}")
    return "\n".join(lines)
