"""YAML read strictly, for every file that a person writes: what is wrong is refused with its line and column.

`yaml.safe_load` would lose the place of a value, take the last of two equal keys, and expand aliases without a bound.
"""

from __future__ import annotations

import yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from yaml._yaml import Mark as LibyamlMark

SIZE_MAX = 256 << 10
"""Characters of one file; those that terok reads have a few pages."""

DEPTH_MAX = 20
"""Levels of nesting; the bundled files have up to ten. libyaml composes recursively, so this is checked before."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: the same tree, ten times faster."""


class YamlError(Exception):
    """The text is not what is accepted.

    Args:
        problem: a clause for a message.
        line, column: the place, counted from 1.
    """

    def __init__(self, problem: str, line: int = 1, column: int = 1) -> None:
        super().__init__(problem)
        self.problem, self.line, self.column = problem, line, column


def compose(text: str) -> yaml.Node | None:
    """The tree of one document; None for an empty one.

    Raises:
        YamlError: not one YAML document, too large, nested too deep, or with an alias.
    """
    if len(text) > SIZE_MAX:
        raise YamlError(f"the file has more than {SIZE_MAX >> 10} KiB")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_MAX:
                raise _at(event.start_mark, f"more than {DEPTH_MAX} levels of nesting")
            if isinstance(event, yaml.AliasEvent):  # it could contain itself, or multiply what it names
                raise _at(event.start_mark, "aliases (*name) are not allowed")
        tree: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _at(error.problem_mark or error.context_mark, f"not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise YamlError(f"not YAML: {getattr(error, 'reason', error)}") from error
    return tree


def members(node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Key, key's node and value of each member of a mapping.

    Raises:
        YamlError: a key is not a scalar, or occurs twice.
    """
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _at(key.start_mark, "a key must be a word")
        if key.value in seen:
            raise _at(key.start_mark, f"the key {key.value[:60]!r} is given twice")
        seen.add(key.value)
        yield key.value, key, value


def _at(mark: yaml.Mark | LibyamlMark | None, problem: str) -> YamlError:
    return YamlError(problem, mark.line + 1, mark.column + 1) if mark is not None else YamlError(problem)
