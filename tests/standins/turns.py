"""What the stand-in models say: whole turns, with one call of the shell tool where the prompt asks for it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

WORDS = ("one ", "two ", "three")
"""What a model says to everything that asks for no command; streamed word by word."""
COMMAND = re.compile(r"run: `([^`]+)`")
"""In a prompt: the command that the model is to have run."""
MARK = re.compile(r"STAND-IN[\w-]*")
"""What the model repeats of a tool's output."""
SHELLS = ("bash", "shell", "shell_command", "exec_command", "run_shell_command", "terminal")

Schema = Mapping[str, object]


class Turn(NamedTuple):
    """What a request asks, whatever its protocol.

    Attributes:
        prompt: the text of the last message.
        results: what tools said, when that is the last message.
        tools: name → JSON schema of the arguments.
        form: the JSON schema that the answer must satisfy; None: any text.
    """

    prompt: str
    results: tuple[str, ...]
    tools: Mapping[str, Schema]
    form: Schema | None = None


class Call(NamedTuple):
    """The model wants a tool called.

    Attributes:
        tool: its name.
        arguments: as its schema wants them.
        code: instead of arguments, for a tool that takes text: a program.
    """

    tool: str
    arguments: Mapping[str, object]
    code: str = ""


class Text(NamedTuple):
    """The model says something, piece by piece."""

    pieces: tuple[str, ...]


def reply(turn: Turn) -> Call | Text:
    """The model's answer: what a tool printed, a call of the shell tool, or `WORDS`; JSON where a form is asked for."""
    if turn.form is not None:
        return Text((json.dumps(example(turn.form)),))
    if turn.results:
        return Text(("The tool said: ", *MARK.findall("\n".join(turn.results))[-1:]))
    asked = COMMAND.search(turn.prompt)
    shell = next((name for name in turn.tools if name.lower() in SHELLS), None)
    if asked is None:
        return Text(WORDS)
    if shell:
        return Call(shell, arguments_of(turn.tools[shell], asked[1]))
    if "exec" in turn.tools:  # Codex has one tool for a program that calls the others
        return Call("exec", {}, f"text(await tools.exec_command({json.dumps({'cmd': asked[1]})}))")
    return Text(WORDS)


def arguments_of(schema: Schema, command: str) -> dict[str, object]:
    """Arguments that satisfy the schema of a shell tool, with this command."""
    arguments = example(schema)
    properties = schema.get("properties")
    assert isinstance(arguments, dict) and isinstance(properties, Mapping)
    for name in ("command", "cmd"):
        if name in properties:
            words = str(properties[name].get("type")).lower() == "array"
            arguments[name] = ["bash", "-c", command] if words else command
    return arguments


def example(schema: Schema) -> object:
    """Something that satisfies a JSON schema, as far as models are asked for it: what it requires, and no more."""
    choices, properties, required = schema.get("enum"), schema.get("properties"), schema.get("required")
    if isinstance(choices, list):
        return choices[0]
    if isinstance(properties, Mapping):
        return {name: example(properties[name]) for name in (required if isinstance(required, list) else ())}
    return {"boolean": False, "number": 1, "integer": 1, "array": []}.get(str(schema.get("type")).lower(), "stand-in")


def text_of(content: object) -> str:
    """All the text in a message's content: a string, or blocks that have a `text`."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return text_of(content.get("text") or content.get("content") or "")
    return "\n".join(text_of(block) for block in content) if isinstance(content, list) else ""
