"""A route as the relay uses it: what `catalog.effective` gives for one credential, compiled once.

Rules of this file: bytes that a request is compared with stand ready as bytes; nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ...supervisor.ground.errors import TerokError
from ..kit.dial import Endpoint
from .inject import Auth


class Target:
    """One upstream of a route: for which paths, where it is, how it is given the credential."""

    __slots__ = ("prefix", "host", "strip", "endpoint", "base", "auth", "origin")

    def __init__(self, upstream: Mapping[str, Any], endpoint: Endpoint, base: bytes, auth: Auth) -> None:
        self.prefix: bytes = (upstream["prefix"] or "/").encode("ascii")
        self.host: bytes | None = upstream["host"].lower().encode("ascii") if upstream.get("host") else None
        self.strip: bool = bool(upstream.get("strip"))
        self.endpoint, self.base, self.auth = endpoint, base, auth
        self.origin = endpoint.authority.encode("ascii")

    def matches(self, path: bytes, host: bytes) -> bool:
        """Whether this upstream serves the raw path, asked for under this Host (without port, lower case)."""
        return path.startswith(self.prefix) and (self.host is None or self.host == host)

    def rewrite(self, path: bytes) -> bytes:
        """The path as the upstream gets it."""
        if self.strip:
            path = b"/" + path[len(self.prefix) :].lstrip(b"/")
        return self.base + path


class Rule:
    """One line of a route's rules."""

    __slots__ = ("name", "allow", "methods", "paths")

    def __init__(self, rule: Mapping[str, Any]) -> None:
        self.name: str = rule["name"]
        self.allow = rule["action"] == "allow"
        methods = rule.get("methods") or ["*"]
        self.methods = None if "*" in methods else frozenset(method.encode("ascii") for method in methods)
        paths = rule.get("paths") or ["**"]
        self.paths = None if "**" in paths or "/**" in paths else re.compile(b"|".join(pattern(each) for each in paths))

    def matches(self, method: bytes, path: bytes) -> bool:
        """Whether this rule decides about the request."""
        return (self.methods is None or method in self.methods) and (
            self.paths is None or self.paths.fullmatch(path) is not None
        )


def pattern(text: str) -> bytes:
    """A path pattern as a regular expression: `*` is anything but `/`, `**` is anything."""
    parts = re.split(r"(\*\*?)", text)
    return b"".join(
        b".*" if part == "**" else b"[^/]*" if part == "*" else re.escape(part.encode("ascii")) for part in parts
    )


class Route:
    """Everything that the relay must know about one provider with one credential.

    Args:
        name: the provider.
        provider: what `catalog.effective` returned.
        kind: the credential's kind (`api-key`, `basic`, `oauth`).
    """

    def __init__(self, name: str, provider: Mapping[str, Any], kind: str) -> None:
        self.name, self.kind = name, kind
        ca = provider.get("ca_bundle") or ""
        private = bool(provider.get("allow_private"))
        self.targets = [
            _target(name, each, provider, str(each.get("auth_as") or kind), ca, private)
            for each in provider["upstreams"]
            if not each.get("auth") or kind in each["auth"]
        ]
        self.rules = [Rule(rule) for rule in provider.get("rules") or []]
        rate = provider.get("rate") or {}
        self.per_minute: int | None = rate.get("per_minute")
        self.concurrent: int | None = rate.get("concurrent")
        self.body_max: int | None = provider.get("body_max")
        self.websocket = bool(provider.get("websocket"))
        self.usage: str | None = provider.get("usage")
        self.refresh: dict[str, Any] | None = provider.get("refresh")
        self.token_query = frozenset(each.encode("ascii") for each in provider.get("token_query") or ())

    def __repr__(self) -> str:
        return f"<Route {self.name} {self.kind} targets={len(self.targets)}>"

    def target(self, path: bytes, host: bytes) -> Target | None:
        """The first upstream that serves the path."""
        return next((target for target in self.targets if target.matches(path, host)), None)

    def rule(self, method: bytes, path: bytes) -> Rule | None:
        """The rule that decides about the request."""
        return next((rule for rule in self.rules if rule.matches(method, path)), None)


def _target(
    name: str, upstream: Mapping[str, Any], provider: Mapping[str, Any], kind: str, ca: str, private: bool
) -> Target:
    auth = provider["auth"].get(kind)
    if auth is None:
        raise TerokError(
            f"The provider {name} has no way to send a credential of kind {kind}.", fix="terok vault routes"
        )
    endpoint, base = endpoint_of(upstream["url"], ca=ca, allow_private=private)
    return Target(upstream, endpoint, base, Auth(auth, provider["headers"], provider["merge"]))


def endpoint_of(url: str, *, ca: str, allow_private: bool) -> tuple[Endpoint, bytes]:
    """The endpoint and the path prefix (no slash at its end) of an upstream's URL.

    Raises:
        TerokError: it is no http or https URL, or plain http to something that need not be private.
    """
    parts = urlsplit(url)
    wrong = TerokError(f"{url!r} is not the URL of an upstream.", fix="terok vault routes")
    try:
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise wrong
    tls = parts.scheme == "https"
    if not tls and not allow_private:
        raise TerokError(f"The upstream {url} is not https.", fix="use https, or set allow_private for a local server")
    endpoint = Endpoint(
        parts.hostname,
        port or (443 if tls else 80),
        tls=tls,
        ca=ca if tls else "",
        allow_private=allow_private,
    )
    return endpoint, parts.path.rstrip("/").encode("ascii")
