"""What happens to a request: token, provider, route. Pure: a request and tables in, a plan or a refusal out."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from ..kit.codec import Request
from ..kit.refusal import Refusal
from .headers import candidates, request_lines
from .routes import Route, Target

_DOTS = re.compile(rb"(?i)(?:^|/|%2f|%5c)(?:\.|%2e){1,2}(?:$|/|;|%2f|%5c|%3b)")
_BAD_ESCAPE = re.compile(rb"(?i)%(?![0-9a-f]{2})|%0[0ad]")


class Grant(NamedTuple):
    """What a phantom token stands for in this container."""

    scope: str
    provider: str


class Plan:
    """Where one request goes, in one generation of the keeper.

    Attributes:
        request: the head, taken apart.
        grant: what the token stands for: whose credential is used.
        route: the provider's rules.
        target: the upstream for this path.
        path: what stands in the upstream's request line.
        lines: the client's header lines that cross (`headers.request_lines`); the credential's follow them.
        about: what every audit line of such a request says, kept here by the books; empty: not made yet.
    """

    __slots__ = ("request", "grant", "route", "target", "path", "lines", "about")

    def __init__(self, request: Request, grant: Grant, route: Route, target: Target, path: bytes, lines: bytes) -> None:
        self.request, self.grant, self.route, self.target = request, grant, route, target
        self.path, self.lines, self.about = path, lines, ""

    def __repr__(self) -> str:
        return f"<Plan {self.request!r} to {self.route!r}>"


class Places(NamedTuple):
    """Where clients may put a token: header names in lower case, query parameters."""

    headers: frozenset[bytes]
    query: frozenset[bytes]


Lookup = Callable[[bytes], Grant | None]
"""From the SHA-256 of a token to what it stands for."""
RouteOf = Callable[[Grant], Route | Refusal]


def decide(request: Request, places: Places, lookup: Lookup, route_of: RouteOf) -> Plan | Refusal:
    """Find the one token that the request carries, its route, and the upstream.

    Args:
        request: the parsed head.
        places: where to look for tokens.
        lookup: knows the tokens of this container, and no others.
        route_of: the route for a grant, or why there is none.
    """
    path, mark, query = request.target.partition(b"?")
    grant = _find(request, places, query, lookup)
    if isinstance(grant, Refusal):
        return grant
    route = route_of(grant)
    if isinstance(route, Refusal):
        return route
    return _by_path(request, places, route, grant, path, mark + strip_query(query, places.query) if mark else b"")


def _find(request: Request, places: Places, query: bytes, lookup: Lookup) -> Grant | Refusal:
    tokens = list(candidates(request.headers, places.headers))
    if query and places.query:
        tokens += [value for name, value in _parameters(query) if name in places.query and value]
    grant: Grant | None = None
    for token in tokens:
        found = lookup(sha256(token).digest())
        if found is not None:
            if grant is not None and found != grant:
                why = "The request carries tokens of two providers."
                return Refusal(401, "two-tokens", why, "send one token", grant.provider, grant.scope)
            grant = found
    if grant is not None:
        return grant
    if tokens:
        return Refusal(
            401,
            "unknown-token",
            "The token is not one of this container's.",
            "use the phantom token that terok gave this container; real keys are not accepted here",
        )
    return Refusal(401, "no-token", "The request carries no token.", "send the container's phantom token")


def _parameters(query: bytes) -> list[tuple[bytes, bytes]]:
    pairs = (parameter.partition(b"=") for parameter in query.split(b"&"))
    return [(name, value) for name, _, value in pairs]


def strip_query(query: bytes, names: frozenset[bytes]) -> bytes:
    """The query without the parameters that carry tokens; untouched when there is none of them."""
    if not names:
        return query
    return b"&".join(each for each in query.split(b"&") if each.partition(b"=")[0] not in names)


def _by_path(request: Request, places: Places, route: Route, grant: Grant, path: bytes, query: bytes) -> Plan | Refusal:
    def refuse(rule: str, why: str, allow: str, status: int = 403) -> Refusal:
        return Refusal(status, rule, why, allow, grant.provider, grant.scope)

    if (b"/." in path or b"%" in path) and (_DOTS.search(path) or _BAD_ESCAPE.search(path)):
        return refuse(
            "path-form", "The path has dot segments or broken escapes.", "send the path in its plain form", 400
        )
    rule = route.rule(request.method, path)
    if rule is None or not rule.allow:
        name = "default" if rule is None else rule.name
        what = request.method.decode("ascii")
        why = f"The rule {name!r} of the route {route.name} does not allow {what} on this path."
        return refuse(
            f"rule:{name}", why, f"a rule for {route.name} in the roster that allows it, then `terok vault routes`"
        )
    if request.upgrade and (request.upgrade != b"websocket" or not route.websocket):
        return refuse("upgrade", f"The route {route.name} does not switch protocols.", "set the route's `websocket`")
    if route.body_max is not None and request.length > route.body_max:
        return refuse(
            "body-max", f"The body is longer than {route.body_max} bytes.", "raise the route's `body_max`", 413
        )
    target = route.target(path, host_of(request))
    if target is None:
        return refuse(
            "upstream", f"The route {route.name} has no upstream for this path.", "add an upstream with this prefix"
        )
    lines = request_lines(request, places.headers, target.auth)
    return Plan(request, grant, route, target, target.rewrite(path) + query, lines)


def host_of(request: Request) -> bytes:
    """The Host header without its port, in lower case."""
    for lower, _, value, _ in request.headers:
        if lower == b"host":
            return value.rpartition(b":")[0].lower() if value[-1:].isdigit() and b":" in value else value.lower()
    return b""
