"""What an agent needs in a container so that it talks to the vault: environment, files, git configuration. Pure.

Placeholders in every value are `${NAME}`; a value whose placeholder is unknown for this container is left out whole:

- `token`: the phantom token of the chosen provider; `token_PROVIDER` (`-` written `_`): that of another one;
- `token_tail`: its last 20 characters;
- `basic`: base64 of `USER:TOKEN` for HTTP Basic, with the user of the provider's route;
- `vault` (http://127.0.0.1:9419), `vault_host` (127.0.0.1:9419), `vault_scheme` (http), `vault_socket`
  (/run/terok/vault.sock): unknown where the vault answers at the provider's own hosts, so that the client keeps its
  own addresses. In a file only the lines that name them are left out;
- `base`, `base_host`: the vault's address, or there the provider's own;
- `helper`: there alone, a credential helper for git that gives the user and the token (gitcredentials(7));
- `expires_ms`, `expires_iso`: a time years ahead, for clients that look at a token's expiry themselves;
- `credential_NAME`: a value that the route of the chosen provider has under `variables` (`credential_host`, ...).
"""

from __future__ import annotations

import base64
import re
import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...supervisor.ground.layout import IN_CONTAINER, VAULT_PORT
from ..store import tokens as shapes
from ..store.credential import KIND
from . import catalog
from .model import AgentFile

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from ..store.records import Entry
    from .model import Agent, Catalog, Claims, Needs, Provider

ADDRESSES = ("vault", "vault_host", "vault_scheme", "vault_socket")
"""Placeholders that lead to the vault by an address."""
NAMES = ("token", "token_tail", "basic", "base", "base_host", "helper", "expires_ms", "expires_iso", *ADDRESSES)
"""Placeholders without a parameter."""

VAULT_URL = f"http://127.0.0.1:{VAULT_PORT}"

_PLACEHOLDER = re.compile(r"\$\{([a-z0-9_]+)\}")
_VARIABLE = re.compile(r"\{([a-z_]+)\}")
_ADDRESSED = re.compile(rf"(?m)^.*\$\{{(?:{'|'.join(ADDRESSES)})\}}.*\n?")
_COMMA = re.compile(r",(\s*[}\]])")
_YEARS = 10 * 365 * 86400


class Wanted(NamedTuple):
    """What one agent needs.

    Attributes:
        agent: its name.
        provider: the provider that it was pointed at.
        env: environment variables.
        files: files below the home directory.
        git: configuration pairs; `git_env` makes environment variables of the pairs of all agents together.
    """

    agent: str
    provider: str
    env: dict[str, str]
    files: list[AgentFile]
    git: list[tuple[str, str]]


def phantom(provider: Provider, meta: Mapping[str, Any]) -> str:
    """A new phantom token in the shape that the provider's clients check for.

    Args:
        provider: of the catalogue.
        meta: the credential's meta, whose kind of login decides the shape.
    """
    auth = provider.auth.get(kind_of(meta)) or next(iter(provider.auth.values()))
    if auth.claims is None:
        return shapes.mint(auth.token)
    now = int(time.time())
    values = {**provider.variables, **meta.get("variables", {})}
    claims = {name: _claim(claim, values) for name, claim in auth.claims.items()}
    return shapes.mint(auth.token, {**claims, "iat": now, "exp": now + _YEARS})


def _claim(claim: Claims, values: Mapping[str, str]) -> Claims:
    """A claim with `{NAME}` replaced by the credential's value; where there is none, `terok` stands for it."""
    if isinstance(claim, str):
        return _VARIABLE.sub(lambda match: values.get(match[1]) or "terok", claim)
    if isinstance(claim, Mapping):
        return {name: _claim(item, values) for name, item in claim.items()}
    if isinstance(claim, list | tuple):
        return [_claim(item, values) for item in claim]
    return claim


def credentials(entries: Iterable[Entry], scope: str) -> dict[str, dict[str, object]]:
    """Provider name -> meta of every credential of a scope, out of `Store.describe()`."""
    return {entry.name: entry.meta for entry in entries if entry.kind == KIND and entry.scope == scope}


def available(catalogue: Catalog, held: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The agents that a scope's credentials can serve, in the catalogue's order."""
    return [name for name, agent in catalogue.agents.items() if choose(agent, held) is not None]


def choose(agent: Agent, held: Mapping[str, Mapping[str, object]]) -> str | None:
    """The first provider of the agent for which the scope holds a credential; None when there is none."""
    return next((name for name in agent.providers if name in held), None)


def wanted(
    catalogue: Catalog,
    name: str,
    *,
    tokens: Mapping[str, str],
    held: Mapping[str, Mapping[str, object]],
    tls: Container[str] = (),
    vault: str = VAULT_URL,
    now: float | None = None,
) -> Wanted | None:
    """What the agent `name` needs in a container.

    Args:
        catalogue: the compiled roster.
        tokens: provider -> phantom token of this container.
        held: provider -> meta of the scope's credentials (`credentials`).
        tls: the providers at whose own hosts the vault answers this container.
        vault: where the container reaches the vault.
        now: Unix seconds; default: the clock's.

    Returns:
        None when the scope has no credential for any of the agent's providers, or no token was minted for it.
    """
    agent = catalogue.agents[name]
    usable = [name for name in agent.providers if name in held and name in tokens]
    if not usable:
        return None
    needs = Wanted(name, usable[0], {}, [], [])
    for provider in usable if agent.every else usable[:1]:
        known = catalogue.provider(provider)
        assert known is not None  # an agent's providers are the roster's
        values = _values(
            provider,
            known,
            held[provider],
            tokens,
            vault,
            time.time() if now is None else now,
            tls=provider in tls,
        )
        _add(needs, agent.needs, values)
        for variant in agent.variants:
            if variant.provider in (None, provider) and variant.auth in (None, kind_of(held[provider])):
                _add(needs, variant.needs, values)
                break
    return needs


def kind_of(meta: Mapping[str, object]) -> str:
    """The kind of a credential by its meta."""
    return str(meta.get("auth", "api-key"))


def _add(needs: Wanted, part: Needs, values: Mapping[str, str]) -> None:
    """Add what an agent or one of its variants says, as far as it can be filled."""
    needs.env.update(_fill_all(part.env, values))
    needs.git.extend(_fill_all(part.git, values).items())
    for file in part.files:
        content = fill(file.content if "vault" in values else without_addresses(file), values)
        if content is not None and all(file.path != other.path for other in needs.files):
            needs.files.append(AgentFile(file.path, content, file.mode))


def general_env(held: Iterable[str], tokens: Mapping[str, str], vault: str = VAULT_URL) -> dict[str, str]:
    """`TEROK_TOKEN_<NAME>` and `TEROK_URL_<NAME>` for every credential: for clients that the roster does not know."""
    variables = {}
    for name in held:
        word = _word(name).upper()
        variables[f"TEROK_TOKEN_{word}"], variables[f"TEROK_URL_{word}"] = tokens[name], vault
    return variables


def git_env(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Environment variables that give git these configuration pairs (git-config(1), GIT_CONFIG_COUNT)."""
    if not pairs:
        return {}
    variables = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for index, (key, value) in enumerate(pairs):
        variables[f"GIT_CONFIG_KEY_{index}"], variables[f"GIT_CONFIG_VALUE_{index}"] = key, value
    return variables


def fill(template: str, values: Mapping[str, str]) -> str | None:
    """The template with its placeholders replaced; None when a value is missing."""
    if not all(name in values for name in _PLACEHOLDER.findall(template)):
        return None
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def without_addresses(file: AgentFile) -> str:
    """The file's template without the lines that name the vault's address."""
    text = _ADDRESSED.sub("", file.content)
    return _COMMA.sub(r"\1", text) if file.path.endswith(".json") else text


def git_helper(user: str, token: str) -> str:
    """A credential helper of git that knows one user and password (gitcredentials(7), Custom Helpers)."""
    words = shlex.join(("printf", "%s\\n", f"username={user}", f"password={token}"))
    return f'!f() {{ test "$1" != get || {words}; }}; f'


def unknown_placeholders(template: str, providers: Iterable[str]) -> list[str]:
    """Placeholders that no container could ever fill."""
    known = {*NAMES, *(f"token_{_word(name)}" for name in providers)}
    return [name for name in _PLACEHOLDER.findall(template) if name not in known and not name.startswith("credential_")]


def _fill_all(templates: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Keys and values filled; pairs with a missing value left out."""
    filled = {}
    for key, template in templates.items():
        name, value = fill(key, values), fill(template, values)
        if name is not None and value is not None:
            filled[name] = value
    return filled


def _values(
    provider: str,
    route: Provider,
    meta: Mapping[str, Any],
    tokens: Mapping[str, str],
    vault: str,
    now: float,
    *,
    tls: bool,
) -> dict[str, str]:
    basic = route.auth.get("basic")
    user = meta.get("user") or (basic.user if basic else None) or "token"
    variables = {**route.variables, **meta.get("variables", {})}
    base = own_base(route, meta) if tls else vault
    if tls:
        ways = {"helper": git_helper(user, tokens[provider])}
    else:
        scheme, _, host = vault.partition("://")
        socket = f"{IN_CONTAINER}/vault.sock"
        ways = {"vault": vault, "vault_host": host, "vault_scheme": scheme, "vault_socket": socket}
    return {
        **ways,
        "base": base,
        "base_host": base.partition("://")[2],
        **{f"token_{_word(name)}": token for name, token in tokens.items()},
        **{f"credential_{name}": value for name, value in variables.items() if value},
        "token": tokens[provider],
        "token_tail": tokens[provider][-20:],
        "basic": base64.b64encode(f"{user}:{tokens[provider]}".encode()).decode(),
        "expires_ms": str(int(now + _YEARS) * 1000),
        "expires_iso": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + _YEARS)),
    }


def own_base(provider: Provider, meta: Mapping[str, Any]) -> str:
    """The address of a provider's API as its clients write it: of the upstream that serves the rest, without a slash.

    Args:
        provider: of the catalogue.
        meta: the credential's, whose variables and upstream count.
    """
    kind = kind_of(meta)
    upstreams = [
        upstream
        for upstream in catalog.effective(provider, meta).upstreams
        if not upstream.auth or kind in upstream.auth
    ]
    general = [upstream for upstream in upstreams if upstream.prefix == "/" and upstream.host is None] or upstreams
    return general[0].url.rstrip("/")


def _word(name: str) -> str:
    return name.replace("-", "_")
