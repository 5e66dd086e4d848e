"""How many tokens an answer says it cost: read from JSON bodies and server-sent events as they pass. No I/O.

Shapes: Anthropic (`usage` of a message, `message_start` and `message_delta` events), OpenAI (`usage` of a completion or
of a response, the last chunk of a stream, `response.completed`), Mistral (as OpenAI's completions), Google
(`usageMetadata` and `modelVersion`). Counts in one answer are cumulative, so the largest of each kind stands. A quoted
`"usage"` inside a text has escaped quotes around it and is not taken for one.

The model is the first one that stands where the usage is looked for, or at the beginning of a JSON document. It serves
to estimate what was spent; nothing is decided by it.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

TAIL = 64 << 10
"""Bytes of a JSON body, from its end, in which `usage` is looked for: every provider puts it behind the content."""
EVENT_MAX = 256 << 10
"""A longer line of an event stream is passed over."""

_DECODER = json.JSONDecoder()
_INPUT = ("input_tokens", "prompt_tokens", "promptTokenCount")
_OUTPUT = ("output_tokens", "completion_tokens", "candidatesTokenCount")
_READ = ("cache_read_input_tokens", "cachedContentTokenCount")
_MARK = b'"usage'
_MARKS = (b'"', b'Metadata"')
"""What may follow `_MARK`."""
_HEAD = 4 << 10
"""Bytes of a JSON document's beginning in which its model is looked for."""
_MODEL = re.compile(rb'(?<!\\)"(?:model|modelVersion)" ?: ?"(?:models/)?([A-Za-z0-9][A-Za-z0-9._:/@-]{0,79})"')


class Tokens(NamedTuple):
    """Tokens that an answer cost; `cached` and `written` are the part of `input` read from and written to a cache."""

    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0

    def __bool__(self) -> bool:
        return self.input > 0 or self.output > 0


NO_TOKENS = Tokens()


class Counter:
    """Reads the usage out of one answer.

    Args:
        events: it is an event stream; otherwise one JSON document.

    Attributes:
        tokens: what was found so far.
        model: its name; empty while it is unknown.
    """

    __slots__ = ("_events", "_line", "_skipping", "_tail", "tokens", "model")

    def __init__(self, *, events: bool) -> None:
        self._events = events
        self._line = b""
        self._skipping = False
        self._tail = b""
        self.tokens = Tokens()
        self.model = ""

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
            if not self._tail:
                self._name(data[:_HEAD])
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
        self._name(data)
        at = data.rfind(_MARK)
        while at >= 0:
            if data[at - 1 : at] != b"\\":
                end = at + len(_MARK)
                for mark in _MARKS:
                    usage = _object_behind(data, end + len(mark)) if data.startswith(mark, end) else None
                    if usage is not None:
                        self._add(usage)
                        return
            at = data.rfind(_MARK, 0, at)

    def _name(self, data: bytes) -> None:
        if not self.model and (name := _MODEL.search(data)):
            self.model = name[1].decode("ascii")

    def _add(self, usage: dict[str, object]) -> None:
        read = _number(usage, _READ)
        written = _number(usage, ("cache_creation_input_tokens",))
        # Anthropic counts cached input beside the rest, the others count it as part of it; Google counts thoughts apart
        beside = _number(usage, ("cache_read_input_tokens",)) + written
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        cached = _number(details, ("cached_tokens",)) if isinstance(details, dict) else read
        old = self.tokens
        self.tokens = Tokens(
            max(old.input, _number(usage, _INPUT) + beside),
            max(old.output, _number(usage, _OUTPUT) + _number(usage, ("thoughtsTokenCount",))),
            max(old.cached, cached),
            max(old.written, written),
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
