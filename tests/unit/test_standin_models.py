"""The stand-in models, as the vendors' own packages understand them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.standins import models, turns
from tests.standins.upstream import Upstream

SHELL: dict[str, object] = {"type": "object", "properties": {"command": {"type": "string"}, "why": {"type": "string"}}}
ASK = "Please run: `echo STAND-IN-here`\nand tell me what it says"


@pytest.fixture
def vendor() -> Iterator[Upstream]:
    with Upstream() as upstream:
        models.serve(upstream)
        yield upstream


def test_a_turn_is_a_call_and_then_what_the_tool_said() -> None:
    tools = {"read": SHELL, "Bash": SHELL | {"required": ["command", "why"]}}
    assert turns.reply(turns.Turn("hello", (), tools)) == turns.Text(turns.WORDS)
    assert turns.reply(turns.Turn(ASK, (), {})) == turns.Text(turns.WORDS)
    wanted = {"command": "echo STAND-IN-here", "why": "stand-in"}
    assert turns.reply(turns.Turn(ASK, (), tools)) == turns.Call("Bash", wanted)
    said = turns.reply(turns.Turn("", ("exit 0\nSTAND-IN-here\n",), tools))
    assert said == turns.Text(("The tool said: ", "STAND-IN-here"))


def test_anthropic(vendor: Upstream) -> None:
    tool: anthropic.types.ToolParam = {"name": "bash", "input_schema": SHELL}
    asked: anthropic.types.MessageParam = {"role": "user", "content": ASK}
    url = f"http://127.0.0.1:{vendor.port}"
    with anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client:
        with client.messages.stream(model="m", max_tokens=9, messages=[asked], tools=[tool]) as stream:
            message = stream.get_final_message()
        assert message.stop_reason == "tool_use"
        block = message.content[0]
        assert block.type == "tool_use" and block.input == {"command": "echo STAND-IN-here"}
        result: anthropic.types.ToolResultBlockParam = {
            "type": "tool_result", "tool_use_id": block.id, "content": "STAND-IN-here",
        }  # fmt: skip
        rest: list[anthropic.types.MessageParam] = [
            asked, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]},
        ]  # fmt: skip
        end = client.messages.create(model="m", max_tokens=9, messages=rest, tools=[tool])
        assert end.content[0].type == "text" and end.content[0].text == "The tool said: STAND-IN-here"


def test_openai(vendor: Upstream) -> None:
    url = f"http://127.0.0.1:{vendor.port}/v1"
    with openai.OpenAI(api_key="k", base_url=url, max_retries=0) as client:
        assert client.responses.create(model="m", input="count").output_text == "one two three"
        with client.responses.stream(model="m", input="count") as stream:
            assert stream.get_final_response().output_text == "one two three"
        tool: openai.types.responses.FunctionToolParam = {
            "type": "function", "name": "shell", "parameters": SHELL, "strict": False,
        }  # fmt: skip
        with client.responses.stream(model="m", input=ASK, tools=[tool]) as stream:
            call = stream.get_final_response().output[0]
        assert call.type == "function_call" and json.loads(call.arguments) == {"command": "echo STAND-IN-here"}


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent?alt=sse"])
def test_gemini(vendor: Upstream, method: str) -> None:
    asked = {"contents": [{"role": "user", "parts": [{"text": "count"}]}]}
    url = f"http://127.0.0.1:{vendor.port}/v1beta/models/m:{method}"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(asked).encode())) as answer:
        lines = [line.removeprefix(b"data: ") for line in answer if line.strip()]
    parts = [part for line in lines for part in json.loads(line)["candidates"][0]["content"]["parts"]]
    assert "".join(part["text"] for part in parts) == "one two three"
