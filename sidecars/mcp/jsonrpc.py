"""JSON-RPC 2.0 messages, strictly: bytes in, typed messages out, no I/O.

Rules of this file:
- both sides are hostile: a message is read in one way or not at all. Names that occur twice, numbers that JSON does not
  have, and deep nesting are refused;
- what is sent is written again from what was read and judged, never the bytes that came;
- a message is one line: JSON has no raw line break, so the framing of stdio servers cannot be broken from inside.
"""

from __future__ import annotations

import json
from typing import NamedTuple, TypeAlias

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"
Object: TypeAlias = "dict[str, Plain]"
Id: TypeAlias = "str | int"

DEPTH_MAX = 64
METHOD_MAX, ID_MAX = 100, 200
"""Characters of a method's name and of an id that is a string."""

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
"""Codes of JSON-RPC 2.0, section 5.1."""


class BadMessage(Exception):
    """Bytes that are no message; `code` is JSON-RPC's."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


class Call(NamedTuple):
    """A request, or a notification when `id` is None."""

    id: Id | None
    method: str
    params: Object


class Reply(NamedTuple):
    """A response: `result`, or `error` when that is not None."""

    id: Id
    result: Plain
    error: Object | None


def read(data: bytes) -> Call | Reply:
    """One message.

    Raises:
        BadMessage: it is none, or one that two readers could understand differently.
    """
    document = parse(data)
    if isinstance(document, list):
        raise BadMessage(INVALID_REQUEST, "batches are not supported")
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
        raise BadMessage(INVALID_REQUEST, "this is no message of JSON-RPC 2.0")
    number = _id(document) if "id" in document else None
    if "method" in document:
        method, params = document["method"], document.get("params", {})
        if not isinstance(method, str) or len(method) > METHOD_MAX or not isinstance(params, dict):
            raise BadMessage(INVALID_REQUEST, "the method is no name, or its parameters are no object")
        if "result" in document or "error" in document:
            raise BadMessage(INVALID_REQUEST, "the message is a request and a response")
        return Call(number, method, params)
    if number is None or ("result" in document) == ("error" in document):
        raise BadMessage(INVALID_REQUEST, "the message is neither a request nor a response")
    error = document.get("error")
    if "error" in document and not isinstance(error, dict):
        raise BadMessage(INVALID_REQUEST, "the error is no object")
    return Reply(number, document.get("result"), error if isinstance(error, dict) else None)


def parse(data: bytes) -> Plain:
    """One JSON document (RFC 8259).

    Raises:
        BadMessage: it is none, names a member twice, or is nested too deeply.
    """
    try:
        document: Plain = json.loads(data.decode(), object_pairs_hook=_members, parse_constant=_constant)
    except (ValueError, RecursionError, MemoryError) as error:  # small text can stand for many objects
        raise BadMessage(PARSE_ERROR, "the message is not valid JSON") from error
    if depth(document) > DEPTH_MAX:
        raise BadMessage(PARSE_ERROR, "the message is nested too deeply")
    return document


def _members(pairs: list[tuple[str, Plain]]) -> Object:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _constant(word: str) -> Plain:
    raise ValueError(f"{word} is not JSON")


def depth(document: Plain) -> int:
    """How deeply lists and objects are nested; 0 for a single value."""
    levels, level = 0, [document]
    while level := [part for value in level if isinstance(value, dict | list) for part in _parts(value)]:
        levels += 1
        if levels > DEPTH_MAX:
            break
    return levels


def _parts(value: Plain) -> list[Plain]:
    if isinstance(value, dict):
        return list(value.values()) or [None]
    return value or [None] if isinstance(value, list) else []


def _id(document: Object) -> Id:
    number = document["id"]
    if isinstance(number, bool) or not isinstance(number, str | int):
        raise BadMessage(INVALID_REQUEST, "the id is neither a string nor a whole number")
    if len(str(number)) > ID_MAX:
        raise BadMessage(INVALID_REQUEST, "the id is too long")
    return number


def text(document: Plain) -> bytes:
    """A document as one line of ASCII, without the line's end; canonical: equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def call(number: Id | None, method: str, params: Object) -> bytes:
    """A request, or a notification without a number, as one line."""
    message: Object = {"jsonrpc": "2.0", "method": method, "params": params}
    return text(message if number is None else {**message, "id": number})


def result(number: Id, value: Plain) -> bytes:
    """A response that carries a result."""
    return text({"jsonrpc": "2.0", "id": number, "result": value})


def error(number: Id | None, code: int, message: str) -> bytes:
    """A response that carries an error."""
    return text({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}})
