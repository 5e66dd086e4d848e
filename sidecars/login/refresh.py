"""Refreshing OAuth credentials: when, with what request, and how the answer becomes the credential. No network here.

A refresh token may be single use: once the server has answered, the old one is dead, and an answer that is lost is a
login that is lost. So an exchange is owned by one process on the machine (`refresh_slot.Slot`), its answer is on the
disk before anything uses it, and a process that dies in between leaves what the next owner needs to go on:

    state of the slot      what happened                    what the next owner does
    empty                  nothing                          an exchange, if one is due
    sent                   asked, no answer was kept        asks again with the same refresh token
    answer                 answered, not yet in the store   puts the answer into the store

What went wrong last stands in the credential's meta under `refresh`: `{state, reason, at, failures, next}`. State
`failed` is tried again after `next`; `lost` means that the server refused the refresh token: only a new login helps.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ...supervisor.ground.errors import Exit, TerokError
from ..store.credential import KIND, Credential, check_secret, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..roster import model
    from ..store.records import Entry, Item
    from ..store.store import Store
    from .slot import Slot

MARGIN_SECONDS = 300
BACKOFF_SECONDS = (30, 60, 120, 300, 900)
"""Waits after the first, second, ... failure in a row; a dead token endpoint is not asked by every request."""

FRESH_SECONDS = 60
"""A provider that answers 401 to fresh tokens is not asked for others again and again."""

DEFAULT_LIFETIME = 3600
"""Seconds that an access token is believed to live when the answer does not say (RFC 6749, 5.1 recommends to say)."""

LOST_CODES = frozenset(
    {"invalid_grant", "refresh_token_expired", "refresh_token_reused", "refresh_token_invalidated", "token_expired"}
)
"""Error codes after which the refresh token is dead (RFC 6749, 5.2, and what OpenAI's endpoint says)."""

KNOWN_CODES = LOST_CODES | {
    "invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
    "server_error", "temporarily_unavailable", "rate_limit_error", "overloaded_error",
}  # fmt: skip
"""Codes that may be shown. Nothing else of an error's body is: some endpoints echo the token."""


class RefreshError(TerokError):
    """A login could not be refreshed; the message holds nothing of the endpoint's answer but a known error code."""


class Exchange(NamedTuple):
    """One POST to a token endpoint; its repr shows no secret."""

    url: str
    headers: dict[str, str]
    body: bytes
    ca_bundle: str | None

    def __repr__(self) -> str:
        return f"Exchange({self.url!r})"


def due(entry: Entry | Item, now: float, margin: float = MARGIN_SECONDS) -> bool:
    """Whether the credential is a login whose access token ends within `margin` seconds. Needs no key."""
    expires = entry.meta.get("expires_at")
    return entry.meta.get("auth") == "oauth" and isinstance(expires, int | float) and now >= expires - margin


def blocked(entry: Entry | Item, now: float) -> str:
    """Why no refresh may be tried now; empty when one may."""
    state = entry.meta.get("refresh") or {}
    if now < entry.meta.get("refreshed_at", 0) + FRESH_SECONDS:
        return "The provider refuses a login that was refreshed less than a minute ago."
    if state.get("state") == "lost" or (state.get("state") == "failed" and now < state.get("next", 0)):
        return str(state.get("reason", "the last refresh failed"))
    return ""


def needed(store: Store, scope: str) -> bool:
    """Whether a scope has a login at all. Needs no key."""
    return any(entry.meta.get("auth") == "oauth" for entry in store.describe(KIND, scope))


def request(credential: Credential, spec: model.Refresh, ca_bundle: str | None = None) -> Exchange:
    """The POST that asks for new tokens (RFC 6749, 6).

    Args:
        spec: the provider's `refresh` in the catalogue.
        ca_bundle: the provider's.

    Raises:
        RefreshError: the login came without a refresh token.
    """
    if not credential.refresh_token:
        raise RefreshError("The login came without a refresh token, and its access token has ended.")
    fields = {
        "grant_type": "refresh_token",
        "refresh_token": credential.refresh_token,
        "client_id": spec.client_id,
    }
    scopes = credential.scopes or spec.scopes
    if scopes:
        fields["scope"] = " ".join(scopes)
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    body = json.dumps(fields)
    if spec.format == "form":
        from urllib.parse import urlencode

        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(fields)
    return Exchange(spec.url, headers, body.encode(), ca_bundle)


def read_answer(old: Credential, status: int, body: bytes, now: float) -> Credential:
    """The credential that an answer gives.

    Raises:
        RefreshError: the answer is an error, or is not what RFC 6749, 5.1 says.
    """
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if status != 200 or not isinstance(fields, dict):
        raise RefreshError(_refusal(status, fields))
    try:
        access = check_secret(str(fields["access_token"]))
        refresh = fields.get("refresh_token") or old.refresh_token
        check_secret(str(refresh))
        lifetime = fields.get("expires_in")
        expires = jwt_expiry(access) or now + DEFAULT_LIFETIME
        if lifetime is not None:
            expires = now + max(1.0, float(lifetime))
    except (KeyError, TypeError, ValueError, TerokError):
        raise RefreshError("The token endpoint's answer was not understood.") from None
    scopes = tuple(str(fields["scope"]).split()) if fields.get("scope") else old.scopes
    identity = fields.get("id_token")
    return Credential(
        "oauth",
        access,
        refresh_token=str(refresh),
        expires_at=expires,
        scopes=scopes,
        id_token=str(identity) if identity else old.id_token,
    )


def apply(store: Store, item: Item, status: int, body: bytes, now: float) -> Item:
    """Make an answer the credential; on return it is durable.

    Raises:
        RefreshError: as `read_answer`; the failure then stands in the meta.
    """
    try:
        fresh = read_answer(parse(item), status, body, now)
    except RefreshError as error:
        lost = _code(body) in LOST_CODES
        record_failure(store, item, error, now, lost=lost)
        raise RefreshError(error.what, fix=login_command(item) if lost else "") from None
    meta = {name: value for name, value in item.meta.items() if name != "refresh"}
    store.put(
        item.kind, item.scope, item.name, fresh.encode(), {**meta, "expires_at": fresh.expires_at, "refreshed_at": now}
    )
    found = store.get(item.kind, item.scope, item.name)
    assert found is not None
    return found


def record_failure(store: Store, item: Item, error: TerokError, now: float, *, lost: bool = False) -> None:
    """Write down that a refresh failed, for `status`, `doctor` and the client's error."""
    failures = int((item.meta.get("refresh") or {}).get("failures", 0)) + 1
    wait = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
    state = {"state": "lost" if lost else "failed", "reason": error.what, "at": now, "failures": failures}
    store.set_meta(item.kind, item.scope, item.name, {**item.meta, "refresh": {**state, "next": now + wait}})


def refresh(
    store: Store,
    slot: Slot,
    provider: model.Provider,
    send: Callable[[Exchange], tuple[int, bytes]],
    *,
    stale: int | None = None,
    clock: Callable[[], float],
) -> Item:
    """Refresh one credential, unless another process has done it meanwhile.

    Args:
        store: unlocked and writable.
        slot: the credential's slot, held.
        provider: the effective provider.
        send: makes the exchange.
        stale: refresh although it is not due when the credential still has this version (it was answered with 401).
        clock: Unix seconds.

    Returns:
        The credential that is valid now.

    Raises:
        RefreshError: it could not be refreshed.
        LockedError: the vault is locked.
    """
    item = _item(store, slot)
    kept = slot.answer(store, item)
    if kept is not None:
        item = _apply_kept(store, slot, item, kept, clock())
    spec = provider.refresh
    if spec is None:
        raise RefreshError(f"The provider {slot.name} has no token endpoint, and the access token has ended.")
    if not due(item, clock(), spec.margin) and item.version != stale:
        return item
    reason = blocked(item, clock())
    if reason:
        raise RefreshError(reason, fix=login_command(item))
    exchange = request(parse(item), spec, provider.ca_bundle)
    slot.mark_sent()
    try:
        status, body = send(exchange)
    except RefreshError as error:
        record_failure(store, item, error, clock())
        raise
    slot.keep(store, item, status, body)
    return _apply_kept(store, slot, item, (status, body), clock())


def _apply_kept(store: Store, slot: Slot, item: Item, kept: tuple[int, bytes], now: float) -> Item:
    """Apply an answer and empty the slot, except when the store could not be written: then the answer stays."""
    try:
        item = apply(store, item, *kept, now)
    except RefreshError:
        slot.clear()
        raise
    slot.clear()
    return item


def jwt_expiry(token: str) -> float | None:
    """`exp` of a JSON Web Token (RFC 7519, 4.1.4), unverified; None when the token is no such thing."""
    import base64

    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return None


def _item(store: Store, slot: Slot) -> Item:
    item = store.get(KIND, slot.scope, slot.name)
    if item is None or item.meta.get("auth") != "oauth":
        raise RefreshError(f"The scope {slot.scope} has no login for {slot.name}.", code=Exit.NOT_FOUND)
    return item


def _code(body: bytes) -> str:
    """The known error code in an error's body; empty when there is none (RFC 6749, 5.2; some nest it in an object)."""
    try:
        error = json.loads(body).get("error")
    except (ValueError, AttributeError):
        return ""
    if isinstance(error, dict):
        error = next((error[key] for key in ("code", "type") if error.get(key) in KNOWN_CODES), "")
    return error if isinstance(error, str) and error in KNOWN_CODES else ""


def _refusal(status: int, fields: object) -> str:
    code = _code(json.dumps(fields).encode())
    if code in LOST_CODES:
        return f"The login has ended: the token endpoint refused the refresh token ({status} {code})."
    return f"The token endpoint refused to refresh the login ({status}{' ' + code if code else ''})."


def login_command(entry: Entry | Item) -> str:
    """The command that brings a new login, after logging in with the vendor's own program on this machine."""
    agent = {"anthropic": "claude", "openai": "codex"}.get(entry.name)
    scope = entry.scope
    return (
        f"terok auth {agent} --scope {scope} --import --replace"
        if agent
        else f"terok vault rotate {scope} {entry.name}"
    )
