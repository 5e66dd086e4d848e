"""The limits that every sidecar's connections share, each with what happens at it. Sizes in bytes, times in seconds.

| limit | at the limit |
|---|---|
| `ACCEPTS_A_TURN` | the rest of the queue is accepted in the loop's next turn |
| descriptors | accepting pauses for `ACCEPT_RETRY_SECONDS` or until one is closed; no client is refused |
| `QUEUE_HIGH`, `QUEUE_LOW` | the faster side is not read until the slower has taken its bytes |
| `HEADERS_MAX` | 431, connection closed |
| `CHUNK_LINE_MAX`, `TRAILERS_MAX` | 400 (client) or cut (upstream) |
| `HEADS_KEPT`, `HEAD_KEPT_MAX` | a head that comes again is parsed again |
| `CONNECT_SECONDS` | the connection upstream is given up |
| `RESOLVED_SECONDS` | the name is resolved again |

A sidecar keeps its own limits in its own room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...supervisor.ground.errors import Exit, TerokError

ACCEPTS_A_TURN = 64
ACCEPT_RETRY_SECONDS = 0.1

QUEUE_HIGH = 256 << 10
QUEUE_LOW = 64 << 10
READ_MIN, READ_MAX = 16 << 10, 256 << 10

HEADERS_MAX = 128
CHUNK_LINE_MAX = 4096
TRAILERS_MAX = 16 << 10
HEADS_KEPT, HEAD_KEPT_MAX = 64, 4096
"""How many heads of requests, and of answers, are remembered as they were read, and the bytes of the longest one."""

CONNECT_SECONDS = 10.0
NEXT_ADDRESS_SECONDS = 0.3
"""How long one address may take before the next is tried beside it (RFC 8305, section 5)."""
RESOLVED_SECONDS = 30.0


def change(values: Mapping[str, float], own: dict[str, Any]) -> None:
    """Replace limits by name, from a sidecar's settings; before anything is served.

    Args:
        values: the new values.
        own: the namespace of the sidecar's own limits, which is looked at first.

    Raises:
        TerokError: there is no limit of that name, or the value is not a positive number.
    """
    for name, value in values.items():
        home = next((names for names in (own, globals()) if name.isupper() and name in names), None)
        if home is None:
            raise TerokError(f"There is no limit {name!r}.", code=Exit.USAGE)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise TerokError(f"The limit {name} is not a positive number.", code=Exit.USAGE)
        home[name] = type(home[name])(value)
