"""What happens to a request at a brokered host. Pure, as `decide.py`, whose rules it shares.

Rules of this file:
- the Host header of every request is the host that the connection leads to;
- a phantom token is good at the hosts of its own provider;
- a request without any credential passes without one, or with one that the operator added as ambient;
- a credential that is not the vault's is refused, wherever it stands, unless the operator allowed it: the host is
  open to everyone who has an account there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....supervisor.ground import paste
from ...kit.codec import Request
from ...kit.refusal import Refusal
from ..canonical import canonical
from ..decide import AMBIENT, NONE, OWN, Plan, by_path
from ..headers import COOKIES
from ..routes import Route, Target
from ..tokens import Grant, Lookup, Places, Seen, look, refused_header, refused_parameter, strip_query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .site import Site

Here = tuple[Grant, Route]
"""A provider with a credential for the host."""


def decide_at(
    site: Site,
    request: Request,
    places: Places,
    lookup: Lookup,
    route_of: Callable[[Grant], Route | Refusal],
    here: Sequence[Here],
) -> Plan | Refusal:
    """Where a request goes, and with whose credential.

    Args:
        site: the host that the connection leads to.
        request: the parsed head.
        places, lookup, route_of: as for `decide`.
        here: the providers whose credentials broker the host.
    """
    problem = _other_host(site, request)
    if problem is not None:
        return problem
    path, mark, query = request.target.partition(b"?")
    seen = look(request, query, places, lookup)
    if isinstance(seen, Refusal):
        return seen
    if seen.grant is not None:
        return _with_token(site, request, places, seen, route_of(seen.grant), path, mark + query)
    if not here:
        return Refusal(403, "no-credential", f"No credential of this container is for {site.host}.", "terok vault list")
    (grant, route), covered = _covering(site, here, path)
    foreign = _foreign(request, seen, route, query)
    if foreign and not route.foreign_allowed:
        return _foreign_refused(foreign, grant, alone=True)
    credential = OWN if foreign else AMBIENT if route.ambient and covered else NONE
    sent = mark + query if credential == OWN else _without_tokens(mark, query, places)
    locate = _locate(site, route, any_path=credential != AMBIENT)
    return by_path(request, places, route, grant, path, sent, locate, credential)


def _other_host(site: Site, request: Request) -> Refusal | None:
    host = next((value for lower, _, value, _ in request.headers if lower == b"host"), b"").lower()
    if host in site.names:
        return None
    if not host:
        return Refusal(400, "no-host", f"The request names no host; the connection leads to {site.host}.")
    shown = host.decode("ascii", "replace")[:100]
    why = f"The connection leads to {site.host}, and the request is for {shown}."
    return Refusal(421, "other-host", why, "send it on a connection of its own")


def _with_token(
    site: Site, request: Request, places: Places, seen: Seen, route: Route | Refusal, path: bytes, query: bytes
) -> Plan | Refusal:
    grant = seen.grant
    assert grant is not None
    if isinstance(route, Refusal):
        return route
    if not any(target.is_at(site.host, site.port) for target in route.targets):
        why = f"The token is for {grant.provider}, which is not at {site.host}."
        return Refusal(403, "other-provider", why, "send the token of this host", grant.provider, grant.scope)
    stripped = _without_tokens(query[:1], query[1:], places)
    foreign = _foreign(request, seen, route, stripped[1:])
    if foreign:
        return _foreign_refused(foreign, grant, alone=False)
    return by_path(request, places, route, grant, path, stripped, _locate(site, route))


def _without_tokens(mark: bytes, query: bytes, places: Places) -> bytes:
    return mark + strip_query(query, places.query)


def _foreign(request: Request, seen: Seen, route: Route, query: bytes) -> str:
    """The first place with a credential that is not the vault's; empty when there is none."""
    if seen.foreign:
        return seen.foreign[0]
    for lower, name, value, _ in request.headers:
        if lower in COOKIES and value:
            return f"the header {name.decode('ascii')}"
    if header := refused_header(request.headers, route.foreign_headers):
        return f"the header {header}"
    if parameter := refused_parameter(query, route.foreign_query):
        return f"the query parameter {parameter}"
    return ""


def _foreign_refused(place: str, grant: Grant, *, alone: bool) -> Refusal:
    allow = f"remove {place}; the vault adds what the provider needs"
    if alone:
        command = paste.command("terok", "vault", "set", grant.scope, grant.provider, "--foreign", "allow")
        allow = f"send the phantom token of {grant.provider} instead; to let credentials of its own pass: `{command}`"
    why = f"In {place} stands a credential, an account or a method that is not the vault's."
    return Refusal(403, "foreign-credential", why, allow, grant.provider, grant.scope)


def _covering(site: Site, here: Sequence[Here], path: bytes) -> tuple[Here, bool]:
    """The provider whose rules count for a request without a token, and whether its credential covers the path.

    The closest one, an ambient one first.
    """
    form = canonical(path) or b"/"

    def closeness(one: Here) -> tuple[bool, int]:
        prefixes = [
            len(target.base) + (0 if target.strip else len(target.prefix))
            for target in one[1].targets
            if target.is_at(site.host, site.port) and target.behind(form) is not None
        ]
        return (one[1].ambient and bool(prefixes), max(prefixes, default=-1))

    closest = max(here, key=closeness)
    return closest, closeness(closest)[1] >= 0


def _locate(site: Site, route: Route, *, any_path: bool = False) -> Callable[[bytes], tuple[Target, bytes] | None]:
    """Finds the upstream at the site.

    `any_path`: the credential does not go along, so paths that it does not cover are judged as well.
    """

    def locate(form: bytes) -> tuple[Target, bytes] | None:
        here = [target for target in route.targets if target.is_at(site.host, site.port)]
        for target in here:
            sent = target.behind(form)
            if sent is not None:
                return target, sent
        bare = [target for target in here if not target.base]
        return (bare[0], form) if any_path and bare else None

    return locate
