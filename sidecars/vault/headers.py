"""Which headers cross the vault.

Rules of this file:
- nothing that a client sent as a credential goes upstream, whatever it was;
- hop-by-hop headers end here (RFC 9110, section 7.6.1), the ones that Connection names among them;
- everything else crosses as it came, in its order and spelling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..kit.codec import Answer, Header, Request, connection_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    class Auth(Protocol):
        """What is put into requests (`inject.Auth`), as far as headers care."""

        @property
        def names(self) -> frozenset[bytes]: ...
        @property
        def merge(self) -> Mapping[bytes, tuple[bytes, bytes]]: ...


HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
COOKIES = frozenset((b"cookie", b"cookie2"))
CLIENT_AUTH = COOKIES | frozenset(
    (b"authorization", b"proxy-authorization", b"x-authorization", b"x-forwarded-authorization", b"authentication")
    + (b"x-api-key", b"api-key", b"apikey", b"x-apikey", b"x-api-token", b"x-goog-api-key", b"x-auth-key", b"x-auth")
    + (b"private-token", b"job-token", b"deploy-token", b"x-auth-token", b"x-access-token", b"x-gitlab-token")
    + (b"x-amz-security-token", b"x-token", b"x-private-token", b"x-github-token", b"x-original-authorization")
)
"""Headers in which clients carry credentials; none of them goes upstream as the client wrote it."""

OVERRIDES = frozenset(
    (b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-method")
    + (b"x-original-url", b"x-rewrite-url", b"x-original-uri", b"x-forwarded-uri", b"x-forwarded-prefix")
)
"""Headers by which some servers take another method or path than the request line's, which is what was judged."""
_ALSO_OURS = frozenset((b"host", b"content-length", b"forwarded", b"via", b"x-real-ip"))
_ALWAYS_DROPPED = HOP_BY_HOP | _ALSO_OURS | OVERRIDES | {b"sec-websocket-extensions", b"accept-encoding"}
_REQUEST_DROPS = _ALWAYS_DROPPED | CLIENT_AUTH
_ANSWER_DROPS = HOP_BY_HOP | {b"content-length", b"proxy-authenticate", b"set-cookie", b"set-cookie2", b"alt-svc"}
_TRAILER_DROPS = (
    HOP_BY_HOP
    | CLIENT_AUTH
    | _ALSO_OURS
    | {b"set-cookie", b"content-encoding", b"content-type", b"content-range", b"expect"}
)
_PLAIN_CONNECTION = (b"close", b"keep-alive")
_CODINGS = (b"gzip", b"x-gzip", b"deflate", b"identity")
"""Content codings that the echo guard and the usage counter can read (RFC 9110, section 8.4.1)."""


def plain_name(lower: bytes) -> bytes:
    """A lower-case header name as CGI and its heirs read it, which take `_` for `-` (RFC 3875, section 4.1.18)."""
    return lower.replace(b"_", b"-") if b"_" in lower else lower


def nominated(headers: Iterable[Header]) -> frozenset[bytes]:
    """Header names that a Connection header makes hop-by-hop."""
    named: set[bytes] = set()
    for lower, _, value, _ in headers:
        if lower == b"connection":
            named.update(connection_options(value))
    return frozenset(named)


def request_lines(request: Request, places: frozenset[bytes], auth: Auth | None, *, own: bool = False) -> bytes:
    """The header lines of a request that cross the vault, each with its CRLF; Host and framing are the caller's.

    Args:
        request: the client's.
        places: header names in which clients put tokens, besides `CLIENT_AUTH`; they do not cross.
        auth: what it sets replaces what the client sent under that name, and follows these lines; None: no credential
            is put in.
        own: the client's own credentials cross.
    """
    drops = _ALWAYS_DROPPED | {b"proxy-authorization"} if own else _REQUEST_DROPS | places
    merge: dict[bytes, tuple[bytes, bytes]] = {}
    if auth is not None:
        drops, merge = drops | auth.names, dict(auth.merge)
    lines: list[bytes] = []
    named: frozenset[bytes] = frozenset()
    for lower, name, value, line in request.headers:
        if plain_name(lower) in drops:
            if lower == b"accept-encoding":
                lines.append(b"%b: %b\r\n" % (name, readable_codings(value)))
            elif lower == b"connection" and value.lower() not in _PLAIN_CONNECTION:
                named = nominated(request.headers)
        elif lower in merge:
            lines.append(b"%b: %b\r\n" % (name, merge_list(value, merge.pop(lower)[1])))
        else:
            lines.append(line)
    if named:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
    lines += [b"%b: %b\r\n" % pair for pair in merge.values()]
    return b"".join(lines)


def merge_list(theirs: bytes, ours: bytes) -> bytes:
    """Two comma-separated lists as one, without doubles."""
    items = [item.strip() for item in theirs.split(b",") if item.strip()]
    items += [item.strip() for item in ours.split(b",") if item.strip() not in items]
    return b",".join(items)


def readable_codings(accept_encoding: bytes) -> bytes:
    """What is left of an Accept-Encoding when only codings that we can look into remain; `identity` when none does."""
    kept = [item.strip() for item in accept_encoding.split(b",") if item.partition(b";")[0].strip().lower() in _CODINGS]
    return b", ".join(kept) or b"identity"


def readable(content_encoding: bytes) -> bool:
    """Whether a body in this content coding can be looked into."""
    return content_encoding.strip().lower() in (*_CODINGS, b"")


def answer_lines(answer: Answer) -> bytes:
    """The header lines of an answer that cross the vault, each with its CRLF; framing is the caller's."""
    if answer.crossing is not None:
        return answer.crossing
    named: frozenset[bytes] = frozenset()
    lines = []
    for lower, _, value, line in answer.headers:
        if lower not in _ANSWER_DROPS:
            lines.append(line)
        elif lower == b"connection" and value.lower() not in _PLAIN_CONNECTION:
            named = nominated(answer.headers)
    if named:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
    answer.crossing = b"".join(lines)
    return answer.crossing


def trailer_lines(trailers: Iterable[Header]) -> bytes:
    """Trailers that may follow a body (RFC 9110, section 6.5.1), each line with its CRLF."""
    return b"".join(line for lower, _, _, line in trailers if lower not in _TRAILER_DROPS)
