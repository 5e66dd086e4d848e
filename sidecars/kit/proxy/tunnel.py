"""One CONNECT request (RFC 9110, section 9.3.6) on a connected socket.

Rules of this file:
- the proxy's answer is hostile input: its length and time are bounded, and of its words only the status is repeated,
  since it may echo the credential;
- exactly the answer's head is read: what the upstream says first belongs to the caller;
- what is not a clean 2xx is no connection.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

from ..reactor import READ, WRITE, Reactor
from ..refusal import Refusal
from .egress import authority

ANSWER_SECONDS = 20.0
"""How long the proxy may take: it resolves the name and connects upstream in this time."""
HEAD_MAX = 16 << 10
_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n\0]*)?\r\n")

Opened = Callable[["Refusal | None"], None]


def request(host: str, port: int, authorization: str) -> bytes:
    """The request's bytes; `authorization`: value of Proxy-Authorization, empty: none."""
    place = authority(host, port)
    credential = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
    return f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{credential}\r\n".encode("ascii")


def judge(head: bytes, proxy: str, place: str, *, authorized: bool) -> Refusal | None:
    """What an answer's head means; None: the connection is open.

    Args:
        head: up to and with the empty line.
        proxy, place: what was asked for what, as `host:port`.
        authorized: whether a credential was sent.
    """
    match = _STATUS.match(head)
    if match is None or b"\0" in head:
        return not_http(proxy)
    status = int(match[1])
    if 200 <= status < 300:
        return None
    if status == 407 or (status == 401 and authorized):  # tinyproxy says so about a wrong one
        return refused_credential(proxy) if authorized else _wants_credential(proxy)
    hint = _HINTS.get(status, "")
    return Refusal(502, "proxy-refused", f"The proxy {proxy} refused {place} with status {status}{hint}.")


_HINTS = {
    500: ": it could not resolve or reach it",
    403: ": its policy does not allow it",
    405: ": it does not allow CONNECT",
    502: ": it could not resolve or reach it",
    503: ": it could not resolve or reach it",
    504: ": it did not get an answer from there",
}


def _wants_credential(proxy: str) -> Refusal:
    why = f"The proxy {proxy} wants a credential (407), and the vault has none for it: terok vault proxy set."
    return Refusal(502, "proxy-credential", why)


def not_http(proxy: str) -> Refusal:
    """The proxy answered, in no way that is understood."""
    return Refusal(502, "proxy-answer", f"The proxy {proxy} did not answer in HTTP/1, or with too long a head.")


def refused_credential(proxy: str) -> Refusal:
    """The proxy did not take the credential."""
    why = f"The proxy {proxy} refused its credential: terok vault proxy set."
    return Refusal(502, "proxy-credential", why)


class Tunnel:
    """Asks a proxy for one connection.

    Args:
        reactor: the loop.
        sock: connected to the proxy, non-blocking; it stays the caller's.
        proxy, host, port: whom is asked for what.
        authorization: value of Proxy-Authorization; empty: none.
        done: gets None, or why there is no connection; nothing watches the socket any more then.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        proxy: str,
        host: str,
        port: int,
        authorization: str,
        done: Opened,
    ) -> None:
        self._reactor, self._sock, self._done = reactor, sock, done
        self._proxy, self._place, self._authorized = proxy, authority(host, port), bool(authorization)
        self._left = request(host, port, authorization)
        self._head = b""
        self._timer = reactor.later(ANSWER_SECONDS, self._late)
        reactor.watch(sock.fileno(), WRITE, self._ready)

    def __repr__(self) -> str:
        return f"<Tunnel {self._place} sent={not self._left} read={len(self._head)}>"

    def _ready(self, _events: int) -> None:
        try:
            if self._left:
                self._send()
            else:
                self._receive()
        except BlockingIOError:
            pass
        except OSError as error:
            why = f"The proxy {self._proxy} ended the connection: {error.strerror or type(error).__name__}."
            self._finish(Refusal(502, "proxy-answer", why))

    def _send(self) -> None:
        self._left = self._left[self._sock.send(self._left) :]
        if not self._left:
            self._reactor.modify(self._sock.fileno(), READ)

    def _receive(self) -> None:
        """Look first, then take no more than belongs to the head: the rest is the upstream's."""
        seen = self._sock.recv(HEAD_MAX, socket.MSG_PEEK)
        if not seen:
            raise ConnectionResetError(0, "it said nothing")
        whole = self._head + seen
        end = whole.find(_END, max(0, len(self._head) - len(_END)))
        own = len(seen) if end < 0 else end + len(_END) - len(self._head)
        self._head += self._sock.recv(own)
        if end >= 0:
            self._finish(judge(self._head, self._proxy, self._place, authorized=self._authorized))
        elif len(self._head) >= HEAD_MAX or not b"HTTP/1.".startswith(self._head[:7]):
            self._finish(not_http(self._proxy))

    def _late(self) -> None:
        why = f"The proxy {self._proxy} did not answer for {self._place} within {ANSWER_SECONDS:g} s."
        self._finish(Refusal(504, "proxy-answer", why))

    def cancel(self) -> None:
        """Watch the socket no more; nothing is called afterwards. Once only."""
        self._timer.cancel()
        self._reactor.forget(self._sock.fileno())

    def _finish(self, refusal: Refusal | None) -> None:
        self.cancel()
        self._done(refusal)
