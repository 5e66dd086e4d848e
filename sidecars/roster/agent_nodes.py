"""Compiling the `agents:` of a roster file (`model.py` says what each member means)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ..store.credential import AUTH_KINDS
from .agents import unknown_placeholders
from .model import Agent, AgentFile, Capture, Needs, Provider, Variant

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import TypeAlias

    from .nodes import Node

    Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | bool | None"

_KEYS = frozenset(["title", "providers", "every", "env", "files", "git", "variants", "capture", "leaks"])
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,99}"
_FORBIDDEN_VARIABLES = frozenset({"PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH"})
_FILE = r"~/[A-Za-z0-9._/-]{1,200}"
_FIELD = r"[A-Za-z0-9_.*:/-]{1,120}"
_NUMBER = re.compile(r'"@number:([a-z_]+)"')
CAPTURE_FIELDS = ("secret", "access_token", "refresh_token", "expires_at", "expires_at_ms", "scopes", "id_token")


def agent(node: Node, providers: Mapping[str, Provider]) -> Agent:
    """One compiled agent.

    Args:
        node: its mapping.
        providers: every compiled provider.

    Raises:
        RosterError: something in it is wrong.
    """
    fields = node.fields(_KEYS, ("title", "providers"))
    names = fields["providers"].items()
    return Agent(
        title=fields["title"].text(r".{1,80}", "a title"),
        providers=tuple(name.choice(list(providers)) for name in names),
        every=fields["every"].boolean() if "every" in fields else False,
        needs=_needs(fields, providers),
        variants=tuple(_variant(variant, providers) for variant in _items(fields, "variants")),
        capture=tuple(_capture(capture, providers) for capture in _items(fields, "capture")),
        leaks=tuple(_home(path) for path in _items(fields, "leaks")),
    )


def _items(fields: Mapping[str, Node], key: str) -> list[Node]:
    return fields[key].items() if key in fields else []


def _variant(node: Node, providers: Mapping[str, Provider]) -> Variant:
    fields = node.fields(("provider", "auth", "env", "files", "git"))
    return Variant(
        fields["provider"].choice(list(providers)) if "provider" in fields else None,
        fields["auth"].choice(AUTH_KINDS) if "auth" in fields else None,
        _needs(fields, providers),
    )


def _needs(fields: Mapping[str, Node], providers: Collection[str]) -> Needs:
    """What stands alike in an agent and in each of its variants."""
    env = _templates(fields["env"], providers) if "env" in fields else {}
    for name in env:
        if name in _FORBIDDEN_VARIABLES:
            fields["env"].members()[name].fail("an agent must not set this variable")
    return Needs(
        env,
        tuple(_file(file, providers) for file in _items(fields, "files")),
        _templates(fields["git"], providers, keys=None) if "git" in fields else {},
    )


def _templates(node: Node, providers: Collection[str], keys: str | None = _VARIABLE) -> dict[str, str]:
    templates = {}
    for name, member in node.members().items():
        if keys is not None and not re.fullmatch(keys, name):
            member.fail("this is not a variable's name")
        templates[name] = _template(member, providers, r"[^\x00-\x1f\x7f]{0,2000}", name)
    return templates


def _template(node: Node, providers: Collection[str], pattern: str, key: str = "") -> str:
    text = node.text(pattern, "one line of text")
    for name in unknown_placeholders(key + text, providers):
        node.fail(f"there is no placeholder ${{{name}}}")
    return text


def _file(node: Node, providers: Collection[str]) -> AgentFile:
    fields = node.fields(("path", "mode", "text", "json"), ("path",))
    if ("text" in fields) == ("json" in fields):
        node.fail("a file has either text or json")
    if "text" in fields:
        content = _template(fields["text"], providers, r"(?s).{0,20000}")
    else:
        content = _NUMBER.sub(r"${\1}", json.dumps(_plain(fields["json"], providers), indent=2)) + "\n"
    mode = fields["mode"].choice(("0600", "0644", "0700", "0755")) if "mode" in fields else "0600"
    return AgentFile(_home(fields["path"]), content, int(mode, 8))


def _plain(node: Node, providers: Collection[str]) -> Plain:
    """JSON data out of YAML; `!number expires_ms` stands for the placeholder's value as a number."""
    kind = node.node.tag.rpartition(":")[2]
    if kind == "map":
        return {name: _plain(member, providers) for name, member in node.members().items()}
    if kind == "seq":
        return [_plain(item, providers) for item in node.items()]
    if kind == "null":
        return None
    if kind == "bool":
        return node.boolean()
    if kind == "int":
        return node.integer(0, 10**12)
    if kind == "!number":
        return f"@number:{node.choice(('expires_ms',))}"
    return _template(node, providers, r"(?s).{0,2000}")


def _home(node: Node) -> str:
    """A path below the home directory, without the leading `~/`."""
    text = node.text(_FILE, "a path that begins with ~/")
    if any(part in ("", ".", "..") for part in text.split("/")[1:]):
        node.fail("the path must not have empty, . or .. parts")
    return text[2:]


def _capture(node: Node, providers: Mapping[str, Provider]) -> Capture:
    """One place where the vendor's program keeps a credential, or a login that makes one."""
    fields = node.fields(
        ("provider", "auth", "file", "format", "fields", "variables", "command", "environ", "hint"),
        ("provider", "auth", "file", "format", "fields"),
    )
    wanted = fields["fields"].table(lambda node: node.text(_FIELD, "a path of keys, joined by /"))
    for name, member in fields["fields"].members().items():
        if name not in CAPTURE_FIELDS:
            member.fail(f"there is no such field; known: {', '.join(CAPTURE_FIELDS)}")
    if not {"secret", "access_token"} & wanted.keys():
        fields["fields"].fail("secret or access_token is missing")
    provider = fields["provider"].choice(list(providers))
    auth = fields["auth"].choice(AUTH_KINDS)
    if auth not in providers[provider].auth:
        fields["auth"].fail(f"the provider {provider} has no such kind")
    return Capture(
        provider=provider,
        auth=auth,
        file=_home(fields["file"]),
        format=fields["format"].choice(("json", "yaml", "env", "ini", "netrc", "text")),
        fields=wanted,
        variables=fields["variables"].table(lambda node: node.text(_FIELD)) if "variables" in fields else {},
        command=tuple(fields["command"].texts(r"[!-~]{1,200}", "a word")) if "command" in fields else (),
        environ=_templates(fields["environ"], providers) if "environ" in fields else {},
        hint=fields["hint"].text(r".{1,300}", "a sentence") if "hint" in fields else "",
    )
