"""The compiled roster, `routes.json`: how to read and write it, and what a credential changes in it.

`terok vault routes` writes the file from the YAML roster; the vault's process and the launch only read it. Standard
library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...supervisor.ground.errors import TerokError
from .model import (
    Agent,
    AgentFile,
    Auth,
    Capture,
    Catalog,
    Check,
    Forge,
    Needs,
    Provider,
    Refresh,
    Rule,
    Source,
    Upstream,
    Variant,
)

if TYPE_CHECKING:
    from typing import Any

VERSION = 2

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_VALUE = re.compile(r"[A-Za-z0-9._:@+/-]{1,255}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?")


def load(path: str) -> Catalog:
    """The catalogue.

    Raises:
        TerokError: the file is missing, damaged, or of another version.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        raise TerokError(f"Could not read the routes in {path}: {error}", fix="terok vault routes") from error
    try:
        if data["version"] == VERSION:
            return _catalog(data)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise TerokError(f"The routes in {path} are of another version.", fix="terok vault routes")


def dump(catalogue: Catalog) -> bytes:
    """The file's content."""
    return json.dumps({"version": VERSION, **plain(catalogue)}, separators=(",", ":")).encode()


def plain(value: Any) -> Any:
    """A named tuple with all that is in it as JSON data."""
    if hasattr(value, "_asdict"):
        return {name: plain(member) for name, member in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    return value


def _catalog(data: Any) -> Catalog:
    return Catalog(
        {name: provider_from(row) for name, row in data["providers"].items()},
        {name: _agent(row) for name, row in data["agents"].items()},
        tuple(data["token_headers"]),
        tuple(Source(**source) for source in data["sources"]),
    )


def provider_from(data: Any) -> Provider:
    """A provider out of its JSON form."""
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    read["upstreams"] = tuple(Upstream(**{**row, "auth": tuple(row["auth"] or ())}) for row in data["upstreams"])
    read["auth"] = {kind: Auth(**row) for kind, row in data["auth"].items()}
    read["rules"] = tuple(
        Rule(row["name"], row["action"], tuple(row["methods"]), tuple(row["paths"])) for row in data["rules"]
    )
    refresh, check, forge = data.get("refresh"), data.get("check"), data.get("forge")
    read["refresh"] = refresh and Refresh(**{**refresh, "scopes": tuple(refresh["scopes"])})
    read["check"] = check and Check(**check)
    read["forge"] = forge and Forge(**{name: tuple(value) for name, value in forge.items()})
    return Provider(**read)


def _agent(data: Any) -> Agent:
    return Agent(
        data["title"],
        tuple(data["providers"]),
        data["every"],
        _needs(data["needs"]),
        tuple(Variant(row["provider"], row["auth"], _needs(row["needs"])) for row in data["variants"]),
        tuple(Capture(**{**row, "command": tuple(row["command"])}) for row in data["capture"]),
        tuple(data["leaks"]),
    )


def _needs(data: Any) -> Needs:
    return Needs(data["env"], tuple(AgentFile(**file) for file in data["files"]), data["git"])


def effective(provider: Provider, meta: Mapping[str, Any]) -> Provider:
    """A provider's route for one credential: placeholders filled, the credential's own overrides applied.

    Args:
        provider: of the catalogue.
        meta: the credential's meta (`store/credential.py`).

    Returns:
        A provider without placeholders. Upstreams and headers whose placeholder has no value are left out.

    Raises:
        TerokError: a value has characters that a host name or a header must not have.
    """
    values: dict[str, str] = {**provider.variables, **meta.get("variables", {})}
    for name, value in values.items():
        pattern = _HOST if name == "host" else _VALUE
        if not isinstance(value, str) or (value and not pattern.fullmatch(value)):
            raise TerokError(f"The credential's value for {name} is not usable in a route.")
    upstreams = (Upstream(str(meta["upstream"])),) if meta.get("upstream") else provider.upstreams
    return provider._replace(
        upstreams=tuple(filled for upstream in upstreams if (filled := _fill_upstream(upstream, values)) is not None),
        headers=_fill(provider.headers, values),
        merge=_fill(provider.merge, values),
        auth={kind: _auth(auth, meta, values) for kind, auth in provider.auth.items()},
        allow_private=bool(provider.allow_private or meta.get("allow_private")),
        ca_bundle=meta.get("ca_bundle") or provider.ca_bundle,
        forge=provider.forge and _fill_forge(provider.forge, values),
    )


def placeholders(text: str) -> list[str]:
    """The names of the placeholders in a template."""
    return _PLACEHOLDER.findall(text)


def _substitute(template: str, values: Mapping[str, str]) -> str | None:
    """The template with its values; None when one is missing or empty."""
    if not all(values.get(name) for name in placeholders(template)):
        return None
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def _fill(headers: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    filled = {name: _substitute(template, values) for name, template in headers.items()}
    return {name: value for name, value in filled.items() if value is not None}


def _fill_upstream(upstream: Upstream, values: Mapping[str, str]) -> Upstream | None:
    url, prefix = _substitute(upstream.url, values), _substitute(upstream.prefix, values)
    host = _substitute(upstream.host, values) if upstream.host else None
    if url is None or prefix is None or (upstream.host and host is None):
        return None
    return upstream._replace(url=url, prefix=prefix, host=host)


def _fill_forge(forge: Forge, values: Mapping[str, str]) -> Forge:
    return forge._replace(
        hosts=tuple(host for template in forge.hosts if (host := _substitute(template, values)) is not None)
    )


def _auth(auth: Auth, meta: Mapping[str, Any], values: Mapping[str, str]) -> Auth:
    changed = auth._replace(headers=_fill(auth.headers, values), merge=_fill(auth.merge, values))
    if meta.get("user"):
        changed = changed._replace(user=meta["user"])
    if meta.get("auth_header"):
        changed = changed._replace(header=meta["auth_header"], prefix=meta.get("auth_prefix", ""))
    return changed
