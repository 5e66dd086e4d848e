"""`terok vault check`: one request upstream with a credential, to see whether the provider takes it."""

from __future__ import annotations

import base64
import ssl
import time
from typing import TYPE_CHECKING, Any

from ...sidecars.login import refresh
from ...sidecars.roster import catalog
from ...sidecars.store.credential import KIND, Credential, parse
from ...supervisor.ground.errors import Exit, TerokError
from . import opening
from .items import provider_of

if TYPE_CHECKING:
    import argparse

    from ...sidecars.store.records import Item
    from ...sidecars.store.store import Store
    from ..kit.env import Env

SECONDS = 20.0


def run_check(args: argparse.Namespace, env: Env) -> int:
    """terok vault check"""
    provider = provider_of(env, args.provider)
    with opening.unlocked(env) as store:
        item = store.get(KIND, args.scope, args.provider)
        if item is None:
            raise TerokError(
                f"The scope {args.scope} has no credential for {args.provider}.",
                fix=f"terok vault add {args.scope} {args.provider}",
                code=Exit.NOT_FOUND,
            )
        route = catalog.effective(provider, item.meta)
        item = _fresh(env, store, item, route)
    found = parse(item)
    check = provider["check"] or {"path": "/", "headers": {}}
    url, headers = request(route, found, args.path or check["path"])
    headers.update(check["headers"])
    began = time.monotonic()
    status, reason = _get(url, headers, route["ca_bundle"])
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
        {"url": url, "status": status, "accepted": good, "seconds": round(duration, 3)},
        f"{url}: {status} {reason} in {duration:.2f} s; {args.provider} {word}.",
    )
    return Exit.OK if good else Exit.FAILURE


def request(route: dict[str, Any], found: Credential, path: str) -> tuple[str, dict[str, str]]:
    """URL and headers of a GET that carries the credential.

    Raises:
        TerokError: the route has no upstream for this kind of credential.
    """
    upstream = next(
        (
            each
            for each in route["upstreams"]
            if each["host"] is None
            and path.startswith(each["prefix"])
            and (each["auth"] is None or found.auth in each["auth"])
        ),
        None,
    )
    if upstream is None:
        raise TerokError(f"The route has no upstream for {path}.", code=Exit.USAGE)
    auth = route["auth"][upstream["auth_as"] or found.auth]
    if auth["scheme"] == "basic":
        user = found.user or auth["user"] or "token"
        value = "Basic " + base64.b64encode(f"{user}:{found.secret}".encode()).decode()
    else:
        value = auth["prefix"] + found.secret
    rest = path[len(upstream["prefix"]) - 1 :] if upstream["strip"] else path
    headers = {**route["headers"], **route["merge"], **auth["headers"], **auth["merge"], auth["header"]: value}
    return upstream["url"] + rest, {"User-Agent": "terok", "Accept": "*/*", **headers}


def _fresh(env: Env, store: Store, item: Item, route: dict[str, Any]) -> Item:
    """The credential, refreshed first when it is a login that has ended."""
    if route["refresh"] is None or not refresh.due(item, time.time(), 0):
        return item
    from ...sidecars.login.exchange import send
    from ...sidecars.login.slot import Slot

    with Slot(env.layout.vault_refresh, item.scope, item.name) as slot:
        return refresh.refresh(store, slot, route, send, clock=time.time)


def _get(url: str, headers: dict[str, str], ca_bundle: str | None) -> tuple[int, str]:
    """Status and reason; the body is not read: it could hold anything."""
    import httpx

    context = ssl.create_default_context(cafile=ca_bundle)
    try:
        with (
            httpx.Client(verify=context, timeout=SECONDS, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            return answer.status_code, answer.reason_phrase
    except (httpx.HTTPError, OSError) as error:
        raise TerokError(f"{url} gave no answer: {type(error).__name__}: {error}") from None
