"""Changes one key of a configuration file and leaves comments, order and spelling of its text as they are."""

from __future__ import annotations

import json
import os

import yaml

from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import Layout
from . import config_file, files
from .config import kinds


def change(layout: Layout, name: str, value: object) -> None:
    """Set a key in `config.yml`; the new file is checked as a whole before it replaces the old one.

    Args:
        layout: where the file is.
        name: the key's dotted name.
        value: as YAML reads it; it fits the key (`config_file.check`).

    Raises:
        TerokError: the file is wrong already, or is written in a style that cannot be edited safely.
    """
    path = layout.config_file
    try:
        with open(path, encoding="utf-8") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    old = config_file.parse(before, path, kinds())
    after = put(before, name, flow(value))
    try:
        new = config_file.parse(after, path, kinds())
    except TerokError:
        new = {}
    if new != {**old, name: config_file.check(kinds()[name], value)}:
        raise TerokError(f"{path} cannot be edited safely.", fix=f"set {name} in this file yourself")
    os.makedirs(layout.config, mode=0o700, exist_ok=True)
    files.write(os.path.realpath(path), after, sync=True)


def flow(value: object) -> str:
    """One value in YAML's flow style; JSON is a subset of it, and words need no quotes where YAML reads them back."""
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)


def put(text: str, name: str, value: str) -> str:
    """The text with a key set.

    Args:
        text: a configuration file that parses.
        name: the key's dotted name.
        value: its value, as YAML in flow style.

    The caller parses the result again: a file in a style that this does not understand is not to be written.
    """
    section, _, key = name.partition(".")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    body = _find(root, section)
    if body is None:
        return _append(text, root, f"{section}:\n  {key}: {value}\n")
    place = _find(body, key)
    if place is not None:
        start, end = place.start_mark.index, place.end_mark.index
        if isinstance(place, yaml.CollectionNode) and not place.flow_style:
            # a block list begins on the line after its key and ends where the next key does
            return text[:start].rstrip() + " " + value + text[start + len(text[start:end].rstrip()) :]
        return text[:start] + (" " if start and text[start - 1] == ":" else "") + value + text[end:]
    if isinstance(body, yaml.MappingNode) and body.value:
        first = body.value[0][0].start_mark
        if body.flow_style:
            return text[: first.index] + f"{key}: {value}, " + text[first.index :]
        return text[: first.index] + f"{key}: {value}\n{' ' * first.column}" + text[first.index :]
    return text[: body.start_mark.index].rstrip(" ") + f"\n  {key}: {value}" + text[body.end_mark.index :]


def _find(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _append(text: str, root: yaml.Node | None, lines: str) -> str:
    if isinstance(root, yaml.MappingNode) and root.flow_style:
        return text  # one line of braces: the caller sees that nothing changed and says so
    return text + ("" if not text or text.endswith("\n") else "\n") + lines
