"""`terok vault`: the parsers of its verbs. Their work is in `runtime/vault`, imported when one runs."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..kit.env import Env

    Parser = argparse.ArgumentParser

DESCRIPTION = "The operator's credentials: how they are kept, who may unlock them, and what containers did with them."
AUTH_KINDS = ("api-key", "oauth", "basic")
TIERS = ("key-file", "passphrase", "command", "systemd-creds", "keyring")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vault` and its verbs."""
    vault = commands.add_parser("vault", help="credentials and their encryption", description=DESCRIPTION)
    verbs = vault.add_subparsers(metavar="VERB", required=True, dest="vault_verb")
    _locks(verbs)
    _items(verbs)
    _transfer(verbs)
    _reports(verbs)
    text = "the ways in which the vault is unlocked"
    _passphrase(verbs.add_parser("passphrase", help=text, description=f"{text.capitalize()}."))


def _verb(verbs: Any, name: str, module: str, function: str, text: str) -> Parser:
    """A verb whose work is `module.function(args, env)`, imported when it runs."""
    parser: Parser = verbs.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
    parser.set_defaults(run=_later(module, function))
    return parser


def _later(module: str, function: str) -> Callable[[argparse.Namespace, Env], int]:
    def run(args: argparse.Namespace, env: Env) -> int:
        return int(getattr(import_module(f"{__package__}.{module}"), function)(args, env))

    return run


def _locks(verbs: Any) -> None:
    _verb(verbs, "status", "locks", "status", "show whether the vault is unlocked, how, and what needs attention")
    unlock = _verb(verbs, "unlock", "locks", "unlock", "unlock the vault until the next reboot or lock")
    unlock.add_argument("--tier", choices=TIERS[1:], help="use this way (default: what works, a person asked last)")
    unlock.add_argument("--recovery", action="store_true", help="use the recovery key")
    _verb(verbs, "lock", "locks", "lock", "remove every unlocked copy of the key; running containers feel it")


def _items(verbs: Any) -> None:
    shown = _verb(verbs, "list", "items", "list_items", "list the credentials, without their secrets")
    shown.add_argument("--scope", help="only this scope")
    for name, text in (
        ("add", "store a credential; the secret is asked for, or read from standard input"),
        ("rotate", "replace a credential's secret; running containers use the new one at once"),
    ):
        verb = _verb(verbs, name, "items", name, text)
        _names(verb)
        verb.add_argument("--user", help="user name of a basic credential")
        verb.add_argument("--expires", metavar="DATE", help="when the secret ends (YYYY-MM-DD), for status and doctor")
        if name == "add":
            _route_options(verb)
    remove = _verb(verbs, "remove", "items", "remove", "delete a credential")
    _names(remove)
    show = _verb(verbs, "show", "items", "show", "show one credential")
    _names(show)
    show.add_argument("--reveal", action="store_true", help="print the secret too")


def _route_options(verb: Parser) -> None:
    verb.add_argument("--auth", choices=AUTH_KINDS, help="kind of the secret (default: the provider's first)")
    verb.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value of the provider's route"
    )
    verb.add_argument("--upstream", metavar="URL", help="send requests there (the provider custom needs it)")
    verb.add_argument("--allow-private", action="store_true", help="the upstream may have a private address")
    verb.add_argument("--ca-bundle", metavar="FILE", help="trust these certificates for the upstream")
    verb.add_argument("--header", metavar="NAME", help="send the secret in this header")
    verb.add_argument("--prefix", default="", metavar="TEXT", help="before the secret in --header")
    verb.add_argument("--replace", action="store_true", help="replace a credential that is there")


def _names(verb: Parser) -> None:
    verb.add_argument("scope", metavar="SCOPE", help="the set of credentials that a container is given")
    verb.add_argument("provider", metavar="PROVIDER", help="for example anthropic, github, custom")


def _transfer(verbs: Any) -> None:
    verb = _verb(verbs, "import", "transfer", "run_import", "take credentials from an export or a vendor's file")
    verb.add_argument(
        "file", metavar="FILE", help="an export of terok, or with --agent a vendor's credential file; - is stdin"
    )
    verb.add_argument("--agent", help="the file is this agent's own credential file")
    verb.add_argument("--scope", help="with --agent: into this scope; else: only this scope of the export")
    verb.add_argument("--replace", action="store_true", help="replace credentials that are there")
    verb = _verb(verbs, "export", "transfer", "run_export", "write a copy of the vault, sealed with a passphrase")
    verb.add_argument("file", metavar="FILE", help="where to; - is standard output")
    verb.add_argument("--scope", help="only this scope")
    verb.add_argument("--reveal", action="store_true", help="write the secrets in the clear, without a passphrase")


def _reports(verbs: Any) -> None:
    verb = _verb(verbs, "routes", "routes", "run_routes", "compile the roster into routes.json")
    verb.add_argument("--check", action="store_true", help="only say whether the roster is right")
    verb = _verb(verbs, "check", "check", "run_check", "make one request upstream with a credential")
    _names(verb)
    verb.add_argument("--path", help="what to ask for (default: the roster's, else /)")
    verb = _verb(verbs, "clean", "clean", "run_clean", "find credentials that leaked into mounted directories")
    verb.add_argument("paths", metavar="DIR", nargs="*", help="where to look (default: what containers mount)")
    verb.add_argument("--import", dest="take", metavar="SCOPE", help="take what is found into this scope")
    verb.add_argument("--yes", action="store_true", help="delete what was found")
    verb = _verb(verbs, "audit", "audit", "run_audit", "show what the vault was asked, and check its log")
    verb.add_argument("--verify", action="store_true", help="find removed and changed lines")
    verb.add_argument("-n", "--lines", type=int, default=20, metavar="N", help="how many lines (default 20; 0: all)")
    verb.add_argument("--container", help="only this container")
    verb.add_argument("--scope", help="only this scope")
    verb = _verb(verbs, "usage", "audit", "run_usage", "show requests, bytes and tokens by scope and container")
    verb.add_argument("--scope", help="only this scope")
    verb = _verb(
        verbs, "limit", "audit", "run_limit", "limit what the containers of a scope may use; none takes it away"
    )
    verb.add_argument("scope", metavar="SCOPE")
    verb.add_argument("--requests", type=int, metavar="N", help="requests in a period")
    verb.add_argument("--tokens", type=int, metavar="N", help="tokens in a period, as far as the provider reports them")
    verb.add_argument("--period", choices=("hour", "day"), default="day", help="default day; UTC")


def _passphrase(parser: Parser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="passphrase_verb")
    _verb(verbs, "list", "tiers", "list_tiers", "list the ways in which the vault can be unlocked")
    verb = _verb(verbs, "set", "tiers", "set_passphrase", "protect the vault with a passphrase; removes the key file")
    verb.add_argument("--keep-key-file", action="store_true", help="leave the key file: the passphrase is a second way")
    _verb(verbs, "change", "tiers", "change_passphrase", "change the passphrase; running containers do not notice")
    verb = _verb(verbs, "command", "tiers", "set_command", "unlock with what a program of yours prints")
    verb.add_argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")
    verb = _verb(verbs, "add", "tiers", "add_tier", "add a way that needs no passphrase")
    verb.add_argument("tier", choices=("key-file", "systemd-creds", "keyring"))
    verb = _verb(verbs, "remove", "tiers", "remove_tier", "remove a way; the last one stays")
    verb.add_argument("tier", choices=TIERS)
    _verb(verbs, "recovery", "tiers", "new_recovery", "make a new recovery key; the old one dies")
