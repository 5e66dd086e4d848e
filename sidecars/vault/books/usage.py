"""How many tokens an answer says it cost: read from JSON bodies and server-sent events as they pass. No I/O.

Shapes: Anthropic (`usage` of a message, `message_start` and `message_delta` events), OpenAI (`usage` of a completion or
of a response, the last chunk of a stream, `response.completed`), Mistral (as OpenAI's completions). Counts in one
answer are cumulative, so the largest of each kind stands. A quoted `"usage"` inside a text has escaped quotes around it
and is not taken for one.
"""

from __future__ import annotations

import json
from typing import NamedTuple

TAIL = 64 << 10
"""Bytes of a JSON body, from its end, in which `usage` is looked for: every provider puts it behind the content."""
EVENT_MAX = 256 << 10
"""A longer line of an event stream is passed over."""

_DECODER = json.JSONDecoder()
_INPUT = ("input_tokens", "prompt_tokens")
_OUTPUT = ("output_tokens", "completion_tokens")
_MARK = b'"usage"'


class Tokens(NamedTuple):
    """Tokens that an answer cost."""

    input: int = 0
    output: int = 0
    cached: int = 0

    def __bool__(self) -> bool:
        return self.input > 0 or self.output > 0


NO_TOKENS = Tokens()


class Counter:
    """Reads the usage out of one answer.

    Args:
        events: it is an event stream; otherwise one JSON document.
    """

    __slots__ = ("_events", "_line", "_skipping", "_tail", "tokens")

    def __init__(self, *, events: bool) -> None:
        self._events = events
        self._line = b""
        self._skipping = False
        self._tail = b""
        self.tokens = Tokens()

    @classmethod
    def fitting(cls, content_type: bytes) -> Counter | None:
        """A counter for an answer of this Content-Type; None when it can have no usage in it."""
        if content_type == b"application/json":
            return cls(events=False)
        kind = content_type.partition(b";")[0].strip().lower()
        if kind == b"text/event-stream":
            return cls(events=True)
        return cls(events=False) if kind.endswith(b"json") else None

    def feed(self, data: bytes) -> None:
        """Look at plain bytes of the body."""
        if not self._events:
            self._tail = (self._tail + data)[-TAIL:]
            return
        # all lines but the last, unfinished one
        whole, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._keep(rest)
            return
        if not self._skipping and (_MARK in whole or self._line):
            for line in (self._line + whole).split(b"\n"):
                if _MARK in line and line.startswith(b"data:"):
                    self._take(line)
        self._line, self._skipping = b"", False
        self._keep(rest)

    def _keep(self, rest: bytes) -> None:
        if self._skipping or len(self._line) + len(rest) > EVENT_MAX:
            self._line, self._skipping = b"", True
        else:
            self._line += rest

    def end(self) -> Tokens:
        """The body is complete: what it cost."""
        if self._tail:
            self._take(self._tail)
        elif self._line.startswith(b"data:"):
            self._take(self._line)
        return self.tokens

    def _take(self, data: bytes) -> None:
        at = data.rfind(_MARK)
        while at >= 0:
            if data[at - 1 : at] != b"\\":
                usage = _object_behind(data, at + len(_MARK))
                if usage is not None:
                    self._add(usage)
                    return
            at = data.rfind(_MARK, 0, at)

    def _add(self, usage: dict[str, object]) -> None:
        read = _number(usage, ("cache_read_input_tokens",))
        written = _number(usage, ("cache_creation_input_tokens",))
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        cached = _number(details, ("cached_tokens",)) if isinstance(details, dict) else read
        old = self.tokens
        self.tokens = Tokens(
            max(old.input, _number(usage, _INPUT) + read + written),
            max(old.output, _number(usage, _OUTPUT)),
            max(old.cached, cached),
        )


def _object_behind(data: bytes, at: int) -> dict[str, object] | None:
    text = data[at:].lstrip()
    if text[:1] != b":":
        return None
    try:
        usage, _ = _DECODER.raw_decode(text[1:].lstrip().decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return usage if isinstance(usage, dict) else None


def _number(usage: dict[str, object], names: tuple[str, ...]) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48:
            return value
    return 0
