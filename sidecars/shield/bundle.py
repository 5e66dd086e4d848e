"""The shield's files in a state bundle: written at launch, changed by the live verbs, read by hook and dnsmasq."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...supervisor.ground import audit, durable, paste
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Bundle
from ...supervisor.schema import Shield
from ...supervisor.wall import firewall
from ..kit.addresses import kind
from . import airlock, dnsmasq, ruleset, static
from .dnsmasq import Features
from .model import ASK, QUARANTINE, UP, Forwarder, Model, unique
from .profiles import load, parse_lines
from .special import check_allowed
from .state import State
from .targets import Ports, Target, parse

VERSION = 1
ADDRESSES_MAX = 2000
"""Addresses and ranges of a policy: a netlink message has to fit into net.core.wmem_max, 208 KiB by default."""


@dataclass(frozen=True)
class Rendered:
    """Every generated file, by what it is."""

    ruleset: str
    expected: str
    dnsmasq_conf: str | None
    dnsmasq_servers: str
    dnsmasq_hosts: str
    resolv_conf: str
    etc_hosts: str
    loopback: str | None = None
    policy: str | None = None


def render(state: State, bundle: Bundle) -> Rendered:
    """Generate the files of a state; pure."""
    if state.addresses is not None:
        return _render_airlock(state, bundle)
    table = ruleset.build(state.model)
    conf, led = None, state.model.led()
    if state.has_dnsmasq:
        conf = dnsmasq.config(state.model, bundle.dnsmasq_servers, bundle.dnsmasq_hosts, state.features)
    return Rendered(
        ruleset=ruleset.text(table),
        expected=ruleset.structure_text(table),
        dnsmasq_conf=conf,
        dnsmasq_servers=dnsmasq.servers(state.model),
        dnsmasq_hosts=dnsmasq.hosts(state.generation, led),
        resolv_conf=dnsmasq.RESOLV_CONF,
        etc_hosts=static.hosts({**state.hosts, **{name: [address] for name, address in led.items()}}),
        loopback=airlock.beside() if state.model.brokered else None,
        policy=airlock.policy(state, bundle.name) if state.model.brokered else None,
    )


def _render_airlock(state: State, bundle: Bundle) -> Rendered:
    table = airlock.table(state.model)
    hosts = airlock.hosts(state, bundle.name)
    return Rendered(
        ruleset=ruleset.text(table),
        expected=ruleset.structure_text(table),
        dnsmasq_conf=airlock.config(state, bundle) if state.has_dnsmasq else None,
        dnsmasq_servers="",
        dnsmasq_hosts=hosts,
        resolv_conf=dnsmasq.RESOLV_CONF,
        etc_hosts=hosts,
        loopback=airlock.loopback(state.model),
        policy=airlock.policy(state, bundle.name),
    )


def table(state: State) -> ruleset.Table:
    """The rules of a state."""
    return airlock.table(state.model) if state.addresses is not None else ruleset.build(state.model)


def prepare(
    bundle: Bundle,
    *,
    profiles: Sequence[str],
    user_profiles: str | None,
    forwarder: str | None,
    features: Features,
    services: Sequence[tuple[str, int]] = (),
    published: Sequence[int] = (),
    published_udp: Sequence[int] = (),
    audit_group: int | None = None,
    in_airlock: bool = False,
    ask: bool = False,
    own: Sequence[str] = (),
    also: Sequence[str] = (),
    brokered: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the shield's files into a bundle, with what `allow` and `deny` recorded there before.

    Args:
        bundle: the container's state bundle; its directory exists.
        profiles: names of the profiles.
        user_profiles: the operator's profile directory.
        forwarder: the network's resolver, ADDRESS or ADDRESS#PORT; None without a network.
        features: of the installed dnsmasq.
        services: (address, port) of TCP services of terok at the network's gateway (`services.mode: tcp`).
        published: TCP ports of the container that terok publishes, in the airlock.
        published_udp: UDP ports that the container publishes.
        audit_group: NFLOG group of the audit sidecar.
        own: the host's own addresses, which names do not open.
        also: targets besides those of the profiles.
        brokered: names of brokered hosts, outside of the airlock; there they are among `also`.
        ask: connections to unknown names wait for a decision; only in the airlock.
        in_airlock: the container has the airlock's network; names keep the addresses that they had there before.

    Returns:
        The `shield` object of the sidecar JSON.

    Raises:
        TerokError: a profile is missing or wrong, or a list in the bundle is.
    """
    base = unique([*load(profiles, user_profiles), *map(parse, also)])
    model = Model(
        allowed=unique([*base, *read_list(bundle.live_allowed)]),
        denied=unique(read_list(bundle.deny_list)),
        forwarder=Forwarder.parse(forwarder) if forwarder else None,
        services=tuple(services),
        published=tuple(sorted(set(published))),
        published_udp=tuple(published_udp),
        audit_group=audit_group,
        own=ordinary(own),
        brokered=airlock.brokered(brokered),
        mode=ASK if ask and in_airlock else UP,
    )
    check_size(model)
    addresses = _addresses_before(bundle) if in_airlock else None
    state = with_addresses(with_lines(State(tuple(profiles), base, model, {}, features, addresses=addresses)))
    write(bundle, state)
    notes = [note for target in base for note in check_allowed(target)]
    if notes:
        audit.append(bundle.audit, "shield", "profiles", profiles=list(profiles), notes=notes)
    shield = shield_of(bundle, state)
    loopback = {"loopback": shield.loopback} if shield.loopback else {}
    return {
        "ruleset": shield.ruleset,
        "expected": shield.expected,
        "dnsmasq_conf": shield.dnsmasq_conf,
        "probe": shield.probe,
        **loopback,
    }


def shield_of(bundle: Bundle, state: State) -> Shield:
    """The files that the supervisor and the verbs put in force."""
    return Shield(
        ruleset=bundle.ruleset,
        expected=bundle.expected,
        dnsmasq_conf=bundle.dnsmasq_conf if state.has_dnsmasq else None,
        probe=dnsmasq.marker(state.generation),
        loopback=bundle.loopback if state.addresses is not None or state.model.brokered else None,
    )


def _addresses_before(bundle: Bundle) -> dict[str, str]:
    """The synthetic addresses that an earlier launch of the container gave out."""
    try:
        return _stored(bundle).addresses or {}
    except (FileNotFoundError, TerokError):
        return {}


def ordinary(own: Sequence[str]) -> tuple[str, ...]:
    """Addresses that no range of the table holds, as ranges of one address, in order."""
    alone = [address for address in sorted(own) if not kind(address)]
    return tuple(f"{address}/{128 if ':' in address else 32}" for address in alone)


def check_size(model: Model) -> None:
    """Raises TerokError when the policy has more addresses than one transaction can carry."""
    fixed = sum(not target.is_name for target in (*model.allowed, *model.denied))
    if fixed > ADDRESSES_MAX:
        raise TerokError(
            f"{fixed} addresses and ranges are more than one transaction can carry ({ADDRESSES_MAX}).",
            fix="join them into larger ranges",
            code=Exit.USAGE,
        )


def with_lines(state: State) -> State:
    """The state for a dnsmasq that starts now: every allowed name gets its line."""
    lines = dnsmasq.lines(state.model)
    return replace(state, lines=lines, model=replace(state.model, taught=tuple(lines)))


def with_addresses(state: State) -> State:
    """The state with the addresses of its names, where no dnsmasq teaches them: synthetic or present ones."""
    if state.addresses is not None:
        return replace(state, addresses=airlock.allocate(state.addresses, state.model))
    if state.features.usable or state.model.forwarder is None:
        return state
    model, hosts = static.resolve(state.model, static.lookup)
    return replace(state, model=model, hosts=hosts)


def at_start(state: State) -> State:
    """What a start of the container begins with: closed or asking, without what was allowed for a time."""
    lasting = state.model.mode == QUARANTINE or (state.model.mode == ASK and state.until is None)
    mode = state.model.mode if lasting else UP
    model, hosts = state.model.with_mode(mode), state.hosts
    if state.passing:
        model = replace(model, allowed=unique([*state.base, *state.lasting()]))
        if model.resolved:
            model, hosts = static.resolve(model, lambda names: {name: state.hosts.get(name, []) for name in names})
    return replace(state, model=model, hosts=hosts, until=None, passing=())


def write(bundle: Bundle, state: State) -> Rendered:
    """Write all files of a state; each appears whole or not at all. Returns what is in force now.

    What a start begins with lies under the plain names. Where the present differs, its ruleset lies beside it, and
    what dnsmasq may answer at a start lies beside what it may answer now (see `supervisor/wall/firewall.py`).
    """
    now = render(state, bundle)
    start = now if at_start(state) == state else render(at_start(state), bundle)
    if now.policy is not None:
        _write_relay(bundle, now, start)
    if state.addresses is not None:
        _write_airlock_dns(bundle, now, start)
    write_file(bundle.ruleset, start.ruleset)
    write_file(bundle.expected, start.expected)
    differs = now.ruleset != start.ruleset
    _beside(bundle.ruleset + firewall.NOW, now.ruleset if differs else None)
    _beside(bundle.expected + firewall.NOW, now.expected if differs else None)
    write_file(bundle.resolv_conf, now.resolv_conf, mode=0o644)
    if now.dnsmasq_conf is None:
        _write_in_place(bundle.hosts, now.etc_hosts)
    write_dns(bundle, now, start)
    if now.dnsmasq_conf is not None:
        write_file(bundle.dnsmasq_conf, now.dnsmasq_conf)
    write_file(bundle.shield, encode(state))
    return now


def write_dns(bundle: Bundle, now: Rendered, start: Rendered) -> None:
    """Write what dnsmasq reads on SIGHUP."""
    _beside(
        bundle.dnsmasq_servers + firewall.START,
        start.dnsmasq_servers if now.dnsmasq_servers != start.dnsmasq_servers else None,
    )
    write_file(bundle.dnsmasq_servers, now.dnsmasq_servers)
    write_file(bundle.dnsmasq_hosts, now.dnsmasq_hosts)


def _write_relay(bundle: Bundle, now: Rendered, start: Rendered) -> None:
    """Write what the relay and its loopback network need: routes and the relay's policy."""
    assert now.policy is not None and now.loopback is not None and start.policy is not None and start.loopback
    os.makedirs(bundle.airlock, 0o700, exist_ok=True)
    write_file(bundle.loopback, start.loopback)
    _beside(bundle.loopback + firewall.NOW, now.loopback if now.loopback != start.loopback else None)
    _beside(bundle.airlock_policy + firewall.START, start.policy if start.policy != now.policy else None)
    write_file(bundle.airlock_policy, now.policy)


def _write_airlock_dns(bundle: Bundle, now: Rendered, start: Rendered) -> None:
    """Write what the airlock's dnsmasq answers at a start, where that differs."""
    for path, content, at_next in (
        (bundle.dnsmasq_hosts, now.dnsmasq_hosts, start.dnsmasq_hosts),
        (bundle.dnsmasq_conf, now.dnsmasq_conf, start.dnsmasq_conf),
    ):
        _beside(path + firewall.START, at_next if at_next != content else None)


def _write_in_place(path: str, content: str) -> None:
    """Change a file that is mounted into the container: a mount stays with the file that it was made of."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o644)  # whatever the umask says
        file.write(content)


def _beside(path: str, content: str | None) -> None:
    if content is not None:
        write_file(path, content)
        return
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def write_file(path: str, content: str, *, mode: int = 0o600) -> None:
    """Replace a generated file under the shield's lock."""
    durable.replace(path, content, mode=mode, durable=False, only_writer=True)


def write_lists(bundle: Bundle, live: Sequence[Target], denied: Sequence[Target]) -> None:
    """Write `live.allowed` and `deny.list`."""
    # a person decided this, and nothing else says it again
    durable.replace(bundle.live_allowed, "".join(f"{target}\n" for target in live), only_writer=True)
    durable.replace(bundle.deny_list, "".join(f"{target}\n" for target in denied), only_writer=True)


def read_list(path: str) -> list[Target]:
    """The targets of `live.allowed` or `deny.list`; none when the file does not exist.

    Raises:
        TargetError: a line is wrong, with file and line.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse_lines(file.read(), path, denied=path.endswith("deny.list"))
    except FileNotFoundError:
        return []


def encode(state: State) -> str:
    """`shield.json`."""
    model = state.model
    document = {
        "version": VERSION,
        "profiles": state.profiles,
        "base": [str(target) for target in state.base],
        "model": {
            "allowed": [str(target) for target in model.allowed],
            "denied": [str(target) for target in model.denied],
            "resolved": [str(target) for target in model.resolved],
            "forwarder": str(model.forwarder) if model.forwarder else None,
            "mode": model.mode,
            "services": model.services,
            "published": model.published,
            "published_udp": model.published_udp,
            "own": model.own,
            "brokered": model.brokered,
            "audit_group": model.audit_group,
            "epoch": model.epoch,
            "dns_epoch": model.dns_epoch,
            "period": model.period,
        },
        "lines": {
            name: [[port.protocol, port.low, port.high] for port in ports] for name, ports in state.lines.items()
        },
        "features": [state.features.version, state.features.nftset, state.features.conntrack],
        "fresh": state.fresh,
        "generation": state.generation,
        "hosts": state.hosts,
        "until": state.until,
        "passing": [[str(target), until] for target, until in state.passing],
        "addresses": state.addresses,
    }
    return json.dumps(document, indent=1) + "\n"


def decode(text: str) -> State:
    """Read `shield.json`; raises TerokError when it is not terok's, or newer."""
    try:
        data = json.loads(text)
        if data["version"] > VERSION:
            raise TerokError("The container's shield.json was written by a newer terok.", fix="upgrade terok")
        model, lines = data["model"], data["lines"]
        version, nftset, conntrack = data["features"]
        return State(
            profiles=tuple(data["profiles"]),
            base=tuple(parse(text) for text in data["base"]),
            model=Model(
                allowed=tuple(parse(text) for text in model["allowed"]),
                denied=tuple(parse(text) for text in model["denied"]),
                resolved=tuple(parse(text) for text in model["resolved"]),
                forwarder=Forwarder.parse(model["forwarder"]) if model["forwarder"] else None,
                mode=model["mode"],
                taught=tuple(lines),
                services=tuple((address, port) for address, port in model["services"]),
                published=tuple(model.get("published", ())),  # bundles of older versions have none
                published_udp=tuple(model["published_udp"]),
                own=tuple(model.get("own", ())),
                brokered=tuple((name, address) for name, address in model.get("brokered", ())),
                audit_group=model["audit_group"],
                epoch=model["epoch"],
                dns_epoch=model["dns_epoch"],
                period=model["period"],
            ),
            lines={name: tuple(Ports(*pair) for pair in ports) for name, ports in lines.items()},
            features=Features(tuple(version), nftset, conntrack),
            fresh=tuple(data["fresh"]),
            generation=data["generation"],
            hosts=data["hosts"],
            until=data["until"],
            passing=tuple((parse(text), until) for text, until in data.get("passing", ())),
            addresses=data.get("addresses"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TerokError(
            f"The container's shield.json is damaged ({error!r}).", fix="run `terok prepare` again"
        ) from error


def _stored(bundle: Bundle) -> State:
    with open(bundle.shield, encoding="utf-8", errors="replace") as file:
        return decode(file.read())  # which refuses what was no UTF-8: it is damaged


def read_state(bundle: Bundle) -> State:
    """The state in a bundle. What lasts for one start has ended when a start has taken its files away since.

    Raises:
        TerokError: the container has no shield, or its state is damaged.
    """
    try:
        state = _stored(bundle)
        beside = (
            bundle.ruleset + firewall.NOW,
            bundle.dnsmasq_servers + firewall.START,
            bundle.airlock_policy + firewall.START,
        )
        return state if any(map(os.path.exists, beside)) else at_start(state)
    except FileNotFoundError:
        raise TerokError(
            f"Container {bundle.name} has no shield.", fix=f"terok run {paste.quoted(bundle.name)} ..."
        ) from None
