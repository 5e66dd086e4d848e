"""Changes one key in the text of a configuration file and leaves comments, order and spelling as they are."""

from __future__ import annotations

import yaml


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
