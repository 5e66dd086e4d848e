"""Reads `config.yml` strictly: every wrong thing is refused with its file, line and column."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn

import yaml

from ...sidecars.kit import strict_yaml
from ...sidecars.kit.proxy import egress
from ...supervisor.ground.errors import Exit, TerokError


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def _count(value: object) -> int:
    number = _whole(value)
    if number == 0:
        raise ValueError("a whole number, 1 or more")
    return number


def _word(value: object) -> str:
    if not isinstance(value, str) or not value or any(letter.isspace() for letter in value):
        raise ValueError("a word")
    return value


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError("a list of words")
    return tuple(_word(item) for item in value)


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value or re.search(r"(^|/)\.\.?(/|$)", value):
        raise ValueError("an absolute path without '.' and '..'")
    return value.rstrip("/") or "/"


def _ports(value: object) -> tuple[int, int]:
    expected = "[FIRST, LAST], two ports from 1024 to 65535 with at least three in the range"
    if not isinstance(value, list) or len(value) != 2 or not all(type(item) is int for item in value):
        raise ValueError(expected)
    first, last = value
    if not 1024 <= first <= last <= 65535 or last - first < 2:
        raise ValueError(expected)
    return first, last


def _proxy(value: object) -> str:
    egress.parse_url(_word(value))
    return str(value)


def _hosts(value: object) -> tuple[str, ...]:
    return tuple(egress.parse_rule(word) for word in _words(value))


KINDS: dict[str, Callable[[object], object]] = {
    "bool": _bool,
    "seconds": _whole,
    "count": _count,
    "word": _word,
    "words": _words,
    "path": _path,
    "ports": _ports,
    "proxy": _proxy,
    "hosts": _hosts,
}
"""What a key's value may be; `KIND?` also takes null. Each returns the checked value or raises ValueError(expected)."""


def check(kind: str, value: object) -> object:
    """The value as the configuration holds it; raises ValueError with what was expected."""
    if "|" in kind:
        choices = kind.split("|")
        if value not in choices:
            raise ValueError(" or ".join(choices))
        return value
    if kind.endswith("?"):
        return None if value is None else KINDS[kind[:-1]](value)
    return KINDS[kind](value)


def parse(text: str, path: str, kinds: Mapping[str, str]) -> dict[str, object]:
    """The values that a configuration file sets, by dotted name.

    Args:
        text: the file's content.
        path: the file's name, for messages.
        kinds: the kind of every key, by its dotted name (`config.kinds()`).

    Raises:
        TerokError: not YAML, not a mapping of sections, an unknown or repeated key, or a wrong value.
    """
    root = _compose(text, path)
    values: dict[str, object] = {}
    sections: dict[str, list[str]] = {}
    for dotted in kinds:
        section, _, name = dotted.partition(".")
        sections.setdefault(section, []).append(name)
    for section, body in _pairs(root, path, "", list(sections)):
        for name, node in _pairs(body, path, section + ".", sections[section]):
            dotted = f"{section}.{name}"
            try:
                values[dotted] = check(kinds[dotted], _plain(node))
            except ValueError as error:
                _refuse(path, node.start_mark, f"{dotted} must be {error}.")
    return values


def parse_flat(text: str, path: str, checks: Mapping[str, Callable[[object], object]]) -> dict[str, object]:
    """The values that a file without sections sets.

    Args:
        text, path: as in `parse`.
        checks: for every key what returns its checked value or raises ValueError(expected).

    Raises:
        TerokError: as `parse`.
    """
    values: dict[str, object] = {}
    for name, node in _pairs(_compose(text, path), path, "", list(checks)):
        try:
            values[name] = checks[name](_plain(node))
        except ValueError as error:
            _refuse(path, node.start_mark, f"{name} must be {error}.")
    return values


def _compose(text: str, path: str) -> yaml.Node | None:
    try:
        return strict_yaml.compose(text)
    except strict_yaml.YamlError as error:
        _refuse_yaml(path, error)


def _pairs(node: yaml.Node | None, path: str, prefix: str, allowed: list[str]) -> list[tuple[str, yaml.Node]]:
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"):
        return []
    if not isinstance(node, yaml.MappingNode):
        _refuse(path, node.start_mark, f"{prefix.rstrip('.') or 'the file'} must be a mapping of keys to values.")
    pairs = []
    try:
        for name, key, value in strict_yaml.members(node):
            if name not in allowed:
                _refuse(path, key.start_mark, f"unknown key {prefix}{name}.", nearest(name, allowed, prefix))
            pairs.append((name, value))
    except strict_yaml.YamlError as error:
        _refuse_yaml(path, error)
    return pairs


def _plain(node: yaml.Node) -> object:
    """The node as Python data; only what YAML's safe schema makes."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError("plain YAML") from error
    finally:
        loader.dispose()


def nearest(name: str, allowed: list[str], prefix: str = "") -> str:
    """A hint for a misspelt name: the nearest known one, else all of them."""
    from difflib import get_close_matches

    close = get_close_matches(name, allowed, n=1)
    return f"write {prefix}{close[0]}" if close else f"the keys here are {', '.join(allowed)}"


def _refuse(path: str, mark: yaml.Mark, what: str, fix: str = "") -> NoReturn:
    raise TerokError(f"{path}:{mark.line + 1}:{mark.column + 1}: {what}", fix=fix, code=Exit.USAGE)


def _refuse_yaml(path: str, error: strict_yaml.YamlError) -> NoReturn:
    raise TerokError(f"{path}:{error.line}:{error.column}: {error.problem}.", code=Exit.USAGE) from error
