"""What a client of a service that cannot start is told, in the words of its protocol; nothing of the client is read.

The text names no path and no reason of the host's: it is written into the container.
"""

from __future__ import annotations

from .ground import paste
from .ground.quick import dumps

AGENT_FAILURE = b"\x00\x00\x00\x01\x05"
"""SSH_AGENT_FAILURE, in answer to whatever is asked first (draft-miller-ssh-agent, section 3)."""
RETRY_AFTER = 30


def answer(service: str, container: str, why: str) -> bytes:
    """What is sent to each client before its connection is closed; nothing where the protocol has no word for it.

    git shows a plain text body as lines that begin with `remote:` (http.c, show_http_message). The SDKs of some
    providers try again for minutes unless `x-should-retry` forbids it.
    """
    sentence = (
        f"The {service} of this container cannot start ({why}) and is tried again later. "
        f"On the host: terok status {paste.quoted(container)}"
    )
    if service == "ssh":
        return AGENT_FAILURE
    if service == "gate":
        return _http("text/plain; charset=utf-8", f"terok: {sentence}\n".encode())
    if service == "vault":
        error = {"type": "terok_service_failed", "message": f"terok: {sentence}"}
        return _http("application/json", dumps({"type": "error", "error": error}, None).encode() + b"\n")
    if service == "mcp":
        refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": -32603, "message": f"terok: {sentence}"}}
        return _http("application/json", dumps(refusal, None).encode() + b"\n")
    return b""


def _http(kind: str, body: bytes) -> bytes:
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Retry-After: {RETRY_AFTER}\r\n"
        "x-should-retry: false\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
