"""Answers that a sidecar gives of its own accord: a head from a status and fields, or a whole small answer."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


def head(status: int, fields: Mapping[str, str]) -> bytes:
    """The head of an answer, its empty line included."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {fields[name]}" for name in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def answer(
    status: int, body: bytes, content_type: str, *, close: bool, fields: Mapping[str, str] | None = None
) -> bytes:
    """A whole answer; `fields` are sent besides those of the body and the connection."""
    named = {"Content-Type": content_type, "Content-Length": str(len(body)), **(fields or {})}
    return head(status, {**named, "Connection": "close"} if close else named) + body
