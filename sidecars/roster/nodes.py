"""The values of a roster file: every refusal names the file, the line and the key.

A `Node` wraps a node of the tree that `kit/strict_yaml.py` makes, which knows its place in the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from ...supervisor.ground.errors import Exit, TerokError
from ..kit import strict_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import NoReturn, TypeVar

    T = TypeVar("T")


class RosterError(TerokError):
    """A roster file is wrong; the message begins with `FILE:LINE:`."""

    def __init__(self, what: str) -> None:
        super().__init__(what, fix="correct the file, then: terok vault routes", code=Exit.USAGE)


def read(path: str) -> Node:
    """The document of a YAML file.

    Raises:
        RosterError: the file cannot be read, is too large, empty, or not one YAML document.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(strict_yaml.SIZE_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RosterError(f"{path}:1: the file could not be read: {error}") from error
    try:
        tree = strict_yaml.compose(text)
    except strict_yaml.YamlError as error:
        raise RosterError(f"{path}:{error.line}: {error.problem}") from error
    if tree is None:
        raise RosterError(f"{path}:1: the file is empty")
    return Node(tree, path, "")


class Node:
    """One value in a YAML file.

    Args:
        node: PyYAML's node.
        file: its file, for messages.
        key: the dotted path of keys that leads to it; empty for the document.
    """

    def __init__(self, node: yaml.Node, file: str, key: str) -> None:
        self.node, self.file, self.key = node, file, key

    def __repr__(self) -> str:
        return f"Node({self.place})"

    @property
    def place(self) -> str:
        """`FILE:LINE: KEY`, for messages."""
        line = self.node.start_mark.line + 1
        return f"{self.file}:{line}: {self.key}" if self.key else f"{self.file}:{line}"

    def fail(self, problem: str) -> NoReturn:
        """Raise a RosterError about this value."""
        raise RosterError(f"{self.place}: {problem}")

    def members(self) -> dict[str, Node]:
        """The members of a mapping whose keys are free names."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail("a mapping (key: value) is wanted here")
        try:
            return {
                name: Node(value, self.file, f"{self.key}.{name}" if self.key else name)
                for name, _, value in strict_yaml.members(self.node)
            }
        except strict_yaml.YamlError as error:
            raise RosterError(f"{self.file}:{error.line}: {error.problem}") from error

    def fields(self, known: Collection[str], required: Collection[str] = ()) -> dict[str, Node]:
        """The members of a mapping whose keys are fixed.

        Args:
            known: every key that may stand there.
            required: those that must.
        """
        members = self.members()
        for name, child in members.items():
            if name not in known:
                child.fail(f"there is no such key; known here: {', '.join(sorted(known))}")
        for name in required:
            if name not in members:
                self.fail(f"the key {name} is missing")
        return members

    def items(self) -> list[Node]:
        """The members of a sequence."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail("a list is wanted here")
        return [Node(item, self.file, f"{self.key}[{index}]") for index, item in enumerate(self.node.value)]

    def text(self, pattern: str | None = None, what: str = "") -> str:
        """A scalar as it was written (`2fa` and `1.10` stay text).

        Args:
            pattern: regular expression that the whole text must match.
            what: what is wanted, for the message.
        """
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag == "tag:yaml.org,2002:null":
            self.fail(f"{what or 'a text'} is wanted here")
        value = str(self.node.value)
        if any("\ud800" <= character <= "\udfff" for character in value):
            self.fail("half of a surrogate pair is no character")
        if pattern is not None and not re.fullmatch(pattern, value):
            self.fail(f"{value[:60]!r} is not {what or 'usable here'}")
        return value

    def choice(self, words: Collection[str]) -> str:
        """One of some words."""
        value = self.text()
        if value not in words:
            self.fail(f"{value[:60]!r} is none of: {', '.join(words)}")
        return value

    def boolean(self) -> bool:
        """true or false."""
        if self.node.tag != "tag:yaml.org,2002:bool":
            self.fail("true or false is wanted here")
        return str(self.node.value).lower() in ("true", "yes", "on")

    def integer(self, low: int, high: int) -> int:
        """A decimal number between two bounds, both included."""
        value = self.text()
        if not re.fullmatch(r"[0-9]{1,12}", value) or not low <= int(value) <= high:
            self.fail(f"a number from {low} to {high} is wanted here")
        return int(value)

    def texts(self, pattern: str | None = None, what: str = "") -> list[str]:
        """A list of texts."""
        return [item.text(pattern, what) for item in self.items()]

    def table(self, read: Callable[[Node], T]) -> dict[str, T]:
        """A mapping with free names, each value read by `read`."""
        return {name: read(member) for name, member in self.members().items()}
