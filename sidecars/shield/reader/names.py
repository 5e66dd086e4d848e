"""Reads dnsmasq's query log. Pure: lines in, events and the names of addresses out; the container chose the names.

dnsmasq prints a name that has unprintable bytes as `<name unprintable>`, but spaces and quotes come through, so a
line is read from its fixed words at both ends, never split in the middle.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

NAMES_MAX = 4096
"""Addresses whose names are remembered; the least recently taught one goes first."""
LINE_MAX = 2048
_NAME_MAX = 253

_LINE = re.compile(r"^(?:\w{3} [ \d]\d \d\d:\d\d:\d\d )?dnsmasq(?:\[\d+\])?: (.*)$")
_QUERY = re.compile(r"^query\[([^\]]{1,20})\] (.*) from \S+$")
_ANSWER = re.compile(r"^(reply|config|cached) (.*) is (.*)$")
_QUIET = ("forwarded ", "nftset add ", "reply ", "config ", "cached ", "query[", "dnssec-query[", "validation ")


class Refused(NamedTuple):
    """A question for a name that is not allowed: name and record type."""

    name: str
    kind: str


class Names:
    """What the container asked for, and which name taught which address."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, str] = OrderedDict()
        self._kind = ""
        self._asked = ""
        self._alias = False
        self._rest = b""

    def name_of(self, address: str) -> str | None:
        """The name that was asked for when `address` was the answer; None when no answer taught it."""
        return self._of.get(address)

    def feed(self, data: bytes) -> tuple[list[Refused], list[str]]:
        """Take in bytes of the log; returns what was refused, and lines about dnsmasq itself (warnings, errors)."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= LINE_MAX else b""
        refused: list[Refused] = []
        other: list[str] = []
        for raw in lines:
            match = _LINE.match(raw[:LINE_MAX].decode("utf-8", "replace"))
            if match is None:
                continue
            event = self._line(match.group(1))
            if event is not None:
                refused.append(event)
            elif not match.group(1).startswith(_QUIET):
                other.append(match.group(1))
        return refused, other

    def _line(self, text: str) -> Refused | None:
        query = _QUERY.match(text)
        if query is not None:
            self._kind, self._asked, self._alias = query.group(1), query.group(2)[:_NAME_MAX], False
            return None
        answer = _ANSWER.match(text)
        if answer is None:
            return None
        source, name, value = answer.group(1), answer.group(2)[:_NAME_MAX], answer.group(3)
        if source == "config" and value == "NXDOMAIN":
            return Refused(name, self._kind if name == self._asked else "?")
        if value == "<CNAME>":
            if not self._alias:
                self._asked, self._alias = name, True
        elif value[:1].isdigit() or ":" in value:
            self._teach(value, self._asked if self._alias else name)
        return None

    def _teach(self, address: str, name: str) -> None:
        self._of[address] = name
        self._of.move_to_end(address)
        if len(self._of) > NAMES_MAX:
            self._of.popitem(last=False)
