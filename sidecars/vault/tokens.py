"""Which phantom token a request carries, and that it carries no other credential. Pure.

Rules of this file:
- names are compared as servers read them: escapes decoded, without case, `_` as `-` in headers;
- a place for credentials holds this container's token, or the request is refused: what another credential in it
  would do upstream cannot be known here, and an allowed host would be a way out;
- cookies are the exception: they are dropped unread (`headers.request_lines`), since no answer ever sets one.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ..kit.codec import Header, Request
from ..kit.refusal import Refusal
from ..store.light import sha256
from .headers import COOKIES, plain_name

_SCHEMES = (b"bearer", b"token")
_SUBPROTOCOL = re.compile(rb"(?i)(?:api-?key|organization|project|authorization|bearer|token)\.")
"""Browsers' WebSocket clients put credentials into the list of subprotocols: `openai-insecure-api-key.sk-...`."""
_METHOD_NAMES = frozenset((b"_method", b"x-http-method-override", b"x-http-method", b"$httpmethod"))


class Grant(NamedTuple):
    """What a phantom token stands for in this container."""

    scope: str
    provider: str


class Places(NamedTuple):
    """Where clients may put a token: header names and query parameters, in lower case."""

    headers: frozenset[bytes]
    query: frozenset[bytes]


Lookup = Callable[[bytes], Grant | None]
"""From the SHA-256 of a token to what it stands for."""


class Found(NamedTuple):
    """The token's grant, and the places whose content is not a token of that grant."""

    grant: Grant
    foreign: tuple[str, ...]


class Seen(NamedTuple):
    """What the places of a request hold.

    Attributes:
        grant: what the token stands for; None: no token of this container is there.
        foreign: the places whose content is not a token of that grant.
        tokens: whether anything that looks like a token is there.
    """

    grant: Grant | None
    foreign: tuple[str, ...]
    tokens: bool


def look(request: Request, query: bytes, places: Places, lookup: Lookup) -> Seen | Refusal:
    """Look at every place; a refusal when there are tokens of two grants."""
    grant: Grant | None = None
    foreign: list[str] = []
    seen = False
    for place, tokens in _contents(request.headers, query, places):
        grants = {known for token in tokens if (known := lookup(sha256(token).digest())) is not None}
        if grant is not None:
            grants.add(grant)
        if len(grants) > 1:
            why = "The request carries tokens of two providers."
            first = min(grants)
            return Refusal(401, "two-tokens", why, "send one token", first.provider, first.scope)
        if not grants or not any(lookup(sha256(token).digest()) for token in tokens):
            foreign.append(place)
        seen = seen or bool(tokens)
        grant = next(iter(grants), None)
    return Seen(grant, tuple(foreign), seen)


def find(request: Request, query: bytes, places: Places, lookup: Lookup) -> Found | Refusal:
    """The one grant whose token the request carries."""
    seen = look(request, query, places, lookup)
    if isinstance(seen, Refusal):
        return seen
    if seen.grant is not None:
        return Found(seen.grant, seen.foreign)
    if seen.tokens:
        return Refusal(
            401,
            "unknown-token",
            "The token is not one of this container's.",
            "use the phantom token that terok gave this container; real keys are not accepted here",
        )
    return Refusal(401, "no-token", "The request carries no token.", "send the container's phantom token")


def _contents(headers: Iterable[Header], query: bytes, places: Places) -> Iterator[tuple[str, list[bytes]]]:
    """Every place that is not empty, as a person would name it, and what in it may be a token."""
    for lower, name, value, _ in headers:
        if value and plain_name(lower) in places.headers:
            yield f"the header {name.decode('ascii')}", list(candidates(value))
        elif lower == b"sec-websocket-protocol" and _SUBPROTOCOL.search(value):
            yield f"the header {name.decode('ascii')}", []
    for part in query.split(b"&") if query and places.query else ():
        name, _, value = part.partition(b"=")
        if value and parameter_name(name) in places.query:
            yield f"the query parameter {parameter_name(name).decode('ascii', 'replace')}", [decoded(value), value]


def candidates(value: bytes) -> Iterator[bytes]:
    """What in a header's value may be a token."""
    scheme, space, rest = value.partition(b" ")
    if not space:
        yield value
    elif scheme.lower() in _SCHEMES:
        yield rest.strip(b" ")
    elif scheme.lower() == b"basic":
        yield from _basic(rest)


def _basic(value: bytes) -> Iterator[bytes]:
    try:
        user, _, password = a2b_base64(value).partition(b":")
    except Base64Error:
        return
    yield from (part for part in (password, user) if part)


def decoded(text: bytes) -> bytes:
    """A name or value of a query as servers read it."""
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text


def parameter_name(name: bytes) -> bytes:
    """A query parameter's name as servers compare it: decoded, without case, without `[]` behind it."""
    return decoded(name).strip().lower().partition(b"[")[0]


def strip_query(query: bytes, names: frozenset[bytes]) -> bytes:
    """The query without the parameters that carry tokens; untouched when there is none of them."""
    if not names:
        return query
    return b"&".join(part for part in query.split(b"&") if parameter_name(part.partition(b"=")[0]) not in names)


def refused_parameter(query: bytes, foreign: frozenset[bytes]) -> str:
    """The first parameter that carries another credential or method; empty when there is none.

    `query` is what would be sent. Some servers separate parameters by `;` too, so both readings are looked at.
    """
    if not query:
        return ""
    for part in query.replace(b";", b"&").split(b"&"):
        name = parameter_name(part.partition(b"=")[0])
        if name in foreign or name in _METHOD_NAMES:
            return name.decode("ascii", "replace")
    return ""


def refused_header(headers: Iterable[Header], foreign: frozenset[bytes]) -> str:
    """The first header by which another account would be selected; empty when there is none."""
    for lower, name, value, _ in headers:
        if value and plain_name(lower) in foreign and lower not in COOKIES:
            return name.decode("ascii")
    return ""
