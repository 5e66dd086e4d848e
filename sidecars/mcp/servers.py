"""The servers of a scope, as they are kept: one file each, written by the operator's verbs, read by the sidecar."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from ...supervisor.ground.errors import TerokError
from .jsonrpc import BadMessage, Object, Plain, parse
from .names import check_name
from .offer import NAME as TOOL
from .offer import Offer

SCHEMA = 1
SIZE_MAX = 32 << 20


@dataclass(frozen=True)
class Server:
    """One MCP server.

    Attributes:
        name, scope: whose it is.
        container: where it runs.
        command: its program and arguments, in the container.
        tools: the tools that agents may use; None: all that were accepted.
        accepted: the texts that the operator has accepted.
    """

    name: str
    scope: str
    container: str
    command: tuple[str, ...]
    tools: tuple[str, ...] | None
    accepted: Offer

    def to_text(self) -> str:
        """The file's content."""
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "scope": self.scope,
            "container": self.container,
            "command": list(self.command),
            "tools": None if self.tools is None else list(self.tools),
            "instructions": self.accepted.instructions,
            "accepted": list(self.accepted.tools.values()),
        }
        return json.dumps(document, indent=1) + "\n"


def path_of(directory: str, name: str) -> str:
    """The file of a server in its scope's directory; raises TerokError for an unusable name."""
    return os.path.join(directory, check_name(name) + ".json")


def load(directory: str, name: str) -> Server | None:
    """A server of a scope; None when there is none of that name.

    Raises:
        TerokError: the file cannot be read or understood.
    """
    path = path_of(directory, name)
    try:
        with open(path, "rb") as file:
            content = file.read(SIZE_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TerokError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        if len(content) > SIZE_MAX:
            raise ValueError("it is too large")
        return _server(parse(content), name)
    except (ValueError, KeyError, BadMessage) as error:
        raise TerokError(f"{path} is damaged: {error}.", fix="terok mcp remove it, and add it again") from error


def _server(document: Plain, name: str) -> Server:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or document.get("name") != name:
        raise ValueError("it is not the description of this server")
    tools = document["tools"]
    accepted: dict[str, Object] = {}
    for tool in _list(document["accepted"]):
        if not isinstance(tool, dict) or not TOOL.fullmatch(_word(tool.get("name"))):
            raise ValueError("an accepted tool has no name")
        accepted[_word(tool["name"])] = tool
    return Server(
        name=name,
        scope=_word(document["scope"]),
        container=_word(document["container"]),
        command=tuple(_word(word) for word in _list(document["command"])),
        tools=None if tools is None else tuple(_word(word) for word in _list(tools)),
        accepted=Offer(_word(document["instructions"]), accepted),
    )


def _list(value: Plain) -> list[Plain]:
    if not isinstance(value, list):
        raise ValueError("a list is missing")
    return value


def _word(value: Plain) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is missing")
    return value
