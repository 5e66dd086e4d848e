"""Texts that a forge carries out: a comment with a line `/merge` merges (GitLab's quick actions). Pure.

Which commands there are grows with the forge, so no text with a line that looks like one is passed on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl

_COMMAND = re.compile(r"/[A-Za-z_]+(?:\s|$)")
_FORM = "application/x-www-form-urlencoded"


def refuses(content_type: bytes, query: bytes, body: bytes) -> str:
    """Why a request that writes texts is refused; empty when none of its texts has a command in it.

    Args:
        content_type: of the body; empty: not said.
        query: as it is sent: parameters count there too.
        body: the whole of it.
    """
    kind = content_type.partition(b";")[0].strip().lower().decode("ascii", "replace")
    try:
        texts = [*_form(query), *(_form(body) if kind == _FORM else _texts(_json(body)) if body.strip() else ())]
    except (ValueError, RecursionError):
        return "A body that is neither JSON nor a form cannot be searched for quick actions"
    if any(_COMMAND.match(line.strip()) for text in texts for line in text.splitlines()):
        return "A line that begins with `/` is a quick action, which may change branches and tags"
    return ""


def _form(data: bytes) -> list[str]:
    pairs = parse_qsl(data.replace(b";", b"&").decode("utf-8"), keep_blank_values=True, errors="strict")
    return [text for pair in pairs for text in pair]


def _json(body: bytes) -> object:
    document: object = json.loads(body.decode("utf-8"), object_pairs_hook=list)
    return document


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON document, doubled members among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _texts(member)
