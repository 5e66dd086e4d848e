"""The container's dnsmasq: its configuration, and the two files that it reads again on SIGHUP.

`dnsmasq.conf` is fixed for one life of dnsmasq. What may resolve stands in `dnsmasq.servers`, which SIGHUP makes it
read again without a pause in its service, and `dnsmasq.hosts` holds one name made of a number: when that name answers,
the files of that number are in force. Answers are put into the firewall's sets before they are handed on; a name that
was allowed after the start has no line of its own in the configuration and teaches the web's sets and the set `live`.
Brokered names stand in `dnsmasq.hosts` too, with their synthetic addresses, and are never asked for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...supervisor.ground.errors import TerokError
from ..kit.addresses import NEVER, SPECIAL
from .model import OPEN_MODES, QUARANTINE, Model, taught_set
from .ruleset import FAMILIES, learned_set
from .targets import BELOW, NAME, WEB, Ports, Target

RESOLV_CONF = "nameserver 127.0.0.1\noptions timeout:2 attempts:3\n"
MARKER = "policy-{}.terok.invalid"


@dataclass(frozen=True)
class Features:
    """What an installed dnsmasq was built with."""

    version: tuple[int, ...] = (0,)
    nftset: bool = False
    conntrack: bool = False

    @property
    def usable(self) -> bool:
        """True when it can teach the firewall and prove which questions are its own."""
        return self.nftset and self.conntrack and self.version >= (2, 87)

    @property
    def usable_in_airlock(self) -> bool:
        """True when it can answer for the airlock (`address=/*.name/`); else /etc/hosts does, without wildcards."""
        return self.version >= (2, 86)

    @property
    def missing(self) -> str:
        """What it lacks, for a message."""
        lacking = [name for name in ("nftset", "conntrack") if not getattr(self, name)]
        return f"was built without {' and '.join(lacking)}" if lacking else "is older than 2.87"


def features(version_text: str) -> Features:
    """Read the output of `dnsmasq --version`."""
    number = re.search(r"Dnsmasq version ([0-9]+(?:\.[0-9]+)*)", version_text)
    options = re.search(r"Compile time options: (.*)", version_text)
    words = options[1].split() if options else []
    version = tuple(int(part) for part in number[1].split(".")) if number else (0,)
    return Features(version, "nftset" in words, "conntrack" in words)


def marker(generation: int) -> str:
    """The name that answers when the files of `generation` are in force."""
    return MARKER.format(generation)


def hosts(generation: int, led: Mapping[str, str]) -> str:
    """The file `dnsmasq.hosts`; `led`: names and their addresses."""
    return "".join(f"{address} {name}\n" for name, address in {marker(generation): "127.0.0.1", **led}.items())


def config(model: Model, servers_path: str, hosts_path: str, available: Features) -> str:
    """The file `dnsmasq.conf`.

    Args:
        model: the policy.
        servers_path, hosts_path: where the other two files are.
        available: decides about options that older versions refuse.

    Raises:
        TerokError: a path holds a character that the format cannot carry.
    """
    check_paths(servers_path, hosts_path)
    options = [
        "port=53",
        "listen-address=127.0.0.1",
        "bind-interfaces",
        "no-resolv",
        "no-hosts",
        "no-poll",
        "conntrack",
        "cache-size=0",  # an answer from the cache would not renew the sets
        *log_options(model),
        "edns-packet-max=1232",
        "host-record=localhost,127.0.0.1,::1",
        f"max-ttl={model.period}",
        f"servers-file={servers_path}",
        f"addn-hosts={hosts_path}",
    ]
    if available.version >= (2, 90):
        options.append("filter-rr=SVCB,HTTPS")  # their address hints are not learned
    options += [f"bogus-nxdomain={network}" for network in _never_answered(model)]
    options += _set_lines(model)
    return "\n".join(options) + "\n"


def check_paths(*paths: str) -> None:
    """Raises TerokError for a path that dnsmasq's configuration cannot carry."""
    for path in paths:
        if any(character in path for character in '\n"#,'):
            raise TerokError(f"dnsmasq cannot be given the path {path!r}.", fix="move XDG_DATA_HOME to a plainer path")


def log_options(model: Model) -> list[str]:
    """The log goes to the audit reader's pipe, never to a file: the container decides how often it asks.

    With log-async lines are dropped when the pipe is full; without it dnsmasq would wait for the reader.
    """
    if model.audit_group is None:
        return ["log-facility=/dev/null"]
    return ["log-queries", "log-facility=-", "log-async=100"]


def _never_answered(model: Model) -> list[str]:
    """Ranges that make a whole answer NXDOMAIN: what no name may lead to (DNS rebinding), loopback above all.

    A special range of which some address was allowed as such is left out: a name may then stand for it.
    """
    named = [target.network for target in model.allowed if not target.is_name]
    open_ = [
        text
        for text in (*SPECIAL, *model.own)
        for network in [ipaddress.ip_network(text)]
        if any(network.version == other.version and network.overlaps(other) for other in named)
    ]
    return [network for network in (*NEVER, *SPECIAL, *model.own) if network not in open_]


def lines(model: Model) -> dict[str, tuple[Ports, ...]]:
    """The domains that get an `nftset` line of their own, with the ports whose sets it fills.

    dnsmasq takes the line of the longest domain that is the name or above it, and only that one. A line therefore
    stands for the name and all below it, and carries the ports of every target that could match there.
    """
    targets = model.names()
    domains = {}
    for base in dict.fromkeys(target.value for target in targets):
        here = [target.ports for target in targets if target.value == base or target.matches(base)]
        domains[base] = tuple(dict.fromkeys(here))
    return domains


def line_of(name: str, domains: Iterable[str]) -> str | None:
    """The domain whose line dnsmasq takes for `name`; None: the line for all other names."""
    above = [domain for domain in domains if name == domain or name.endswith("." + domain)]
    return max(above, key=len, default=None)


def suffices(running: Mapping[str, Iterable[Ports]], model: Model) -> bool:
    """True when a dnsmasq that runs with these lines teaches the right sets for every name that `model` allows."""
    for target in model.names():
        probe = target.value if target.kind == NAME else "x." + target.value
        domain = line_of(probe, running)
        if target.ports not in (running[domain] if domain is not None else (WEB,)):
            return False
    return True


def touched(denial: Target, running: Iterable[str]) -> set[str | None]:
    """The lines through which names that `denial` covers can have taught addresses; None: the line for all others."""
    domains = list(running)
    if denial.kind == NAME:
        return {line_of(denial.value, domains)}
    below = {domain for domain in domains if domain.endswith("." + denial.value)}
    return {line_of("x." + denial.value, domains), *below}


def _set_lines(model: Model) -> Iterator[str]:
    for domain, ports in lines(model).items():
        yield _line(domain, ports, domain)
    yield _line("#", (WEB,), None)


def _line(domain: str, ports: Iterable[Ports], own: str | None) -> str:
    sets = []
    for family in FAMILIES:
        names = [taught_set(own, family)]
        names += [learned_set(port, family, generation) for port in ports for generation in "ab"]
        sets += [f"{family}#inet#terok#{name}" for name in names]
    return f"nftset=/{domain}/{','.join(sets)}"


def servers(model: Model) -> str:
    """The file `dnsmasq.servers`: for every name that the policy speaks of, whether it and what is below resolves."""
    if model.forwarder is None or model.mode == QUARANTINE:
        return "server=/#/\n"
    if model.mode in OPEN_MODES:
        return f"server={model.forwarder}\n" + "".join((*_refusals(model), *_kept_here(model)))
    verdicts = ["server=/#/\n"]
    led = model.led()
    for base in sorted({*led, *(target.value for target in (*model.names(), *model.denied) if target.is_name)}):
        # a question for another type, AAAA above all, must not bring the server's own address
        verdicts.append(f"server=/{base}/{_to(model, base not in led and model.verdict(base))}\n")
        verdicts.append(f"server=/*.{base}/{_to(model, model.verdict('x.' + base))}\n")
    return "".join(verdicts)


def _to(model: Model, allowed: bool) -> str:
    return str(model.forwarder) if allowed else ""


def _kept_here(model: Model) -> Iterator[str]:
    """Brokered names, in the modes in which every other name is asked for."""
    for name in model.led():
        below = not any(denial.matches(f"x.{name}") for denial in model.denied if denial.ports == WEB)
        yield f"server=/{name}/\nserver=/*.{name}/{_to(model, below)}\n"


def _refusals(model: Model) -> Iterator[str]:
    for target in model.denied:
        if target.is_name and target.ports == WEB:
            yield f"server=/{'*.' if target.kind == BELOW else ''}{target.value}/\n"
            if target.kind == NAME:
                yield f"server=/*.{target.value}/{model.forwarder}\n"
