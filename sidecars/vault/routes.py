"""A route as the relay uses it: what `catalog.effective` gives for one credential, compiled once.

Rules of this file: bytes that a request is compared with stand ready as bytes; nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from ...supervisor.ground.errors import TerokError
from ..kit.dial import Endpoint
from ..roster import model
from .canonical import canonical, readings, separated
from .gated.gates import Gate
from .gated.rules import guard_of
from .headers import plain_name
from .inject import Auth

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""Methods that a route need not name. TRACE is none of them: its answer repeats the request's head."""


class Target:
    """One upstream of a route: for which paths, where it is, how it is given the credential."""

    __slots__ = ("prefix", "host", "strip", "endpoint", "base", "auth", "origin")

    def __init__(self, upstream: model.Upstream, endpoint: Endpoint, base: bytes, auth: Auth) -> None:
        self.prefix: bytes = upstream.prefix.encode("ascii")
        self.host: bytes | None = upstream.host.lower().encode("ascii") if upstream.host else None
        self.strip = upstream.strip
        self.endpoint, self.base, self.auth = endpoint, base, auth
        self.origin = endpoint.authority.encode("ascii")

    def matches(self, path: bytes, host: bytes) -> bool:
        """Whether this upstream serves the path, asked for under this Host (without port, lower case)."""
        return path.startswith(self.prefix) and (self.host is None or self.host == host)

    def behind(self, path: bytes) -> bytes | None:
        """The path as rules judge it, of one that a client of the upstream's own host asks for; None: not covered."""
        if self.base:
            if path != self.base and not path.startswith(self.base + b"/"):
                return None
            path = path[len(self.base) :] or b"/"
        return path if self.strip or path.startswith(self.prefix) else None

    def is_at(self, host: str, port: int) -> bool:
        """Whether this is where a client of that host and port connects to, over TLS."""
        return self.endpoint.tls and self.endpoint.host == host and self.endpoint.port == port

    def rewrite(self, path: bytes) -> bytes:
        """The path as the upstream gets it behind its own (`base`); in canonical form when `path` is."""
        return b"/" + path[len(self.prefix) :].lstrip(b"/") if self.strip else path


class Rule:
    """One line of a route's rules."""

    __slots__ = ("name", "allow", "methods", "paths")

    def __init__(self, rule: model.Rule) -> None:
        self.name = rule.name
        self.allow = rule.action == "allow"
        methods = rule.methods
        self.methods = None if "*" in methods else frozenset(method.encode("ascii") for method in methods)
        # servers differ on case: a denial counts for every spelling, a permission for the one that it names
        flags = re.NOFLAG if self.allow else re.IGNORECASE
        everything = "**" in rule.paths or "/**" in rule.paths
        self.paths = None if everything else re.compile(b"|".join(map(pattern, rule.paths)), flags)

    def __repr__(self) -> str:
        return f"<Rule {self.name} allow={self.allow}>"

    def matches(self, methods: Iterable[bytes], paths: Iterable[bytes]) -> bool:
        """Whether this rule speaks of one of the methods on one of the paths."""
        if self.methods is not None and self.methods.isdisjoint(methods):
            return False
        return self.paths is None or any(self.paths.fullmatch(path) is not None for path in paths)


def pattern(text: str) -> bytes:
    """A path pattern as a regular expression: `*` is anything but `/`, `**` is anything."""
    form = canonical(text.encode("ascii")) or text.encode("ascii")
    parts = re.split(rb"(\*\*?)", form)
    return b"".join(b".*" if part == b"**" else b"[^/]*" if part == b"*" else re.escape(part) for part in parts)


class Route:
    """Everything that the relay must know about one provider with one credential.

    Args:
        name: the provider.
        provider: what `catalog.effective` returned.
        kind: the credential's kind (`api-key`, `basic`, `oauth`).
        gate: the scope's, when it stands before a repository.
        ambient: at a brokered host, the credential goes with requests that carry none.
        foreign_allowed: there, requests may carry a credential of the client's own instead.
    """

    def __init__(
        self,
        name: str,
        provider: model.Provider,
        kind: str,
        gate: Gate | None = None,
        *,
        ambient: bool = False,
        foreign_allowed: bool = False,
    ) -> None:
        self.name, self.kind = name, kind
        self.ambient, self.foreign_allowed = ambient, foreign_allowed
        self.targets = [
            _target(name, upstream, provider, upstream.auth_as or kind)
            for upstream in provider.upstreams
            if not upstream.auth or kind in upstream.auth
        ]
        self.guard = guard_of(provider, (target.endpoint.host for target in self.targets), gate)
        self.rules = [Rule(rule) for rule in provider.rules]
        self.per_minute, self.concurrent = provider.per_minute, provider.concurrent
        self.body_max = provider.body_max
        self.encoded_slash, self.websocket = provider.encoded_slash, provider.websocket
        self.usage, self.refresh = provider.usage, provider.refresh
        # a header that the route sets itself replaces the client's and selects nothing
        ours = frozenset().union(*(target.auth.names for target in self.targets))
        self.foreign_headers = frozenset(map(plain_name, _lower(provider.foreign_headers))) - ours
        self.foreign_query = _lower(provider.foreign_query) - _lower(provider.token_query)

    def __repr__(self) -> str:
        return f"<Route {self.name} {self.kind} targets={len(self.targets)}>"

    def target(self, path: bytes, host: bytes) -> Target | None:
        """The first upstream that serves the path."""
        return next((target for target in self.targets if target.matches(path, host)), None)

    def knows(self, method: bytes) -> bool:
        """Whether a method is a usual one, or named by one of the rules."""
        return method in METHODS or any(rule.methods is not None and method in rule.methods for rule in self.rules)

    def rule(self, methods: tuple[bytes, ...], path: bytes) -> Rule | None:
        """The rule that decides about a request; None: no rule speaks of it.

        Args:
            methods: the method, and those that a server may take it for (`canonical.methods`).
            path: in its canonical form, as the upstream gets it behind its own path.
        """
        rule = self._first(methods, path)
        if rule is not None and rule.allow and not self.encoded_slash and b"%2F" in path:
            # unless the provider says that its servers keep %2F inside a segment, both readings must be allowed
            return self._first(methods, separated(path))
        return rule

    def _first(self, methods: tuple[bytes, ...], path: bytes) -> Rule | None:
        ways = readings(path)
        for rule in self.rules:
            # a rule that denies counts for every reading, one that allows only for what is sent
            if rule.matches(methods[:1], (path,)) if rule.allow else rule.matches(methods, ways):
                return rule
        return None


def _lower(names: Iterable[str] | None) -> frozenset[bytes]:
    return frozenset(name.lower().encode("ascii") for name in names or ())


def _target(name: str, upstream: model.Upstream, provider: model.Provider, kind: str) -> Target:
    auth = provider.auth.get(kind)
    if auth is None:
        raise TerokError(
            f"The provider {name} has no way to send a credential of kind {kind}.", fix="terok vault routes"
        )
    endpoint, base = endpoint_of(upstream.url, ca=provider.ca_bundle or "", allow_private=provider.allow_private)
    return Target(upstream, endpoint, base, Auth(auth, provider.headers, provider.merge))


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
