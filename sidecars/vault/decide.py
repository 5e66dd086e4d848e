"""What happens to a request: token, provider, route. Pure: a request and tables in, a plan or a refusal out."""

from __future__ import annotations

from collections.abc import Callable

from ...supervisor.ground import paste
from ..kit.codec import Request
from ..kit.refusal import Refusal
from .canonical import canonical, methods
from .gated.rules import Judge
from .headers import nominated, request_lines
from .routes import Route, Target
from .tokens import Grant, Lookup, Places, find, refused_header, refused_parameter, strip_query

PHANTOM, AMBIENT, NONE, OWN = "phantom", "ambient", "none", "own"
"""With whose credential a request goes upstream: the vault's (for a token, or without one), none, the client's own."""


class Plan:
    """Where one request goes, in one generation of the keeper.

    Attributes:
        request: the head, taken apart.
        grant: what the token stands for: whose credential is used.
        route: the provider's rules.
        target: the upstream for this path.
        path: what stands in the upstream's request line.
        lines: the client's header lines that cross (`headers.request_lines`); the credential's follow them.
        credential: `PHANTOM`, or one of the others at a brokered host.
        judge: decides about the body before anything is sent; None: nothing need (`gated/`).
        about: what every audit line of such a request says, kept here by the books; empty: not made yet.
    """

    __slots__ = ("request", "grant", "route", "target", "path", "lines", "credential", "judge", "about")

    def __init__(
        self,
        request: Request,
        grant: Grant,
        route: Route,
        target: Target,
        path: bytes,
        lines: bytes,
        credential: str = PHANTOM,
        judge: Judge | None = None,
    ) -> None:
        self.request, self.grant, self.route, self.target = request, grant, route, target
        self.path, self.lines, self.credential, self.judge, self.about = path, lines, credential, judge, ""

    @property
    def ours(self) -> bool:
        """Whether the vault puts a credential in."""
        return self.credential in (PHANTOM, AMBIENT)

    def __repr__(self) -> str:
        return f"<Plan {self.request!r} to {self.route!r}>"

    def gate_refusal(self, why: str) -> Refusal:
        """The refusal of a body that the judge does not pass."""
        return gate_refusal(why, self.grant)


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
    token = find(request, query, places, lookup)
    if isinstance(token, Refusal):
        return token
    grant = token.grant
    route = route_of(grant)
    if isinstance(route, Refusal):
        return route
    query = strip_query(query, places.query)
    foreign = token.foreign[0] if token.foreign else ""
    if not foreign and (name := refused_header(request.headers, route.foreign_headers)):
        foreign = f"the header {name}"
    if not foreign and (name := refused_parameter(query, route.foreign_query)):
        foreign = f"the query parameter {name}"
    if foreign:
        why = f"Beside the phantom token, {foreign} carries a credential, an account or a method of its own."
        allow = f"remove {foreign}; the vault adds what the provider needs"
        return Refusal(403, "foreign-credential", why, allow, grant.provider, grant.scope)

    def locate(form: bytes) -> tuple[Target, bytes] | None:
        target = route.target(form, host_of(request))
        return None if target is None else (target, target.rewrite(form))

    return by_path(request, places, route, grant, path, mark + query, locate)


Locate = Callable[[bytes], tuple[Target, bytes] | None]
"""From a canonical path to its upstream and the path that rules judge; None: the route has none for it."""


def by_path(
    request: Request,
    places: Places,
    route: Route,
    grant: Grant,
    path: bytes,
    query: bytes,
    locate: Locate,
    credential: str = PHANTOM,
) -> Plan | Refusal:
    """What the route's rules say about a request whose credential is decided.

    Args:
        path, query: of the request's target; the query with its question mark.
        credential: as in `Plan`.
    """

    def refuse(rule: str, why: str, allow: str, status: int = 403) -> Refusal:
        return Refusal(status, rule, why, allow, grant.provider, grant.scope)

    if not route.knows(request.method):
        name = request.method.decode("ascii")
        return refuse("method", f"The method {name} is not a usual one.", f"a rule for {route.name} that names it", 405)
    # Rules judge `sent`: the canonical path after the provider's prefix is cut off, and exactly what goes upstream. A
    # spelling that the rules do not know never reaches an upstream that understands it.
    form = canonical(path)
    if form is None:
        why = "The path has dot segments, broken or double escapes, or escapes that are no text."
        return refuse("path-form", why, "send the path in its plain form", 400)
    located = locate(form)
    if located is None:
        return refuse(
            "upstream", f"The route {route.name} has no upstream for this path.", "add an upstream with this prefix"
        )
    target, sent = located
    auth = target.auth if credential in (PHANTOM, AMBIENT) else None
    types = [value for lower, _, value, _ in request.headers if lower == b"content-type"]
    ways = methods(request.method, types, body=bool(request.length))
    rule = route.rule(ways, sent)
    if rule is None or not rule.allow:
        name = "default" if rule is None else rule.name
        what = request.method.decode("ascii")
        why = f"The rule {name!r} of the route {route.name} does not allow {what} on this path."
        return refuse(
            f"rule:{name}", why, f"a rule for {route.name} in the roster that allows it, then `terok vault routes`"
        )
    guard = route.guard
    if guard is not None and (why := guard.refuses(ways, sent, query[1:])):
        return gate_refusal(why, grant)
    ours = target.auth.names | target.auth.merge.keys()
    # `Connection: x-api-key` asks a proxy to drop that header (RFC 9110, 7.6.1): the injected credential.
    named = nominated(request.headers) & ours
    if named:
        why = f"Connection names {min(named).decode('ascii')}, which the vault sets."
        return refuse("connection-names", why, "remove it from the Connection header", 400)
    if request.upgrade and (request.upgrade != b"websocket" or not route.websocket):
        return refuse("upgrade", f"The route {route.name} does not switch protocols.", "set the route's `websocket`")
    if route.body_max is not None and request.length > route.body_max:
        return refuse(
            "body-max", f"The body is longer than {route.body_max} bytes.", "raise the route's `body_max`", 413
        )
    lines = request_lines(request, places.headers, auth, own=credential == OWN)
    judge = guard.judge(ways, sent) if guard is not None else None
    return Plan(request, grant, route, target, target.base + sent + query, lines, credential, judge)


def gate_refusal(why: str, grant: Grant) -> Refusal:
    """Why a request that would go around the scope's gate is refused."""
    command = paste.command("terok", "gate", "set", grant.scope, "--direct", "allow")
    allow = f"push to the gate ({grant.scope}.git); to let the vault write too, run `{command}` on the host"
    return Refusal(403, "gate", f"The scope has a gate. {why}.", allow, grant.provider, grant.scope)


def host_of(request: Request) -> bytes:
    """The Host header without its port, in lower case."""
    for lower, _, value, _ in request.headers:
        if lower == b"host":
            return value.rpartition(b":")[0].lower() if value[-1:].isdigit() and b":" in value else value.lower()
    return b""
