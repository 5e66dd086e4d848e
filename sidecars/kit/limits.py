"""Every limit of the vault, each with what happens at it. Sizes in bytes, times in seconds.

| limit | at the limit |
|---|---|
| `CLIENTS_MAX` | new connections wait in the kernel's queue until one ends; none is refused |
| descriptors | accepting pauses for `ACCEPT_RETRY_SECONDS` or until one is closed; nobody is refused |
| `HEAD_MAX`, `HEADERS_MAX` | 431, connection closed |
| `HEAD_SECONDS` | 408, connection closed |
| `BODY_IDLE_SECONDS` | the exchange is cut, both connections closed |
| `CLIENT_IDLE_SECONDS` | the kept connection is closed |
| `CHUNK_LINE_MAX`, `TRAILERS_MAX` | 400 (client) or cut (upstream) |
| `QUEUE_HIGH`, `QUEUE_LOW` | the faster side is not read until the slower has taken its bytes |
| `LINGER_SECONDS` | a refused client that still sends is reset |
| `CONNECT_SECONDS` | 504 |
| `ANSWER_HEAD_MAX` | 502 |
| `POOL_IDLE_MAX`, `POOL_IDLE_SECONDS` | the connection upstream is closed instead of kept |
| `REPLAY_MAX` | a request with a larger body is not sent a second time after a refresh |
| `RESOLVED_SECONDS` | the name is resolved again |
| `HEADS_KEPT`, `HEAD_KEPT_MAX` | a head that comes again is read again |
| `STOP_SECONDS` | what still runs after SIGTERM is cut |
"""

from __future__ import annotations

from collections.abc import Mapping

from ...supervisor.ground.errors import Exit, TerokError

CLIENTS_MAX = 1000
"""Open client connections; lowered to a third of RLIMIT_NOFILE, since each may need a connection upstream."""
DESCRIPTORS_RESERVED = 32
"""Descriptors kept for the store, the audit, the resolver and the pool's slack."""

ACCEPTS_A_TURN = 64
ACCEPT_RETRY_SECONDS = 0.1

HEAD_MAX = 64 << 10
HEADERS_MAX = 128
HEAD_SECONDS = 10.0
BODY_IDLE_SECONDS = 20 * 60.0
CLIENT_IDLE_SECONDS = 75.0
CHUNK_LINE_MAX = 4096
TRAILERS_MAX = 16 << 10

QUEUE_HIGH = 256 << 10
QUEUE_LOW = 64 << 10
READ_MIN, READ_MAX = 16 << 10, 256 << 10

LINGER_SECONDS = 2.0
CONNECT_SECONDS = 10.0
NEXT_ADDRESS_SECONDS = 0.3
"""How long one address may take before the next is tried beside it (RFC 8305, section 5)."""
ANSWER_HEAD_MAX = 256 << 10
HEADS_KEPT, HEAD_KEPT_MAX = 64, 4096
"""How many heads of requests, and of answers, are remembered as they were read, and the bytes of the longest one."""
POOL_IDLE_MAX = 64
POOL_IDLE_SECONDS = 45.0
REPLAY_MAX = 1 << 20
RESOLVED_SECONDS = 30.0
STOP_SECONDS = 0.1
EXPIRY_SECONDS = 5.0
"""An access token that ends sooner is not used any more: the upstream's clock may be ahead."""
RENEW_SECONDS = 60.0
"""How long a refresh may take: the helper gives up after 40 s."""
RENEW_AGAIN_SECONDS = 30.0
"""How long a refresh that failed is not tried again in advance."""
FLUSH_SECONDS = 1.0
"""How long counts of the usage stay in memory only."""
AUDIT_PATH_MAX = 1024
"""Characters of a path in an audit line."""


def change(values: Mapping[str, float]) -> None:
    """Replace limits by name, from the sidecar's settings; before anything is served.

    Raises:
        TerokError: there is no limit of that name, or the value is not a positive number.
    """
    for name, value in values.items():
        if not name.isupper() or name not in globals():
            raise TerokError(f"The vault has no limit {name!r}.", code=Exit.USAGE)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise TerokError(f"The vault's limit {name} is not a positive number.", code=Exit.USAGE)
        globals()[name] = type(globals()[name])(value)
