"""The check of the HTTP proxy: whether it is there and opens connections."""

from __future__ import annotations

from collections.abc import Iterator

from ...sidecars.kit.dial import Endpoint
from ...sidecars.kit.proxy.dialer import dialer_for
from ...sidecars.kit.proxy.egress import Egress
from ...sidecars.kit.reactor import Reactor
from ...sidecars.kit.refusal import Refusal
from ...sidecars.kit.stream import Stream
from ...supervisor.ground.errors import TerokError
from ..kit.check import FAIL, OK, WARN, Check
from ..kit.egress import authorization, egress
from ..kit.env import Env

ASKED = "example.com"
"""What the proxy is asked for: a host that exists for examples (RFC 2606), on port 443."""
SECONDS = 40.0
CLOSING_SECONDS = 0.05
"""How long the loop goes on: what passes the bytes of a proxy with TLS closes in its next turns."""


def proxy(env: Env) -> Iterator[Check]:
    """Whether the configured proxy answers CONNECT and takes its credential."""
    network = env.config.network
    if not network.upstream_proxy and not network.upstream_ca:
        return
    try:
        way = egress(network)
        credential = authorization(env.layout, way)
    except TerokError as error:
        yield Check("network", "upstream proxy", FAIL, error.what, error.fix)
        return
    if way.host:
        yield result(way, ask(way, credential))


def ask(way: Egress, credential: str) -> Refusal | None:
    """Open one connection through the proxy and close it; why there is none."""
    reactor = Reactor()
    answers: list[Refusal | None] = []

    def done(stream: Stream | None, refusal: Refusal | None) -> None:
        if stream is not None:
            stream.abort()
        answers.append(refusal)
        reactor.later(CLOSING_SECONDS, reactor.stop)

    dialer_for(reactor, way._replace(direct=()), lambda: credential).dial(Endpoint(ASKED, 443, tls=False), done)
    reactor.wait(SECONDS)
    reactor.close()
    return answers[0] if answers else Refusal(504, "proxy-answer", f"The proxy {way.authority} did not answer.")


def result(way: Egress, refusal: Refusal | None) -> Check:
    """The check. A proxy that refuses one host may do so by its policy: it works."""
    if refusal is None:
        return Check("network", "upstream proxy", OK, f"{way.url} opens connections")
    if refusal.rule == "proxy-refused":
        return Check("network", "upstream proxy", WARN, f"{way.url} answers CONNECT. {refusal.why}")
    fix = "terok vault proxy set" if refusal.rule == "proxy-credential" else "terok config get network.upstream_proxy"
    return Check("network", "upstream proxy", FAIL, refusal.why, fix)
