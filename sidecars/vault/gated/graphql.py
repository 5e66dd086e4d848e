"""Whether a GraphQL request changes anything but what is known to be harmless. Pure.

A mutation may name its repository in variables or by a node's number, so mutations are judged by their names alone.
The request must be the plain one of GraphQL over HTTP; what a server may read in another way is refused. The grammar is
that of the GraphQL specification (October 2021, sections 2.1 and 2.2).
"""

from __future__ import annotations

import json
import re

_MEMBERS = frozenset(("query", "variables", "operationName"))
_TOKEN = re.compile(
    r"""(?P<skipped>[\ \t\r\n,\ufeff]+|\#[^\r\n]*)
    |(?P<string>\"\"\"(?:\\\"\"\"|(?!\\?\"\"\").)*\"\"\"|"(?:\\.|[^"\\\r\n])*")
    |(?P<name>[_A-Za-z][_0-9A-Za-z]*)
    |(?P<mark>\.\.\.|[!$&()\[\]{}:=@|]|-?[0-9][0-9.eE+-]*)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {")": "(", "]": "[", "}": "{"}
_OPENING = frozenset(_CLOSING.values())
_START = "\n"
"""No token: before the first and after the last."""


def refuses(content_type: bytes, body: bytes, harmless: frozenset[str]) -> str:
    """Why a request is refused; empty when it reads, or its mutations are all harmless.

    Args:
        content_type: of the body.
        body: the whole of it.
        harmless: names of mutations that may pass.
    """
    kind, _, parameters = content_type.partition(b";")
    charset = parameters.strip().lower().replace(b'"', b"")
    if kind.strip().lower() != b"application/json" or charset not in (b"", b"charset=utf-8"):
        return "A GraphQL request whose body is not plain JSON cannot be judged"
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return "The body of the GraphQL request is no JSON, or names a member twice"
    if (
        not isinstance(document, dict)
        or not _MEMBERS.issuperset(document)
        or not isinstance(document.get("query"), str)
    ):
        return "A GraphQL request with more than query, variables and operationName cannot be judged"
    names = mutations(document["query"])
    if names is None:
        return "The GraphQL document cannot be judged: write each mutation's name in it, without a fragment around it"
    worst = sorted(names - harmless)
    return f"The mutation {worst[0][:80]} may change branches or tags" if worst else ""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands there twice")
    return members


def mutations(text: str) -> frozenset[str] | None:
    """The names of every mutation in a document; None when they cannot be told."""
    tokens = _tokens(text)
    if tokens is None:
        return None
    names: set[str] = set()
    brackets: list[str] = []
    mutating, before = False, _START
    for token, following in zip(tokens, [*tokens[1:], _START], strict=True):
        if token in _CLOSING:
            if not brackets or brackets.pop() != _CLOSING[token]:
                return None
        elif not brackets and before in (_START, "}"):
            # a definition begins here; elsewhere the word may be a name: `fragment mutation on X`
            mutating = token == "mutation"
        elif mutating and brackets == ["{"]:
            if token == "...":
                return None
            if token.isidentifier() and following != ":" and before != "@":
                names.add(token)
        if token in _OPENING:
            brackets.append(token)
        before = token
    return None if brackets else frozenset(names)


def _tokens(text: str) -> list[str] | None:
    """Names and marks; a string is an empty one. None: a character stands there that no token begins with."""
    tokens: list[str] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            return None
        place = match.end()
        if match.lastgroup != "skipped":
            tokens.append("" if match.lastgroup == "string" else match[0])
    return tokens
