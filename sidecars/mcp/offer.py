"""What a server offers, and what the operator has accepted of it; pure.

The texts of tools become part of a model's prompt, so they are code. The operator accepts them once, word by word;
agents only ever see the accepted texts. A tool whose text is another one now is not offered, nor called, until the
operator accepts the new one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from json import dumps

from .jsonrpc import Object, Plain, text

TOOLS_MAX = 256
TEXT_MAX = 64 << 10
"""Bytes of one tool, and of the instructions."""
NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
SHOWN = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""What agents get of a tool; everything else that a server says is dropped."""


class BadOffer(Exception):
    """A server's answer is not what MCP says; the message is one sentence."""


@dataclass(frozen=True)
class Offer:
    """A server's instructions, and its tools by name."""

    instructions: str = ""
    tools: dict[str, Object] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over everything in it."""
        return sha256(text([self.instructions, list(self.tools.values())])).hexdigest()


def instructions_of(result: Plain) -> str:
    """The instructions in a server's answer to `initialize`; raises BadOffer."""
    words = result.get("instructions", "") if isinstance(result, dict) else ""
    if not isinstance(words, str) or len(words) > TEXT_MAX:
        raise BadOffer("The server's instructions are no text of a usable length.")
    return words


def page_of(result: Plain) -> tuple[dict[str, Object], str | None]:
    """The tools of one answer to `tools/list`, and the cursor of the next page.

    Raises:
        BadOffer: the answer is not what MCP says, or too large.
    """
    if not isinstance(result, dict) or not isinstance(result.get("tools"), list):
        raise BadOffer("The server's answer to tools/list is no list of tools.")
    tools: dict[str, Object] = {}
    listed = result["tools"]
    for tool in listed if isinstance(listed, list) else []:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(tool, dict) or not isinstance(name, str) or not NAME.fullmatch(name):
            raise BadOffer("The server lists a tool without a usable name.")
        if name in tools:
            raise BadOffer(f"The server lists the tool {name} twice.")
        shown = {key: tool[key] for key in SHOWN if key in tool}
        if not isinstance(shown.get("inputSchema"), dict) or not isinstance(shown.get("description", ""), str):
            raise BadOffer(f"The tool {name} has no input schema, or a description that is no text.")
        if len(text(shown)) > TEXT_MAX:
            raise BadOffer(f"The tool {name} has a text of more than {TEXT_MAX >> 10} KiB.")
        tools[name] = shown
    cursor = result.get("nextCursor")
    if cursor is not None and (not isinstance(cursor, str) or len(cursor) > 1000):
        raise BadOffer("The server's answer to tools/list has no usable cursor.")
    return tools, cursor


def merged(known: dict[str, Object], page: dict[str, Object]) -> dict[str, Object]:
    """The tools of several pages; raises BadOffer for too many, and for a name on two pages."""
    if known.keys() & page.keys() or len(known) + len(page) > TOOLS_MAX:
        raise BadOffer(f"The server lists a tool twice, or more than {TOOLS_MAX} tools.")
    return {**known, **page}


def allowed(accepted: Offer, current: dict[str, Object], chosen: tuple[str, ...] | None) -> dict[str, Object]:
    """The tools that agents may use: chosen, accepted, and still with the accepted text.

    Args:
        accepted: what the operator accepted.
        current: what the server says now.
        chosen: the operator's choice; None: all that were accepted.
    """
    return {
        name: tool
        for name, tool in accepted.tools.items()
        if (chosen is None or name in chosen) and current.get(name) == tool
    }


def difference(accepted: Offer, current: Offer) -> list[str]:
    """What the operator has to look at, as lines of a diff; empty when everything is as accepted."""
    from difflib import unified_diff  # for the operator's verbs alone

    before, after = _lines(accepted), _lines(current)
    return list(unified_diff(before, after, "accepted", "offered now", lineterm=""))


def _lines(offer: Offer) -> list[str]:
    lines = [f"instructions: {line}" for line in offer.instructions.splitlines()]
    for name in sorted(offer.tools):
        tool = offer.tools[name]
        lines.append(f"tool {name}")
        for key in SHOWN[1:]:
            if key in tool:
                value = tool[key]
                words = value if isinstance(value, str) else dumps(value, indent=1, sort_keys=True)
                lines += [f"  {key}: {line}" for line in words.splitlines() or [""]]
    return lines
