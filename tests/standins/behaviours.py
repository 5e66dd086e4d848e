"""What the stand-in upstream does, by path; each function returns whether the connection lives on."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import socket
import time
import zlib
from typing import TYPE_CHECKING

from tests.standins import websocket

if TYPE_CHECKING:
    from tests.standins.upstream import Conversation, Handler, Request, Upstream


def echo(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """The request as JSON, without its credentials' values."""
    digest, size = hashlib.sha256(), 0
    for piece in talk.body(request):
        digest.update(piece)
        size += len(piece)
    request.body = b"(%d)" % size
    safe = [
        pair
        for pair in request.headers
        if pair[0] not in ("authorization", "x-api-key", "private-token", "x-goog-api-key")
    ]
    document = {
        "method": request.method,
        "path": request.path,
        "headers": safe,
        "size": size,
        "sha256": digest.hexdigest(),
    }
    if request.method == "HEAD":
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4711\r\n\r\n")
    else:
        talk.answer(json.dumps(document).encode(), headers="Content-Type: application/json\r\n")
    return True


def small(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """Two bytes."""
    talk.read_body(request)
    talk.answer(b"ok")
    return True


def mirror(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """Each piece of the body back as a chunk while it arrives: both directions at once."""
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in talk.body(request):
        talk.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    talk.send(b"0\r\n\r\n")
    return True


def big(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """/big/N: N bytes."""
    left = int(request.path.rpartition("/")[2])
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
    block = bytes(range(256)) * 256
    while left:
        talk.send(block[:left])
        left -= min(left, len(block))
    return True


def events(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """/events/N: N server-sent events; before each one but the first it waits for the event `next`."""
    talk.read_body(request)
    count = int(request.path.rpartition("/")[2])
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(count):
        if number:
            upstream.event("next").wait(10)
            upstream.event("next").clear()
        data = b"event: tick\ndata: %d\n\n" % number
        talk.send(b"%x\r\n%b\r\n" % (len(data), data))
    talk.send(b"0\r\n\r\n")
    return True


def paced(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """/paced/N/MS: N server-sent events, MS milliseconds apart, each with the monotonic time of its sending."""
    talk.read_body(request)
    _, _, count, gap = request.path.split("/")
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(int(count)):
        data = b"data: %.6f\n\n" % time.monotonic()
        talk.send(b"%x\r\n%b\r\n" % (len(data), data))
        time.sleep(int(gap) / 1000)
    talk.send(b"0\r\n\r\n")
    return True


def trailers(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A chunked answer with trailers."""
    talk.read_body(request)
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
    talk.send(b"5;ext=1\r\nhello\r\n0\r\nX-Sum: 42\r\nSet-Cookie: a=b\r\n\r\n")
    return True


def until_close(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """An answer that ends with its connection."""
    talk.read_body(request)
    talk.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    return False


def half_close(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A whole answer, then a half-close, and the connection stays open."""
    talk.read_body(request)
    talk.answer(b"half")
    talk.sock.shutdown(socket.SHUT_WR)
    upstream.event("half").wait(5)
    return False


def cut_body(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """An orderly end in the middle of a counted body."""
    talk.read_body(request)
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    return False


def cut_chunks(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """An orderly end in the middle of a chunked body."""
    talk.read_body(request)
    talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    return False


def reset_body(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A reset in the middle of a body."""
    talk.read_body(request)
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    upstream.event("reset").wait(5)
    talk.reset()
    return False


def nothing(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """The end, without an answer."""
    talk.read_body(request)
    return False


def silent(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """No answer until the event `speak`."""
    talk.read_body(request)
    upstream.event("asked").set()
    upstream.event("speak").wait(30)
    talk.answer(b"late")
    return True


def drip(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """An answer byte by byte, head and all."""
    talk.read_body(request)
    for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n0\r\n\r\n":
        talk.send(bytes((byte,)))
        time.sleep(0.001)
    return True


def go_on(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """100 Continue, and then the body is read."""
    assert request.header("expect") == "100-continue"
    talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    talk.read_body(request)
    talk.answer(b"got %d" % len(request.body))
    return True


def no_thanks(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A final answer before the body was read; then it reads on, so that no reset overtakes it (RFC 9112, 9.6)."""
    talk.answer(b"too large", "413 Content Too Large")
    try:
        while talk.sock.recv(1 << 16):
            pass
    except OSError:
        pass  # the vault has closed
    return False


def slam(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A final answer before the body was read, and the connection is reset at once."""
    talk.answer(b"too large", "413 Content Too Large")
    talk.sock.recv(1)
    talk.reset()
    return False


def early_hints(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """103 Early Hints before the answer (RFC 8297)."""
    talk.read_body(request)
    talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    talk.answer(b"hinted")
    return True


def many_hints(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """/many-hints/N: N times 1 KiB of 103 Early Hints, then an answer."""
    line = b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"x" * 980 + b">\r\n\r\n"
    talk.sock.settimeout(30)
    for _ in range(int(request.path.rpartition("/")[2])):
        talk.send(line)
    talk.answer(b"hinted")
    return True


def stray(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """An answer without a body, and behind it, a moment later, what looks like the next answer."""
    talk.read_body(request)
    status = request.path.rpartition("/")[2]
    talk.send(f"HTTP/1.1 {status} Some\r\nX-Length: 5\r\n\r\n".encode())
    upstream.event("answered").wait(10)
    time.sleep(0.05)
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
    return True


def leaking_hints(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """103 Early Hints that hand the credential back before the answer."""
    secret = (request.header("authorization") or "").encode()
    talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </" + secret + b">; rel=preload\r\n\r\n")
    talk.answer(b"hinted")
    return True


def redirect(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A redirect to loopback, which nobody must follow."""
    talk.read_body(request)
    talk.answer(b"", "302 Found", f"Location: http://127.0.0.1:{upstream.port}/small\r\n")
    return True


def cookie(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """An answer that sets a cookie."""
    talk.read_body(request)
    talk.answer(b"cookie", headers="Set-Cookie: session=abc\r\n")
    return True


def secret_of(request: Request) -> bytes:
    """The credential that the request carries."""
    for name in ("x-api-key", "private-token", "x-goog-api-key"):
        if (value := request.header(name)) is not None:
            return value.encode()
    scheme, _, value = (request.header("authorization") or "").partition(" ")
    if scheme.lower() == "basic":
        return base64.b64decode(value).partition(b":")[2]
    return value.encode()


def leak(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """/leak/HOW: the secret back: raw, base64 (1, 2: alignments), percent, header, split, slow, gzip, ..."""
    talk.read_body(request)
    how = request.path.rpartition("/")[2]
    secret = secret_of(request)
    content, headers = b"your key is " + secret + b" thanks", "Content-Type: text/plain\r\n"
    if how.startswith("base64"):
        content = base64.b64encode(b"x" * int(how[6:] or 0) + secret + b"y")
    elif how.startswith("urlsafe"):
        content = base64.urlsafe_b64encode(b"x" * int(how[7:] or 0) + secret + b"y")
    elif how == "percent":
        content = "".join(f"%{byte:02x}" for byte in secret).encode()
    elif how == "basic":
        content = (request.header("authorization") or "").encode()
    elif how == "header":
        talk.answer(b"see above", headers=f"X-Echo: {secret.decode()}\r\n")
        return True
    elif how in ("trailer", "trailer-late"):
        talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        if how == "trailer-late":
            time.sleep(0.05)
        talk.send(b"0\r\nX-Key: " + secret + b"\r\n\r\n")
        return True
    elif how == "half":
        # the connection ends inside the secret, as when the upstream fails
        talk.send(b"HTTP/1.1 200 OK\r\n\r\nyour key is ")
        time.sleep(0.05)
        talk.send(secret[: len(secret) // 3])
        return False
    elif how == "json-escape":
        content = content.replace(b"+", b"\\u002B")
    elif how == "hex":
        content = secret.hex().encode()
    elif how == "gzip-silent":
        content = gzip.compress(content)
    elif how == "deflate-raw":
        stream = zlib.compressobj(wbits=-15)
        content = stream.compress(content) + stream.flush()
        headers += "Content-Encoding: deflate\r\n"
    elif how in ("gzip", "brotli"):
        content = gzip.compress(content)
        headers += f"Content-Encoding: {'br' if how == 'brotli' else how}\r\n"
    elif how in ("split", "slow"):
        talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        middle = len(content) // 2
        for piece in (content[:middle], content[middle:]):
            talk.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            if how == "slow":
                time.sleep(0.05)
        talk.send(b"0\r\n\r\n")
        return True
    talk.answer(content, headers=headers)
    return True


def unauthorized(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """401 until the credential is the one in `upstream.accepted`."""
    talk.read_body(request)
    if secret_of(request) == upstream.accepted:
        talk.answer(b"welcome")
    else:
        talk.answer(b'{"error": "expired"}', "401 Unauthorized")
    return True


def document(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """/document/NAME: what the test put into `upstream.documents[NAME]`: (content type, body, more headers)."""
    talk.read_body(request)
    kind, body, more = upstream.documents[request.path.rpartition("/")[2]]
    talk.answer(body, headers=f"Content-Type: {kind}\r\n{more}")
    return True


def web_socket(upstream: Upstream, talk: Conversation, request: Request) -> bool:
    """A WebSocket (RFC 6455) that echoes text and binary messages and answers close with close."""
    websocket.accept(talk, request)
    for first, payload in websocket.frames(talk):
        talk.send(websocket.frame(first, payload))
        if first & 15 == websocket.CLOSE:
            break
    return False


BEHAVIOURS: dict[str, Handler] = {
    "/small": small,
    "/mirror": mirror,
    "/big": big,
    "/events": events,
    "/paced": paced,
    "/trailers": trailers,
    "/until-close": until_close,
    "/half-close": half_close,
    "/cut-body": cut_body,
    "/cut-chunks": cut_chunks,
    "/reset-body": reset_body,
    "/nothing": nothing,
    "/silent": silent,
    "/drip": drip,
    "/go-on": go_on,
    "/no-thanks": no_thanks,
    "/slam": slam,
    "/early-hints": early_hints,
    "/leaking-hints": leaking_hints,
    "/many-hints": many_hints,
    "/stray": stray,
    "/redirect": redirect,
    "/cookie": cookie,
    "/leak": leak,
    "/unauthorized": unauthorized,
    "/document": document,
    "/web-socket": web_socket,
}
