"""What a key of a project file may be: each kind checks a value, and says the same as a JSON Schema.

Both come from one statement, so that an editor marks what terok would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...sidecars.shield import special, targets
from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import check_name


@dataclass(frozen=True)
class Kind:
    """One kind of value.

    Attributes:
        expected: what a value must be, as the end of a sentence.
        schema: the same as a JSON Schema (draft 2020-12).
        read: returns the checked value, in a form that can be hashed; raises ValueError.
    """

    expected: str
    schema: dict[str, object]
    read: Callable[[object], object]

    def check(self, value: object) -> object:
        """`read`, whose ValueError says what was expected."""
        try:
            return self.read(value)
        except ValueError as error:
            raise ValueError(str(error) or self.expected) from None


def text(expected: str, pattern: str, check: Callable[[str], object] | None = None) -> Kind:
    """A string.

    Args:
        expected: as in `Kind`.
        pattern: a regular expression that means the same to Python and to ECMAScript; it covers the whole string.
        check: what a pattern can't say; raises TerokError or ValueError.
    """

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError
        if check is not None:
            try:
                check(value)
            except TerokError as error:
                raise ValueError(f"{expected} ({error.what})") from None
        return value

    return Kind(expected, {"type": "string", "pattern": f"^(?:{pattern})$"}, read)


def boolean() -> Kind:
    """true or false."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return Kind("true or false", {"type": "boolean"}, read)


def count() -> Kind:
    """A whole number, at least 1."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError
        return value

    return Kind("a whole number, 1 or more", {"type": "integer", "minimum": 1}, read)


def one_of(words: Sequence[str]) -> Kind:
    """One of these words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return value

    return Kind(" or ".join(words), {"enum": list(words)}, read)


def list_of(kind: Kind, most: int = 200) -> Kind:
    """A list of at most `most` values of a kind."""
    expected = f"a list of at most {most} entries, each {kind.expected}"

    def read(value: object) -> tuple[object, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError
        return tuple(kind.check(entry) for entry in value)

    return Kind(expected, {"type": "array", "maxItems": most, "items": kind.schema}, read)


def variables() -> Kind:
    """Environment variables: names to texts."""
    name = r"[A-Za-z_][A-Za-z0-9_]*"
    expected = "a mapping of environment variables to texts of one line"

    def read(value: object) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, dict):
            raise ValueError
        for key, content in value.items():
            if not isinstance(key, str) or not re.fullmatch(name, key, re.ASCII):
                raise ValueError
            if key.startswith("TEROK_"):
                raise ValueError(f"{expected}; {key} is terok's own")
            if not isinstance(content, str) or re.search(r"[\x00\r\n]", content):
                raise ValueError
        return tuple(value.items())

    schema: dict[str, object] = {
        "type": "object",
        "propertyNames": {"pattern": f"^(?!TEROK_){name}$"},
        "additionalProperties": {"type": "string", "pattern": r"^[^\r\n]*$"},
    }
    return Kind(expected, schema, read)


NAME = text("a name of letters, digits, '_', '.' and '-'", r"[A-Za-z0-9][A-Za-z0-9_.-]*", check_name)
IMAGE = text("an image's name", r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
MEMORY = text("an amount in podman's notation, for example 2g", r"[1-9][0-9]*[bkmgBKMG]?")
INSIDE = text("a path below the project, without '..'", r"(?!/)(?!.*(?:^|/)\.\.?(?:/|$))[^\x00-\x1f:]+")
TARGET = text(
    "a target such as api.example.com, *.example.com or 192.0.2.7:22",
    r"[^\s#]+",
    lambda value: special.check_allowed(targets.parse(value)),
)
PUBLISHED = text(
    "[ADDRESS:][PORT:]PORT[/udp]", r"(?:(?:[0-9.]+|\[[0-9a-fA-F:]+\]):)?(?:[0-9]*:)?[0-9]{1,5}(?:/(?:tcp|udp))?"
)
MOUNT = text(
    "DIR:PATH or DIR:PATH:ro, with PATH absolute",
    r"[^\x00-\x1f:]+:/[^\x00-\x1f:]*(?::(?:ro|rw))?",
)
