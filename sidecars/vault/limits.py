"""The limits of the vault, each with what happens at it; those of every connection are in `kit/limits.py`.

Sizes in bytes, times in seconds.

| limit | at the limit |
|---|---|
| `CLIENTS_MAX` | new connections wait in the kernel's queue until one ends; none is refused |
| `HEAD_MAX` | 431, connection closed |
| `HEAD_SECONDS` | 408, connection closed |
| `BODY_IDLE_SECONDS` | the exchange is cut, both connections closed |
| `CLIENT_IDLE_SECONDS` | the kept connection is closed |
| `LINGER_SECONDS` | a refused client that still sends is reset |
| `ANSWER_HEAD_MAX` | 502 |
| `POOL_IDLE_MAX`, `POOL_IDLE_SECONDS` | the connection upstream is closed instead of kept |
| `JUDGED_MAX` | 413 for a request whose body is judged, as it is with a gate |
| `JUDGED_ALL_MAX` | 503 for a further one, when as many bytes of such bodies wait together |
| `REPLAY_MAX` | a request with a larger body is not sent a second time after a refresh |
| `REPLAYS_MAX` | so is none, when the bodies that are kept of all requests are as large together |
| `QUEUES_MAX` | the more clients there are, the fewer bytes each may let wait: `QUEUE_HIGH` is its share |
| `REST_SECONDS` | after an answer without a body, a connection upstream waits this long for stray bytes |
| `STOP_SECONDS` | what still runs after SIGTERM is cut |
"""

from __future__ import annotations

from collections.abc import Mapping

from ..kit import limits

CLIENTS_MAX = 1000
"""Open client connections; lowered to a quarter of RLIMIT_NOFILE: each may need one upstream, and a link."""
DESCRIPTORS_RESERVED = 32
"""Descriptors kept for the store, the audit, the resolver and the pool's slack."""

HEAD_MAX = 64 << 10
HEAD_SECONDS = 10.0
BODY_IDLE_SECONDS = 20 * 60.0
CLIENT_IDLE_SECONDS = 75.0

LINGER_SECONDS = 2.0
ANSWER_HEAD_MAX = 256 << 10
POOL_IDLE_MAX = 64
POOL_IDLE_SECONDS = 45.0
REST_SECONDS = 0.5
JUDGED_MAX = 1 << 20
JUDGED_ALL_MAX = 16 << 20
REPLAY_MAX = 1 << 20
REPLAYS_MAX = 16 << 20
QUEUES_MAX = 64 << 20
RETRY_SECONDS = 30
"""What `Retry-After` says where an act of the operator ends the refusal (unlocking the vault, freeing disk space)."""
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
    """Replace limits by name, the vault's and those that it shares; raises TerokError as `kit.limits.change` does."""
    limits.change(values, globals())
