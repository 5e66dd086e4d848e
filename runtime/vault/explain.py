"""`terok explain`: what would happen to a request. It asks the code that decides in the relay and in the vault."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...sidecars.airlock.policy import Policy, decode
from ...sidecars.airlock.tunnels import settings as tunnels
from ...sidecars.gate import config as gate_config
from ...sidecars.kit.codec import parse_request
from ...sidecars.kit.proxy.egress import from_dict
from ...sidecars.kit.refusal import Refusal, Refused
from ...sidecars.roster import brokered
from ...sidecars.shield import airlock
from ...sidecars.shield import bundle as shield_bundle
from ...sidecars.shield.model import QUARANTINE
from ...sidecars.store.store import Store
from ...sidecars.vault.canonical import canonical, methods
from ...sidecars.vault.decide import Plan
from ...sidecars.vault.keeper import Keeper
from ...sidecars.vault.tls.asked import decide_at
from ...sidecars.vault.tls.site import Site
from ...supervisor import schema
from ...supervisor.ground.errors import Exit, TerokError
from ..kit import files
from ..kit.verb import CONTAINER, argument, verb

if TYPE_CHECKING:
    import argparse

    from ...sidecars.shield.state import State
    from ...supervisor.schema import Wiring
    from ..kit.env import Env

HIDDEN = "none"


@dataclasses.dataclass
class Explained:
    """What would happen.

    allowed: the request would arrive at its target.
    target: host and port. mode: the shield's. by: the entry of the policy that decides, or why it is refused.
    way: `terminated` (the vault serves it), `spliced` (the relay passes bytes), `direct` (Podman's network carries it),
        `refused`.
    provider, credential: whose credential would be used, and how: `phantom`, `ambient`, `none`, `own`.
    rule: the provider's rule that decides.
    why, fix: of a refusal.
    gate: the scope's gate serves git for this URL.
    proxy: the HTTP proxy that the connection goes through, as `host:port`.
    """

    url: str
    method: str
    target: str
    mode: str = ""
    way: str = "refused"
    allowed: bool = False
    by: str = ""
    provider: str | None = None
    credential: str | None = None
    rule: str | None = None
    why: str = ""
    fix: str = ""
    gate: bool = False
    proxy: str | None = None


@verb(
    CONTAINER,
    argument("url", metavar="URL", help="https:// or http://"),
    argument("--method", metavar="METHOD", default="GET", help="the request's method (default: GET)"),
    examples=("terok explain box https://api.github.com/user", "terok explain box https://example.com --json"),
    exits=((Exit.REFUSED, "the request would be refused"),),
)
def run_explain(args: argparse.Namespace, env: Env) -> int:
    """Say what would happen to a request of a container, without sending it.

    The request carries the container's phantom token where it has one for the host.
    """
    bundle = env.layout.bundle(args.name)
    try:
        wiring = schema.load(bundle.sidecar)
    except schema.SidecarError as error:
        raise TerokError(error.what, fix=error.fix, code=Exit.NOT_FOUND) from error
    answer = explain(env, wiring, args.url, args.method.upper())
    env.out.emit(dataclasses.asdict(answer), text(answer))
    return Exit.OK if answer.allowed else Exit.REFUSED


def explain(env: Env, wiring: Wiring, url: str, method: str) -> Explained:
    """What would happen to a request; raises TerokError for a URL that is none, or a container without a shield."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = (parts.hostname or "").lower().rstrip(".").encode("idna").decode()
    except (ValueError, UnicodeError):
        host, port = "", 0
    if parts.scheme not in ("http", "https") or not host:
        raise TerokError(f"{url[:200]!r} is not an http or https URL.", code=Exit.USAGE)
    answer = Explained(url, method, f"{host}:{port}")
    answer.gate = _at_gate(env, wiring, url)
    state, named = _state(wiring), brokered_hosts(wiring)
    # as the relay reads it; in the other network modes the rules for names say the same
    policy = decode(airlock.policy(state, wiring.container).encode(), named)
    answer.mode = policy.mode
    place = (host, port)
    verdict = _judge(policy, host, port)
    answer.by, answer.allowed = verdict[1], verdict[0]
    in_airlock = state.addresses is not None
    if not answer.allowed and not in_airlock and state.model.forwarder is None and policy.mode != QUARANTINE:
        answer.why = "the container has no network"  # no allowance would change that
    elif not answer.allowed:
        answer.why, answer.fix = verdict[1], verdict[2]
    elif place in named and parts.scheme == "https":
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        _ask_vault(env, wiring, answer, Site(*place), target)
    elif place in named:
        answer.allowed, answer.why = False, f"{host} is reached over TLS only"
    else:
        # outside of the airlock only brokered names lead to the relay, on all of their ports
        at_relay = in_airlock or any(host == name for name, _ in named)
        answer.way = "spliced" if at_relay else "direct"
        answer.credential = HIDDEN
    if answer.allowed:
        answer.proxy = proxy_of(wiring, answer.way, host)
    return answer


def proxy_of(wiring: Wiring, way: str, host: str) -> str | None:
    """The proxy through which the vault or the relay of a container reaches a host; None: none."""
    settings = {sidecar.name: sidecar.settings for sidecar in wiring.sidecars}
    if way == "terminated":
        document = settings.get("vault", {}).get("egress")
    else:
        own = tunnels.read_settings(settings.get("airlock", {}).get("tunnels"))
        document = own.egress.to_dict() if own is not None else None
    egress = from_dict(document)
    return egress.authority if egress.carries(host) else None


def brokered_hosts(wiring: Wiring) -> frozenset[tuple[str, int]]:
    """The hosts that the container's vault terminates."""
    vault = next((sidecar for sidecar in wiring.sidecars if sidecar.name == "vault"), None)
    hosts = vault.settings.get("tls_hosts") if vault is not None else None
    return frozenset(brokered.parse(str(host)) for host in hosts) if isinstance(hosts, list) else frozenset()


def _state(wiring: Wiring) -> State:
    if wiring.shield is None:
        raise TerokError(f"{wiring.container} has no shield: its network is Podman's.", code=Exit.NOT_FOUND)
    return shield_bundle.read_state(wiring.bundle)


def _judge(policy: Policy, host: str, port: int) -> tuple[bool, str, str]:
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        verdict = policy.judge_name(host, port, time.time())
    else:
        verdict = policy.judge_address(host, port, time.time())
    return verdict.allowed, verdict.why, verdict.allow


def _ask_vault(env: Env, wiring: Wiring, answer: Explained, site: Site, target: str) -> None:
    """Decide as the vault does, with the container's token for the host's provider if there is one."""
    answer.way = "terminated"
    with Store.open(env.layout.vault_db, read_only=True) as store:
        keeper = Keeper(store, env.layout.vault_routes, env.layout.vault_gates, [], wiring.container)
        keeper.look()
        here = keeper.at(site.host, site.port)
        head = f"{answer.method} {target} HTTP/1.1\r\nHost: {site.host}:{site.port}\r\n"
        for grant, _ in here[:1]:
            if token := _token(wiring, grant.provider):
                head += f"Authorization: Bearer {token}\r\n"
        try:
            request = parse_request(f"{head}\r\n".encode("ascii"))
        except Refused as refused:
            decision: Plan | Refusal = refused.refusal
        except UnicodeError:
            raise TerokError("The URL has characters that are not escaped.", code=Exit.USAGE) from None
        else:
            decision = decide_at(site, request, keeper.places, keeper.lookup, keeper.route, here)
    if isinstance(decision, Refusal):
        answer.allowed, answer.rule = False, decision.rule.removeprefix("rule:")
        answer.provider, answer.why, answer.fix = decision.provider or None, decision.why, decision.allow
        return
    answer.provider, answer.credential = decision.grant.provider, decision.credential
    path = canonical(request.target.partition(b"?")[0]) or b"/"
    behind = decision.target.behind(path) or path
    rule = decision.route.rule(methods(request.method, [], body=False), behind)
    answer.rule = rule.name if rule is not None else None


def _token(wiring: Wiring, provider: str) -> str:
    kept = files.read_json(wiring.bundle.tokens)
    tokens = kept.get("tokens") if isinstance(kept, dict) else None
    token = tokens.get(provider) if isinstance(tokens, dict) else None
    return token if isinstance(token, str) else ""


def _at_gate(env: Env, wiring: Wiring, url: str) -> bool:
    """Whether git in the container takes this URL to the scope's gate."""
    if wiring.scope is None or all(sidecar.name != "gate" for sidecar in wiring.sidecars):
        return False
    try:
        upstream = gate_config.load(env.layout.gate_home(wiring.scope)).url
    except TerokError:
        return False
    plain = upstream.removesuffix("/").removesuffix(".git")
    return url == plain or url.startswith((f"{plain}/", f"{plain}.git"))


def text(answer: Explained) -> str:
    """For people."""
    verdict = "would arrive" if answer.allowed else "would be refused"
    lines = [f"{answer.method} {answer.url} {verdict}."]
    if answer.why:
        lines.append(f"  why:        {answer.why}")
    if answer.fix:
        lines.append(f"  fix:        {answer.fix}")
    lines.append(f"  target:     {answer.target}, mode {answer.mode}, {answer.by}")
    ways = {
        "terminated": "the vault terminates TLS",
        "spliced": "the relay passes it on, unread",
        "direct": "Podman's network, straight to the server",
        "refused": "refused",
    }
    lines.append(f"  way:        {ways[answer.way]}")
    if answer.proxy:
        lines.append(f"  proxy:      {answer.proxy} resolves the name and connects")
    if answer.provider:
        lines.append(f"  provider:   {answer.provider}, credential: {answer.credential or HIDDEN}")
    if answer.rule:
        lines.append(f"  rule:       {answer.rule}")
    if answer.gate:
        lines.append("  gate:       git takes this URL to the gate of the scope")
    return "\n".join(lines)
