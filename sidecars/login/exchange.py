"""Makes the exchange with a token endpoint. httpx is imported here, by a process that lives for one exchange."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from ..kit.proxy.dialer import Authorization, no_authorization
from ..kit.proxy.egress import NO_PROXY, Egress
from ..kit.proxy.web import client, proxy_failure
from ..kit.refusal import Refused
from .refresh import RefreshError
from .slot import ANSWER_MAX

if TYPE_CHECKING:
    from .refresh import Exchange

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
"""For one read, and for the whole exchange: an endpoint that sends a byte now and then is given up too."""


def send(
    exchange: Exchange, way: Egress = NO_PROXY, authorization: Authorization = no_authorization
) -> tuple[int, bytes]:
    """POST once: no redirect is followed, no proxy variable or .netrc is read, nothing is tried again.

    Call it in the main thread: its limit in time is an alarm (setitimer(2)).

    Args:
        exchange: what is sent.
        way, authorization: how the endpoint is reached.

    Returns:
        Status and body.

    Raises:
        RefreshError: no complete answer came; the message has the endpoint and the reason, never the request.
    """
    import httpx

    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    try:
        with (
            _Deadline(CONNECT_SECONDS + ANSWER_SECONDS),
            client(way, exchange.url, exchange.ca_bundle or "", timeout, authorization) as web,
            web.stream("POST", exchange.url, headers=exchange.headers, content=exchange.body) as answer,
        ):
            body = b""
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > ANSWER_MAX:
                    raise RefreshError(f"The token endpoint {exchange.url} answered more than {ANSWER_MAX >> 10} KiB.")
            return answer.status_code, body
    except httpx.ProxyError as error:
        raise RefreshError(proxy_failure(way, exchange.url, error)) from None
    except Refused as refused:
        raise RefreshError(f"The token endpoint {exchange.url} was not asked: {refused.refusal.why}") from None
    except (httpx.HTTPError, OSError) as error:
        raise RefreshError(f"The token endpoint {exchange.url} gave no answer: {type(error).__name__}.") from None


class _Deadline:
    """Raises TimeoutError in the block when it takes longer than `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _ring(self, *_: object) -> None:
        raise TimeoutError("the exchange took too long")
