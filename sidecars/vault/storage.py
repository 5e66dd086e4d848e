"""Downloads that an upstream redirects to its storage, and that arrive at the vault's socket. Pure.

Clients such as gh send every request to the socket, whatever host it is for. The provider names its storage hosts; a
GET or HEAD for one of them passes without any credential. Its query is passed as it is: the upstream signed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..kit.codec import Request
from ..kit.refusal import Refusal
from ..roster import model
from .decide import NONE, Plan, by_path, host_of
from .routes import Route, Target
from .tokens import Grant, Lookup, Places, look

_RULES = (model.Rule("storage", "allow", ("GET", "HEAD"), ("/**",)),)


def routes_of(grants: Iterable[tuple[Grant, model.Provider]]) -> dict[bytes, tuple[Grant, Route]]:
    """The route to each storage host of the providers for which a container has a token, by the host."""
    return {
        host.encode("ascii"): (grant, _route(grant.provider, provider, host))
        for grant, provider in grants
        for host in provider.storage
    }


def _route(name: str, provider: model.Provider, host: str) -> Route:
    upstream = model.Upstream(f"https://{host}")
    plain = model.Provider(upstreams=(upstream,), auth={"api-key": model.Auth()}, rules=_RULES, encoded_slash=True)
    return Route(name, plain._replace(ca_bundle=provider.ca_bundle), "api-key")


def decide_storage(
    request: Request,
    places: Places,
    lookup: Lookup,
    routes: Mapping[bytes, tuple[Grant, Route]],
    known: Callable[[str], bool],
) -> Plan | Refusal | None:
    """What happens to a request for a host that is not the vault; None: it is for the vault.

    Args:
        request: the parsed head.
        places, lookup: as for `decide`.
        routes: as `routes_of` gives them.
        known: whether a host is one of the routes' upstreams.
    """
    host = host_of(request)
    if host not in routes:
        return _unknown(host, request, places, lookup, known)
    grant, route = routes[host]
    seen = look(request, b"", places, lookup)
    if isinstance(seen, Refusal):
        return seen
    if seen.foreign:
        why = f"{seen.foreign[0]} carries a credential, and storage is asked without one."
        return Refusal(403, "foreign-credential", why[:1].upper() + why[1:], "remove it", grant.provider, grant.scope)
    path, mark, query = request.target.partition(b"?")

    def locate(form: bytes) -> tuple[Target, bytes]:
        return route.targets[0], form

    return by_path(request, places, route, grant, path, mark + query, locate, NONE)


def _unknown(
    host: bytes, request: Request, places: Places, lookup: Lookup, known: Callable[[str], bool]
) -> Refusal | None:
    """The refusal of a request without a token for a host that is none of the routes', by its name."""
    name = host.decode("ascii", "replace")
    last = host.rpartition(b".")[2]
    # `host.containers.internal` is this host: the vault itself, where it has a port there
    if b"." not in host or not last.isalpha() or last == b"internal" or known(name):
        return None
    seen = look(request, request.target.partition(b"?")[2], places, lookup)
    if isinstance(seen, Refusal) or seen.grant is not None or seen.foreign:
        return None
    why = f"{name[:100]} is neither an upstream nor a storage host of this container's providers."
    return Refusal(403, "unknown-host", why, "add it to the provider's `storage` in the roster, if it is only theirs")
