"""The airlock's files: a policy becomes synthetic addresses, rules, routes, answers and the relay's policy. Pure.

In the airlock a container has only its loopback interface. Each allowed name has an address of `SYNTHETIC` that stands
for it inside this container; the rules hand every connection to such an address to the relay (`sidecars/airlock/`),
which decides by the name. dnsmasq has no upstream: it answers with these addresses or with NXDOMAIN.

In the other network modes only brokered hosts have such an address, and a relay (`brokered`, `beside`, `policy`).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ...supervisor.ground.errors import TerokError
from ...supervisor.ground.layout import AIRLOCK_PORT, Bundle
from . import expressions as nft
from .dnsmasq import check_paths, log_options, marker
from .expressions import ACCEPT, PROHIBIT, RESET, Rule, rule
from .model import ASK, OPEN_MODES, QUARANTINE, UP, Model
from .ruleset import FAMILIES, SERVICE_PORTS, Chain, Set, Table
from .special import HOST, HOST_NAME, SYNTHETIC, UNKNOWN
from .targets import BELOW, NAME, WEB, Target

if TYPE_CHECKING:
    from .state import State

_FIRST, _LAST = 0x100, 0x1FEFF
_LOOPBACK = {4: "127.0.0.0/8", 6: "::1"}


def allocate(addresses: Mapping[str, str], model: Model) -> dict[str, str]:
    """Every name of the policy with its address; one that has an address keeps it for the container's whole life.

    Raises:
        TerokError: there are more names than addresses.
    """
    held = {HOST_NAME: HOST, **addresses}
    base = int(ipaddress.ip_network(SYNTHETIC).network_address)
    following = max(_FIRST, *(int(ipaddress.ip_address(address)) - base + 1 for address in held.values()))
    for target in model.allowed:
        key = pattern(target)
        if target.is_name and key not in held:
            if following > _LAST:
                raise TerokError(f"The airlock has addresses for {_LAST - _FIRST + 1} names and no more.")
            held[key] = str(ipaddress.ip_address(base + following))
            following += 1
    return held


def brokered(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The brokered names of a container outside of the airlock, with their addresses."""
    first = ipaddress.ip_network(SYNTHETIC).network_address + _FIRST
    return tuple((name, str(first + number)) for number, name in enumerate(sorted(set(names))))


def pattern(target: Target) -> str:
    """A target's name without its ports: `example.com`, `*.example.com`."""
    return f"*.{target.value}" if target.kind == BELOW else target.value


def is_open(model: Model) -> bool:
    """Whether the relay gets connections to every address."""
    return model.mode in OPEN_MODES


def answers_unknown(model: Model) -> bool:
    """Whether names that nothing allows have the common address: the relay then reads the name, and decides or asks."""
    return is_open(model) or model.mode == ASK


# --- rules and routes -------------------------------------------------------------------------------------


def table(model: Model) -> Table:
    """The rules: everything but loopback is closed, and connections to what may be allowed go to the relay."""
    return Table(
        tuple(Set(f"led{family}", family, tuple(_led(model, family)), interval=True) for family in FAMILIES),
        (
            Chain("output", tuple(_output(model)), ("output", "drop")),
            Chain("input", (rule(nft.in_loopback(), ACCEPT),), ("input", "drop")),
            Chain("forward", (), ("forward", "drop")),
            Chain("relay", tuple(_relay(model)), ("output", "accept"), kind="nat", priority=-100),
        ),
    )


def _led(model: Model, family: int) -> list[str]:
    return [network for network in (SYNTHETIC, *ranges(model)) if (":" in network) == (family == 6)]


def ranges(model: Model) -> list[str]:
    """The addresses and ranges that the policy allows as such, merged, each as `ADDRESS/LENGTH`."""
    networks = [target.network for target in model.allowed if not target.is_name]
    merged: list[str] = []
    for version in FAMILIES:
        merged += map(str, ipaddress.collapse_addresses(network for network in networks if network.version == version))  # type: ignore[type-var]  # one family
    return merged


def _output(model: Model) -> Iterator[Rule]:
    if model.mode == QUARANTINE:
        for ports in filter(None, (SERVICE_PORTS, [(port, port) for port in model.published])):
            yield rule(nft.out_loopback(), nft.port("tcp", "dport", ports), PROHIBIT)
            yield rule(nft.out_loopback(), nft.port("tcp", "sport", ports), PROHIBIT)
    yield rule(nft.out_loopback(), ACCEPT)
    yield rule(nft.layer4("tcp"), RESET)  # an ICMP error lets connect(2) try for another second
    yield rule(PROHIBIT)


def _relay(model: Model) -> Iterator[Rule]:
    everything = [(1, 0xFFFF)]
    for family in FAMILIES:
        if is_open(model):
            led = nft.address_outside(family, _LOOPBACK[family])
        else:
            led = nft.address(family, "daddr", f"@led{family}")
        yield rule(led, nft.port("tcp", "dport", everything), nft.redirect(AIRLOCK_PORT))


def loopback(model: Model) -> str:
    """The file `loopback.json` (see `supervisor/wall/loopback.py`)."""
    local = ["0.0.0.0/0", "::/0"] if is_open(model) else ranges(model)
    return json.dumps({"local": local}) + "\n"


def beside() -> str:
    """The same file outside of the airlock: synthetic addresses are local, and no route is refused."""
    return json.dumps({"local": [], "closed": False}) + "\n"


# --- names ---------------------------------------------------------------------------------------------------


def hosts(state: State, container: str) -> str:
    """Exact names, `localhost`, the container's own name, and the name that shows which files are in force."""
    lines = ["127.0.0.1 localhost", f"127.0.0.1 {container}", f"127.0.0.1 {marker(state.generation)}"]
    if state.model.mode != QUARANTINE:
        lines += [f"{address} {name}" for name, address in _answers(state).items() if not name.startswith("*.")]
    return "\n".join(lines) + "\n"


def _answers(state: State) -> dict[str, str]:
    """Allowed patterns and their addresses."""
    assert state.addresses is not None
    wanted = dict.fromkeys(pattern(target) for target in state.model.names())
    return {name: state.addresses[name] for name in wanted}


def config(state: State, bundle: Bundle) -> str:
    """The file `dnsmasq.conf`: what no line answers is NXDOMAIN, and nothing is ever asked upstream.

    Raises:
        TerokError: a path holds a character that the format cannot carry.
    """
    check_paths(bundle.dnsmasq_hosts)
    options = ["port=53", "listen-address=127.0.0.1", "bind-interfaces", "no-resolv", "no-hosts", "no-poll"]
    options += [*log_options(state.model), "edns-packet-max=1232", f"addn-hosts={bundle.dnsmasq_hosts}"]
    for name, address in {**_patterns(state), "#": UNKNOWN if answers_unknown(state.model) else ""}.items():
        options.append(f"address=/{name}/{address}")
        if address:
            options.append(f"local=/{name}/")  # without it, a question for another type is NXDOMAIN, and musl gives up
    return "\n".join(options) + "\n"


def _patterns(state: State) -> dict[str, str]:
    """The answers that are not for one exact name; empty: NXDOMAIN.

    dnsmasq takes the line of the longest name, `*.x` is longer than `x`, and its hosts file comes before all lines.
    """
    model = state.model
    if model.mode == QUARANTINE:
        return {}
    below = _answers(state)
    otherwise = UNKNOWN if answers_unknown(model) else ""

    def answer(name: str) -> str:
        if any(denial.matches(name) and denial.ports == WEB for denial in model.denied):
            return ""
        labels = name.split(".")
        parents = ["*." + ".".join(labels[at:]) for at in range(1, len(labels))]
        return next((below[parent] for parent in parents if parent in below), otherwise)

    # A name that is allowed or denied needs a line of its own as soon as a wildcard above it answers otherwise: dnsmasq
    # looks at one line, the longest, and never falls back to a shorter one.
    lines = {f"*.{target.value}": answer(f"x.{target.value}") for target in model.names() if target.kind == BELOW}
    for denial in (target for target in model.denied if target.is_name and target.ports == WEB):
        lines[f"*.{denial.value}"] = answer(f"x.{denial.value}")
        if denial.kind == NAME:
            lines[denial.value] = answer(denial.value)
    return lines


# --- the relay ---------------------------------------------------------------------------------------------


def policy(state: State, container: str) -> str:
    """The file `airlock/policy.json` (see `sidecars/airlock/policy.py`).

    The relay connects from the host's network. Where the container has none, it may only hand over to the vault.
    """
    model = state.model
    names = dict(model.brokered) if state.addresses is None else state.addresses
    if state.addresses is None and model.forwarder is None:
        model = replace(model, allowed=(), mode=QUARANTINE if model.mode == QUARANTINE else UP)
    document = {
        "container": container,
        "generation": state.generation,
        "mode": model.mode,
        "until": state.until,
        "allowed": [str(target) for target in model.allowed],
        "denied": [str(target) for target in model.denied],
        "passing": {str(target): until for target, until in state.passing},
        "names": {address: name for name, address in names.items()},
    }
    return json.dumps(document) + "\n"


def not_carried(model: Model) -> list[str]:
    """The targets that need UDP, which the airlock does not carry."""
    return [str(target) for target in model.allowed if target.ports.protocol == "udp"]
