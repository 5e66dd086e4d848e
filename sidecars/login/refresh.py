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

from ...supervisor.ground import paste
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

FRESH_SECONDS = (60, 300, 900, 3600, 14400)
"""Waits before a login is refreshed again though its token has not ended: after one, two, three, ... such refreshes in
a row. Something may answer 401 whatever the token is, and the container chooses what to ask."""

LIFETIME_MAX = 366 * 86400
"""Seconds beyond which a lifetime is not believed."""
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


def blocked(entry: Entry | Item, now: float, *, forced: bool = False) -> str:
    """Why no refresh may be tried now; empty when one may.

    A time that lies in the future was written under another clock and blocks nothing.

    Args:
        forced: the access token has not ended; the provider refused it.
    """
    state = entry.meta.get("refresh")
    state = state if isinstance(state, dict) else {}
    row = _number(entry.meta.get("forced")) if forced else 0
    fresh = FRESH_SECONDS[max(0, min(int(row), len(FRESH_SECONDS)) - 1)]
    if 0 <= now - _number(entry.meta.get("refreshed_at")) < fresh:
        ago = "a minute" if fresh == FRESH_SECONDS[0] else f"{fresh // 60} minutes"
        return f"The provider refuses a login that was refreshed less than {ago} ago."
    at, after = _number(state.get("at")), _number(state.get("next"))
    waits = state.get("state") == "failed" and at <= now < min(after, at + BACKOFF_SECONDS[-1])
    if state.get("state") == "lost" or waits:
        return str(state.get("reason", "the last refresh failed"))
    return ""


def _number(value: object) -> float:
    """A number of the meta; 0 for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


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


class Reading(NamedTuple):
    """What an answer gives.

    Attributes:
        credential: with everything usable in the answer, and the old parts for the rest.
        problem: why it cannot be used; empty when it can.
    """

    credential: Credential
    problem: str


def read_answer(old: Credential, status: int, body: bytes, now: float) -> Reading:
    """What an answer gives (RFC 6749, 5.1): what can be used of a successful one is taken, and judged afterwards.

    The old refresh token is dead once the server has answered, so a wrong member beside a good new token must not
    cost the login.

    Raises:
        RefreshError: the answer is an error, or nothing can be read from it.
    """
    fields = _object(body)
    if status != 200 or fields is None:
        raise RefreshError(_refusal(status, fields))
    access, refresh = _secret(fields.get("access_token")), _secret(fields.get("refresh_token"))
    identity, scope = fields.get("id_token"), fields.get("scope")
    rotated = old._replace(
        refresh_token=refresh or old.refresh_token,
        scopes=tuple(scope.split()) if isinstance(scope, str) and scope else old.scopes,
        id_token=identity if isinstance(identity, str) and identity else old.id_token,
    )
    if not access:
        return Reading(rotated, "The token endpoint's answer has no access token that can be used.")
    lifetime = fields.get("expires_in")
    if isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdigit():
        lifetime = float(lifetime)
    seconds = _number(lifetime)
    # A lifetime that is missing or absurd does not end the login: a JWT says its own end, and other tokens get the
    # default.
    known = 0 < seconds <= LIFETIME_MAX
    expires = now + seconds if known else jwt_expiry(access) or now + DEFAULT_LIFETIME
    return Reading(rotated._replace(secret=access, expires_at=expires), "")


def _object(body: bytes | str) -> dict[str, object] | None:
    """A JSON object; None for anything else, however deep."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _secret(value: object) -> str:
    """A token that a header can carry; empty for anything else."""
    try:
        return check_secret(value) if isinstance(value, str) else ""
    except TerokError:
        return ""


def apply(store: Store, item: Item, status: int, body: bytes, now: float, *, forced: bool = False) -> Item:
    """Make an answer the credential; on return it is durable.

    Raises:
        RefreshError: as `read_answer`, or the answer has no access token; the failure then stands in the meta.
    """
    try:
        reading = read_answer(parse(item), status, body, now)
    except RefreshError as error:
        lost = _code(body) in LOST_CODES
        record_failure(store, item, error, now, lost=lost)
        raise RefreshError(error.what, fix=login_command(item) if lost else "") from None
    fresh = reading.credential
    meta = {name: value for name, value in item.meta.items() if name not in ("refresh", "forced")}
    if forced:
        meta["forced"] = int(_number(item.meta.get("forced"))) + 1
    meta |= {"refreshed_at": now} if not reading.problem else {"refresh": item.meta.get("refresh")}
    store.put(item.kind, item.scope, item.name, fresh.encode(), {**meta, "expires_at": fresh.expires_at})
    current = store.get(item.kind, item.scope, item.name)
    assert current is not None
    if reading.problem:
        failure = RefreshError(reading.problem)
        record_failure(store, current, failure, now)
        raise failure
    return current


def record_failure(store: Store, item: Item, error: TerokError, now: float, *, lost: bool = False) -> None:
    """Write down that a refresh failed, for `status`, `doctor` and the client's error."""
    before = item.meta.get("refresh")
    failures = int(_number(before.get("failures")) if isinstance(before, dict) else 0) + 1
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
    forced = not due(item, clock(), spec.margin)
    if forced and item.version != stale:
        return item
    reason = blocked(item, clock(), forced=forced)
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
    return _apply_kept(store, slot, item, (status, body), clock(), forced=forced)


def _apply_kept(
    store: Store, slot: Slot, item: Item, kept: tuple[int, bytes], now: float, *, forced: bool = False
) -> Item:
    """Apply an answer and empty the slot, except when the store could not be written: then the answer stays."""
    try:
        item = apply(store, item, *kept, now, forced=forced)
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
        claims = _object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    expires = _number(claims.get("exp")) if claims is not None else 0.0
    return expires if 0 < expires < 1e11 else None


def _item(store: Store, slot: Slot) -> Item:
    item = store.get(KIND, slot.scope, slot.name)
    if item is None or item.meta.get("auth") != "oauth":
        raise RefreshError(f"The scope {slot.scope} has no login for {slot.name}.", code=Exit.NOT_FOUND)
    return item


def _code(body: bytes) -> str:
    """The known error code in an error's body; empty when there is none (RFC 6749, 5.2; some nest it in an object)."""
    error = (_object(body) or {}).get("error")
    if isinstance(error, dict):
        named = (error.get(key) for key in ("code", "type"))
        error = next((code for code in named if isinstance(code, str) and code in KNOWN_CODES), "")
    return error if isinstance(error, str) and error in KNOWN_CODES else ""


def _refusal(status: int, fields: dict[str, object] | None) -> str:
    code = _code(json.dumps({"error": fields.get("error")}).encode()) if fields else ""
    if code in LOST_CODES:
        return f"The login has ended: the token endpoint refused the refresh token ({status} {code})."
    return f"The token endpoint refused to refresh the login ({status}{' ' + code if code else ''})."


def login_command(entry: Entry | Item) -> str:
    """The command that brings a new login, after logging in with the vendor's own program on this machine."""
    agent = {"anthropic": "claude", "openai": "codex"}.get(entry.name)
    scope = entry.scope
    if agent:
        return paste.command("terok", "auth", agent, "--scope", scope, "--import", "--replace")
    return paste.command("terok", "vault", "rotate", scope, entry.name)
