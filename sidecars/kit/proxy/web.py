"""Single requests of programs that live for one: an httpx client that goes the same way as the dialler."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..refusal import Refusal, Refused
from ..tls.layer import client_context
from .egress import is_address, name_refusal

if TYPE_CHECKING:
    import httpx

    from .dialer import Authorization
    from .egress import Egress


def proxy_failure(egress: Egress, url: str, error: Exception) -> str:
    """One sentence about an `httpx.ProxyError`: its text is the proxy's status and words, which may be anything."""
    status = str(error)[:3]
    if status in ("401", "407"):
        return f"The proxy {egress.authority} wants a credential, or another one ({status}): terok vault proxy set."
    shown = f"status {status}" if status.isdigit() else "no answer in HTTP/1"
    return f"The proxy {egress.authority} did not lead to {url}: {shown}."


def client(
    egress: Egress, url: str, ca: str, timeout: httpx.Timeout | float, authorization: Authorization
) -> httpx.Client:
    """A client for one URL: no redirect is followed, no proxy variable or .netrc is read.

    Args:
        egress: the way.
        url: what will be asked for.
        ca: file of the authorities that are trusted instead of the system's; empty: the system's.
        timeout: in seconds.
        authorization: the proxy's credential; called only when the proxy carries the URL's host.

    Raises:
        Refused: the host may not be given to the proxy.
        OSError: the authorities could not be read.
        TerokError: the credential could not be read.
    """
    import httpx

    host = urlsplit(url).hostname or ""
    proxy = None
    if egress.carries(host):
        if not is_address(host) and (why := name_refusal(host)):
            raise Refused(*Refusal(403, "private-address", f"{host} may not be connected to: {why}.")[:3])
        credential = authorization()
        headers = {"Proxy-Authorization": credential} if credential else None
        context = client_context("", egress.ca) if egress.tls else None
        proxy = httpx.Proxy(egress.url, ssl_context=context, headers=headers)
    return httpx.Client(
        verify=client_context(ca, egress.ca), timeout=timeout, trust_env=False, follow_redirects=False, proxy=proxy
    )
