"""Stand-ins for the vendors' models, as handlers of `upstream.Upstream`: Anthropic's, OpenAI's and Google's protocols.

Each answers as `turns.reply` decides, streamed where the client asks for it, so that whole turns of real agents work:
`claude -p`, `codex exec`, `gemini -p`, `opencode run`. `serve(upstream)` installs all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.standins import websocket
from tests.standins.turns import Call, Text, Turn, reply, text_of

if TYPE_CHECKING:
    from tests.standins.upstream import Conversation, Request, Upstream

Event = tuple[str, object]
Document = dict[str, Any]
"""A JSON object of a vendor's; what is in it is the vendor's to say."""


def send_json(talk: Conversation, document: object, status: str = "200 OK") -> bool:
    """A JSON answer; the connection lives on."""
    talk.answer(json.dumps(document).encode(), status, "Content-Type: application/json\r\n")
    return True


def send_events(talk: Conversation, events: Iterator[Event]) -> bool:
    """An answer of server-sent events, each in a chunk of its own; the connection lives on."""
    talk.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for name, document in events:
        data = document if isinstance(document, str) else json.dumps(document)
        text = (f"event: {name}\n" if name else "") + f"data: {data}\n\n"
        talk.send(b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()))
    talk.send(b"0\r\n\r\n")
    return True


def _asked(talk: Conversation, request: Request) -> Document:
    talk.read_body(request)
    document: Document = json.loads(request.body)
    return document


# --- Anthropic: POST /v1/messages ---


def anthropic(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """POST /v1/messages, streamed or not, and /v1/messages/count_tokens."""
    asked = _asked(talk, request)
    if "count_tokens" in request.path:
        return send_json(talk, {"input_tokens": 12})
    said = reply(_anthropic_turn(asked))
    if asked.get("stream"):
        return send_events(talk, _anthropic_events(said))
    block, reason = _anthropic_block(said)
    usage = {"input_tokens": 12, "output_tokens": 3}
    return send_json(talk, {**_message(), "content": [block], "stop_reason": reason, "usage": usage})


def _anthropic_turn(asked: Document) -> Turn:
    tools = {tool["name"]: tool.get("input_schema", {}) for tool in asked.get("tools", ())}
    # a client may put notes of its own, and reminders for the model, behind the user's message
    users = [message["content"] for message in asked.get("messages", ()) if message["role"] == "user"]
    last = users[-1] if users else ""
    blocks = last if isinstance(last, list) else []
    results = tuple(text_of(block.get("content", "")) for block in blocks if block["type"] == "tool_result")
    return Turn(text_of(last), results, tools)


def _message() -> Document:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "stand-in", "stop_sequence": None}


def _anthropic_block(said: Call | Text) -> tuple[Document, str]:
    if isinstance(said, Call):
        return {"type": "tool_use", "id": "toolu_1", "name": said.tool, "input": dict(said.arguments)}, "tool_use"
    return {"type": "text", "text": "".join(said.pieces)}, "end_turn"


def _anthropic_events(said: Call | Text) -> Iterator[Event]:
    def event(name: str, **fields: object) -> Event:
        return name, {"type": name, **fields}

    block, reason = _anthropic_block(said)
    usage = {"input_tokens": 12, "output_tokens": 1}
    yield event("message_start", message={**_message(), "content": [], "stop_reason": None, "usage": usage})
    nothing: Document = {"input": {}} if isinstance(said, Call) else {"text": ""}
    yield event("content_block_start", index=0, content_block=block | nothing)
    if isinstance(said, Call):
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(said.arguments)}]
    else:
        deltas = [{"type": "text_delta", "text": piece} for piece in said.pieces]
    for delta in deltas:
        yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    end = {"stop_reason": reason, "stop_sequence": None}
    yield event("message_delta", delta=end, usage={"output_tokens": 3})
    yield event("message_stop")


# --- OpenAI: POST /v1/chat/completions ---


def completions(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """POST /v1/chat/completions, streamed or not."""
    asked = _asked(talk, request)
    said = reply(_completions_turn(asked))
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    base = {"id": "c1", "created": 1, "model": "stand-in"}
    reason = "tool_calls" if isinstance(said, Call) else "stop"
    if not asked.get("stream"):
        message = {"role": "assistant", "content": None} | _completion(said)
        choices = [{"index": 0, "finish_reason": reason, "message": message}]
        return send_json(talk, {**base, "object": "chat.completion", "choices": choices, "usage": usage})
    chunk = {**base, "object": "chat.completion.chunk"}

    def events() -> Iterator[Event]:
        deltas = [_completion(said)] if isinstance(said, Call) else [{"content": piece} for piece in said.pieces]
        for delta in deltas:
            yield "", {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        if asked.get("tools"):  # else the stream ends as older servers end it
            yield "", {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        yield "", {**chunk, "choices": [], "usage": usage}
        yield "", "[DONE]"

    return send_events(talk, events())


def _completions_turn(asked: Document) -> Turn:
    functions = [tool["function"] for tool in asked.get("tools") or () if "function" in tool]
    tools = {function["name"]: function.get("parameters", {}) for function in functions}
    last = asked["messages"][-1]
    text = text_of(last.get("content") or "")
    return Turn(text, (text,) if last["role"] == "tool" else (), tools)


def _completion(said: Call | Text) -> Document:
    if isinstance(said, Text):
        return {"content": "".join(said.pieces)}
    function = {"name": said.tool, "arguments": json.dumps(said.arguments)}
    return {"role": "assistant", "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}


# --- OpenAI: /v1/responses, over HTTP and over a WebSocket ---


def responses(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """POST /v1/responses, streamed or not; GET with an upgrade: one `response.create` a message."""
    if (request.header("upgrade") or "").lower() == "websocket":
        websocket.accept(talk, request)
        for message in websocket.texts(talk):
            request.body += message
            asked = json.loads(message)
            # Codex opens a response before it has anything to ask, to save the time later
            said = reply(_responses_turn(asked)) if asked.get("generate", True) else None
            for _, document in _responses_events(said):
                websocket.send_text(talk, json.dumps(document).encode())
        return False
    asked = _asked(talk, request)
    said = reply(_responses_turn(asked))
    if asked.get("stream"):
        return send_events(talk, _responses_events(said))
    return send_json(talk, _response("completed", [_output(said)]))


def _responses_turn(asked: Document) -> Turn:
    items = asked["input"] if isinstance(asked["input"], list) else [{"content": asked["input"]}]
    offered = list(asked.get("tools") or ())
    offered += [tool for item in items if item.get("type") == "additional_tools" for tool in item["tools"]]
    flat = [inner for tool in offered for inner in tool.get("tools", (tool,))]
    tools = {tool["name"]: tool.get("parameters", {}) for tool in flat if "name" in tool}
    last = items[-1] if items else {"content": ""}
    if "output" in last:
        return Turn("", (text_of(last["output"]),), tools)
    return Turn(text_of(last.get("content") or ""), (), tools)


def _response(status: str, output: list[Document]) -> Document:
    usage = {
        "input_tokens": 7, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10,
    }  # fmt: skip
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "stand-in", "status": status,
        "output": output, "parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {},
        "usage": usage if status == "completed" else None,
    }  # fmt: skip


def _output(said: Call | Text) -> Document:
    if isinstance(said, Call) and said.code:
        custom = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": said.tool}
        return custom | {"input": said.code, "status": "completed"}
    if isinstance(said, Call):
        arguments = json.dumps(said.arguments)
        kind = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": said.tool, "arguments": arguments}
        return kind | {"status": "completed"}
    content = {"type": "output_text", "text": "".join(said.pieces), "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [content]}


def _responses_events(said: Call | Text | None) -> Iterator[Event]:
    number = iter(range(1000))

    def event(name: str, **fields: object) -> Event:
        return name, {"type": name, "sequence_number": next(number), **fields}

    yield event("response.created", response=_response("in_progress", []))
    if said is None:
        yield event("response.completed", response=_response("completed", []))
        return
    item = _output(said)
    place = {"output_index": 0, "item_id": item["id"]}
    if isinstance(said, Call) and said.code:
        yield event("response.output_item.added", output_index=0, item=item | {"input": ""})
        yield event("response.custom_tool_call_input.delta", delta=said.code, **place)
        yield event("response.custom_tool_call_input.done", input=said.code, **place)
    elif isinstance(said, Call):
        yield event("response.output_item.added", output_index=0, item=item | {"arguments": ""})
        yield event("response.function_call_arguments.delta", delta=item["arguments"], **place)
        yield event("response.function_call_arguments.done", arguments=item["arguments"], **place)
    else:
        part = {"type": "output_text", "text": "", "annotations": []}
        yield event("response.output_item.added", output_index=0, item=item | {"content": []})
        yield event("response.content_part.added", content_index=0, part=part, **place)
        for piece in said.pieces:
            yield event("response.output_text.delta", content_index=0, delta=piece, **place)
        yield event("response.output_text.done", content_index=0, text="".join(said.pieces), **place)
        yield event("response.content_part.done", content_index=0, part=item["content"][0], **place)
    yield event("response.output_item.done", output_index=0, item=item)
    yield event("response.completed", response=_response("completed", [item]))


# --- Google: POST /v1beta/models/NAME:generateContent ---


def gemini(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """POST /v1beta/models/NAME:generateContent, :streamGenerateContent and :countTokens."""
    asked = _asked(talk, request)
    if ":countTokens" in request.path:
        return send_json(talk, {"totalTokens": 7})
    said = reply(_gemini_turn(asked))
    if isinstance(said, Call):
        parts: list[Document] = [{"functionCall": {"name": said.tool, "args": dict(said.arguments)}}]
    else:
        parts = [{"text": piece} for piece in said.pieces]
    if ":streamGenerateContent" not in request.path:
        return send_json(talk, _candidate(parts, last=True))
    return send_events(talk, (("", _candidate([part], last=part is parts[-1])) for part in parts))


def _gemini_turn(asked: Document) -> Turn:
    declared = [function for tool in asked.get("tools", ()) for function in tool.get("functionDeclarations", ())]
    tools = {tool["name"]: tool.get("parametersJsonSchema") or tool.get("parameters", {}) for tool in declared}
    parts = asked["contents"][-1]["parts"]
    answers = [part["functionResponse"]["response"] for part in parts if "functionResponse" in part]
    config = asked.get("generationConfig", {})
    form = config.get("responseJsonSchema") or config.get("responseSchema")
    return Turn(text_of(parts), tuple(str(answer.get("output", answer)) for answer in answers), tools, form)


def _candidate(parts: list[Document], *, last: bool) -> Document:
    candidate = {"index": 0, "content": {"role": "model", "parts": parts}} | ({"finishReason": "STOP"} if last else {})
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "stand-in", "responseId": "r1"}


# --- GitHub Copilot: who somebody is, which models there are; it speaks OpenAI's protocol below another prefix ---

COPILOT = "https://api.individual.githubcopilot.com"


def copilot_user(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """GET /copilot_internal/user: the account, and the host that serves its plan."""
    talk.read_body(request)
    account = {"login": "octocat", "copilot_plan": "individual", "chat_enabled": True, "access_type_sku": "stand_in"}
    return send_json(talk, account | {"endpoints": {"api": COPILOT}, "organization_login_list": []})


def copilot_models(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """GET /models."""
    talk.read_body(request)
    limits = {"max_context_window_tokens": 128000, "max_output_tokens": 16000, "max_prompt_tokens": 110000}
    supports = {"streaming": True, "tool_calls": True, "parallel_tool_calls": True}
    capabilities = {"family": "gpt-5-mini", "type": "chat", "object": "model_capabilities", "tokenizer": "o200k_base"}
    model = {
        "id": "gpt-5-mini", "name": "GPT-5 mini", "object": "model", "vendor": "Azure OpenAI", "version": "gpt-5-mini",
        "preview": False, "model_picker_enabled": True, "policy": {"state": "enabled", "terms": ""},
        "capabilities": capabilities | {"limits": limits, "supports": supports},
        "billing": {"is_premium": False, "multiplier": 0}, "supported_endpoints": ["/chat/completions"],
        "is_chat_default": True, "is_chat_fallback": True,
    }  # fmt: skip
    return send_json(talk, {"object": "list", "data": [model]})


def unknown(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """What a vendor has nothing at."""
    talk.read_body(request)
    return send_json(
        talk, {"type": "error", "error": {"type": "not_found_error", "message": "stand-in"}}, "404 Not Found"
    )


def serve(upstream: Upstream) -> None:
    """Let an upstream speak all of the protocols."""
    upstream.handlers |= {
        "/v1/messages": anthropic,
        "/v1/chat/completions": completions,
        "/v1/responses": responses,
        "/v1beta/models": gemini,
        "/copilot_internal/user": copilot_user,
        "/models": copilot_models,
        "/chat/completions": completions,
        "/responses": responses,
        "": unknown,  # the last: everything begins so
    }
