"""What git says in a request's head: the shared codec's request, with the gate's own rules on top of it.

The target is split at its first `?` and nothing of it is decoded, so that a path has one spelling.
"""

from __future__ import annotations

import binascii
from typing import NamedTuple

from ...kit.codec import parse_request
from ...kit.refusal import Refused

HEAD_MAX = 16 << 10
TARGET_MAX = 2000
_MAY_REPEAT = ("accept-encoding", "accept-language")


class Request(NamedTuple):
    """The head of a request.

    method, path, query: of its first line.
    headers: names in lower case, each once.
    length: bytes of the body, or `codec.CHUNKED`.
    expects: the client waits for `100 Continue` before it sends the body.
    keep: the client wants the connection kept.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    length: int
    expects: bool
    keep: bool


def read_request(head: bytes) -> Request:
    """Read a request's head, its empty line included.

    Raises:
        Refused: with the status to answer.
    """
    parsed = parse_request(head)
    if parsed.minor != 1:
        raise Refused(505, "version", "The gate speaks HTTP/1.1.")
    if len(parsed.target) > TARGET_MAX:
        raise Refused(400, "target-size", f"A request's target may have {TARGET_MAX} bytes.")
    headers: dict[str, str] = {}
    for name, _, value, _ in parsed.headers:
        key = name.decode("ascii")
        if key not in headers:
            headers[key] = value.decode("latin-1")
        elif key not in _MAY_REPEAT:
            # two programs could each take another one of them
            raise Refused(400, "header-twice", f"The header field {key} is there twice.")
    path, _, query = parsed.target.decode("ascii").partition("?")
    return Request(parsed.method.decode("ascii"), path, query, headers, parsed.length, parsed.expects, parsed.keep)


def tokens(authorization: str) -> list[str]:
    """What may be the token in an Authorization field: a bearer token, or either half of Basic (RFC 7617).

    git puts the token where the URL has it, so it is the user name or the password.
    """
    scheme, _, value = authorization.partition(" ")
    value = value.strip(" ")
    if scheme.lower() == "bearer":
        return [value] if value else []
    if scheme.lower() != "basic":
        return []
    try:
        user, _, password = binascii.a2b_base64(value, strict_mode=True).decode("utf-8", "replace").partition(":")
    except (binascii.Error, ValueError):
        return []
    return [half for half in (user, password) if half]
