"""The compiled roster, `routes.json`: how to read it, and what a credential changes in it. Standard library only.

`terok vault routes` writes the file from the YAML roster (`roster.py`); the vault's process and the launch only
read it.

    {"version": 1,
     "sources": [[path, mtime in ns, size], ...],          files it was made from
     "token_headers": ["authorization", "x-api-key", ...],  where clients put tokens: taken out of every request
     "providers": {NAME: PROVIDER}, "agents": {NAME: AGENT}}

A PROVIDER has:

- `title`, `site` (where a person gets a key), `variables` (placeholder -> default value);
- `upstreams`: list of `{url, prefix, host, strip, auth, auth_as}`, in the order in which they are tried; the first that
  matches serves the request. `prefix` is compared with the canonical path; `host`, when set, with the client's Host
  without its port; `auth`, when set, lists the credential kinds that it takes. `strip`: the prefix is cut off the path
  before the url's own path is put in front. `auth_as`: use this kind's way of sending the secret instead of the
  credential's own;
- `auth`: kind -> `{scheme, header, prefix, user, headers, merge, token, claims}`. `scheme` is `header` (header:
  prefix + secret) or `basic` (RFC 7617 with `user`). `token` and `claims` are the template of phantom tokens
  (`store/tokens.py`);
- `headers` (set, replacing the client's) and `merge` (added to the client's comma-separated list) for every kind;
  the same two inside a kind are for that kind;
- `token_query`: query parameters that may carry the token and are taken out;
- `foreign_query`, `foreign_headers` (lower case): places besides the token's own that carry another credential or
  select another account; a request with one of them is refused. A header that the route sets itself is not foreign;
- `storage`: hosts to which the upstream redirects downloads: a GET or HEAD for one of them passes without a
  credential. Each is the provider's alone, never one of many tenants: what passes there does not ask the shield;
- `suffixes`: what the upstream accepts behind a path as the same path; `rules` hold them already, in deny rules;
- `rules`: list of `{name, action: allow|deny, methods, paths}`; the first that matches the method and the canonical
  path without query decides, none means refused with the rule name `default`. Method `*` is any; in paths `*` stands
  for anything but `/`, `**` for anything;
- `rate` `{per_minute, concurrent}` (null: no limit), `body_max` (bytes or null), `allow_private`, `ca_bundle` (path),
  `websocket`, `usage` (`anthropic`, `openai`, `mistral` or null);
- `refresh`: null or `{url, client_id, scopes, format: json|form, margin}` (margin in seconds before the expiry);
- `check`: what `terok vault check` asks for: null or `{path, headers}`;
- `secret_fields`: members of the credential's JSON that are secret.

AGENT is described in `agents.py`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ...supervisor.ground.errors import TerokError

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_VALUE = re.compile(r"[A-Za-z0-9._:@+/-]{1,255}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?")


def load(path: str) -> dict[str, Any]:
    """The catalogue.

    Raises:
        TerokError: the file is missing, damaged, or of another version.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data: Any = json.load(file)
    except (OSError, ValueError) as error:
        raise TerokError(f"Could not read the routes in {path}: {error}", fix="terok vault routes") from error
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise TerokError(f"The routes in {path} are of another version.", fix="terok vault routes")
    return data


def effective(provider: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """A provider's route for one credential: placeholders filled, the credential's own overrides applied.

    Args:
        provider: a PROVIDER of the catalogue; not changed.
        meta: the credential's meta (`store/credential.py`).

    Returns:
        A PROVIDER without placeholders. Upstreams and headers whose placeholder has no value are left out.

    Raises:
        TerokError: a value has characters that a host name or a header must not have.
    """
    values = {**provider["variables"], **meta.get("variables", {})}
    for name, value in values.items():
        pattern = _HOST if name == "host" else _VALUE
        if not isinstance(value, str) or (value and not pattern.fullmatch(value)):
            raise TerokError(f"The credential's value for {name} is not usable in a route.")
    route = dict(provider)
    upstreams = provider["upstreams"]
    if meta.get("upstream"):
        upstreams = [upstream(str(meta["upstream"]))]
    route["upstreams"] = [filled for each in upstreams if (filled := _fill_upstream(each, values)) is not None]
    route["headers"], route["merge"] = _fill(provider["headers"], values), _fill(provider["merge"], values)
    route["auth"] = {kind: _auth(auth, meta, values) for kind, auth in provider["auth"].items()}
    route["allow_private"] = bool(provider["allow_private"] or meta.get("allow_private"))
    route["ca_bundle"] = meta.get("ca_bundle") or provider["ca_bundle"]
    return route


def upstream(url: str, prefix: str = "/") -> dict[str, Any]:
    """An upstream with nothing special about it."""
    return {"url": url, "prefix": prefix, "host": None, "strip": False, "auth": None, "auth_as": None}


def placeholders(text: str) -> list[str]:
    """The names of the placeholders in a template."""
    return _PLACEHOLDER.findall(text)


def _substitute(template: str, values: Mapping[str, str]) -> str | None:
    """The template with its values; None when one is missing or empty."""
    if not all(values.get(name) for name in placeholders(template)):
        return None
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def _fill(headers: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    filled = {name: _substitute(template, values) for name, template in headers.items()}
    return {name: value for name, value in filled.items() if value is not None}


def _fill_upstream(each: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any] | None:
    url, prefix = _substitute(each["url"], values), _substitute(each["prefix"], values)
    host = _substitute(each["host"], values) if each["host"] else each["host"]
    if url is None or prefix is None or (each["host"] and host is None):
        return None
    return {**each, "url": url, "prefix": prefix, "host": host}


def _auth(auth: Mapping[str, Any], meta: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    changed = {**auth, "headers": _fill(auth["headers"], values), "merge": _fill(auth["merge"], values)}
    if meta.get("user"):
        changed["user"] = meta["user"]
    if meta.get("auth_header"):
        changed["header"], changed["prefix"] = meta["auth_header"], meta.get("auth_prefix", "")
    return changed
