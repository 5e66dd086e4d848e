"""The limits of the MCP sidecar, each with what happens at it. Sizes in bytes, times in seconds.

| limit | at the limit |
|---|---|
| `HEAD_MAX` | 431, connection closed |
| `BODY_MAX` | 413, connection closed |
| `LINE_MAX` | a server that writes a longer line is ended, and its session with it |
| `CLIENTS_MAX` | further connections wait in the kernel's queue |
| `SESSIONS_MAX` | the session that was idle for the longest time ends; when all are busy, 503 |
| `CALLS_MAX` | an error for the call: the session has too many that wait |
| `HEAD_SECONDS`, `BODY_SECONDS` | the connection is closed |
| `START_SECONDS` | the server did not answer `initialize`: the session ends |
| `MEMORY_BYTES` | a message that needs more is refused, or its connection is given up |
| `CALL_SECONDS` | an error for the call |
| `SESSION_SECONDS` | a session without a request ends; clients begin another one |
"""

HEAD_MAX = 16 << 10
BODY_MAX = 4 << 20
LINE_MAX = 16 << 20
MEMORY_BYTES = 1 << 30
"""Address space of the half that reads messages (setrlimit(2), RLIMIT_AS)."""
CLIENTS_MAX = 64
SESSIONS_MAX = 16
CALLS_MAX = 32
PAGES_MAX = 16
RELIST_SECONDS = 1.0
"""The least time between two readings of a server's tools."""
HEAD_SECONDS = 30.0
BODY_SECONDS = 60.0
START_SECONDS = 90.0
CALL_SECONDS = 1200.0
SESSION_SECONDS = 1800.0
END_SECONDS = 5.0
"""How long a server has to end when its input has ended."""
