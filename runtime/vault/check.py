"""`terok vault check`: one request upstream with a credential, to see whether the provider takes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...sidecars.kit.proxy.web import client, proxy_failure
from ...sidecars.kit.refusal import Refused
from ...sidecars.login import refresh
from ...sidecars.roster import catalog
from ...sidecars.roster.model import Check, Provider
from ...sidecars.store import keys, proxy
from ...sidecars.store.credential import KIND, Credential, parse
from ...sidecars.vault.routes import Route
from ...supervisor.ground import paste
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import egress, opening
from ..kit.verb import argument, verb
from .items import NAMES, provider_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ...sidecars.kit.proxy.egress import Egress
    from ...sidecars.login.refresh import Exchange
    from ...sidecars.store.records import Item
    from ...sidecars.store.store import Store
    from ..kit.env import Env

SECONDS = 20.0


@verb(
    *NAMES,
    argument("--path", metavar="PATH", help="what to request (default: the roster's, otherwise /)"),
    examples=("terok vault check work anthropic",),
)
def run_check(args: argparse.Namespace, env: Env) -> int:
    """Make one request upstream with a credential, to see whether the provider accepts it."""
    from ...sidecars.login.exchange import send

    provider = provider_of(env, args.provider)
    way = egress.egress(env.config.network)
    with opening.unlocked(env) as store:
        credential = proxy.reader(store, keys.key_files(env.layout), way.authority)
        item = store.get(KIND, args.scope, args.provider)
        if item is None:
            raise TerokError(
                f"The scope {args.scope} has no credential for {args.provider}.",
                fix=paste.command("terok", "vault", "add", args.scope, args.provider),
                code=Exit.NOT_FOUND,
            )
        route = catalog.effective(provider, item.meta)
        item = _fresh(env, store, item, route, lambda exchange: send(exchange, way, credential))
        authorization = credential() if way.host else ""
    secret = parse(item)
    check = provider.check or Check()
    url, headers, ca = request(args.provider, route, secret, args.path or check.path)
    headers.update(check.headers)
    used = way.url if way.carries(urlsplit(url).hostname or "") else ""
    began = time.monotonic()
    status, reason = _get(url, headers, ca, way, authorization)
    duration = time.monotonic() - began
    good = status < 400
    word = (
        "takes the credential"
        if good
        else "refused the credential"
        if status in (401, 403)
        else "answered with an error"
    )
    env.out.emit(
        {"url": url, "status": status, "accepted": good, "seconds": round(duration, 3), "proxy": used or None},
        f"{url}: {status} {reason} in {duration:.2f} s; {args.provider} {word}.",
    )
    return Exit.OK if good else Exit.FAILURE


def request(name: str, provider: Provider, credential: Credential, path: str) -> tuple[str, dict[str, str], str]:
    """URL and headers of a GET that carries the credential as the vault's own requests do, and its CA bundle.

    Raises:
        TerokError: the route has no upstream for this kind of credential.
    """
    route = Route(name, provider, credential.auth)
    raw = path.encode("ascii", "replace")
    target = next((target for target in route.targets if target.host is None and target.matches(raw, b"")), None)
    if target is None:
        raise TerokError(f"The provider has no upstream for {path}.", code=Exit.USAGE)
    endpoint, auth = target.endpoint, target.auth
    sent = (*auth.merge.values(), *auth.pairs(credential))
    headers = {name.decode("ascii"): value.decode("utf-8") for name, value in sent}
    scheme = "https" if endpoint.tls else "http"
    url = f"{scheme}://{endpoint.authority}{(target.base + target.rewrite(raw)).decode('ascii')}"
    return url, {"User-Agent": "terok", "Accept": "*/*", **headers}, endpoint.ca


def _fresh(env: Env, store: Store, item: Item, route: Provider, send: Callable[[Exchange], tuple[int, bytes]]) -> Item:
    """The credential, refreshed first when it is a login that has ended."""
    if route.refresh is None or not refresh.due(item, time.time(), 0):
        return item
    from ...sidecars.login.slot import Slot

    with Slot(env.layout.vault_refresh, item.scope, item.name) as slot:
        return refresh.refresh(store, slot, route, send, clock=time.time)


def _get(url: str, headers: dict[str, str], ca: str, way: Egress, authorization: str) -> tuple[int, str]:
    """Status and reason; the body is not read: it could hold anything."""
    import httpx

    try:
        with (
            client(way, url, ca, SECONDS, lambda: authorization) as web,
            web.stream("GET", url, headers=headers) as answer,
        ):
            return answer.status_code, answer.reason_phrase
    except httpx.ProxyError as error:
        raise TerokError(proxy_failure(way, url, error)) from None
    except Refused as refused:
        raise TerokError(refused.refusal.why, code=Exit.REFUSED) from None
    except (httpx.HTTPError, OSError) as error:
        raise TerokError(f"{url} did not answer: {type(error).__name__}: {error}") from None
