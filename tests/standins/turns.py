"""What the stand-in models say: whole turns, with one call of the shell tool where the prompt asks for it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

WORDS = ("one ", "two ", "three")
"""What a model says to everything that asks for no command; streamed word by word."""
COMMAND = re.compile(r"run: ([^\n]+)")
"""In a prompt: the command that the model is to have run, up to the end of the line."""
SHELLS = ("bash", "shell", "shell_command", "exec_command", "run_shell_command", "terminal")

Schema = Mapping[str, object]


class Turn(NamedTuple):
    """What a request asks, whatever its protocol.

    Attributes:
        prompt: the text of the last message.
        results: what tools said, when that is the last message.
        tools: name → JSON schema of the arguments.
    """

    prompt: str
    results: tuple[str, ...]
    tools: Mapping[str, Schema]


class Call(NamedTuple):
    """The model wants a tool called."""

    tool: str
    arguments: Mapping[str, object]


class Text(NamedTuple):
    """The model says something, piece by piece."""

    pieces: tuple[str, ...]


def reply(turn: Turn) -> Call | Text:
    """The model's answer: the last line that a tool printed, a call of the shell tool, or `WORDS`."""
    if turn.results:
        lines = [line for result in turn.results for line in result.splitlines() if "STAND-IN" in line]
        return Text(("The tool said: ", *lines[-1:]))
    asked = COMMAND.search(turn.prompt)
    shell = next((name for name in turn.tools if name.lower() in SHELLS), None)
    if asked and shell:
        return Call(shell, arguments_of(turn.tools[shell], asked[1].strip()))
    return Text(WORDS)


def arguments_of(schema: Schema, command: str) -> dict[str, object]:
    """Arguments that satisfy the schema of a shell tool, with this command."""
    arguments: dict[str, object] = {}
    properties, required = schema.get("properties"), schema.get("required")
    assert isinstance(properties, Mapping)
    for name, wanted in properties.items():
        kind = wanted.get("type") if isinstance(wanted, Mapping) else None
        if name in ("command", "cmd"):
            arguments[name] = ["bash", "-c", command] if kind == "array" else command
        elif isinstance(required, list) and name in required:
            arguments[name] = {"boolean": False, "number": 1, "integer": 1, "array": []}.get(str(kind), "stand-in")
    return arguments


def text_of(content: object) -> str:
    """All the text in a message's content: a string, or blocks that have a `text`."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return text_of(content.get("text") or content.get("content") or "")
    return "\n".join(text_of(block) for block in content) if isinstance(content, list) else ""
