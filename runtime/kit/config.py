"""The configuration: frozen records with documented defaults, read strictly from `config.yml`.

Each key is one dataclass field made by `key(default, kind, doc)`; the file reader, `terok config` and the
documentation are driven by these fields, so a key exists in one place only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import Layout

NETWORK_MODES = ("airlock", "auto", "slirp4netns", "pasta", "bridge", "none")


def key(default: Any, kind: str, doc: str) -> Any:
    """A configuration key.

    Args:
        default: its value when the file says nothing; lists as tuples.
        kind: what the file may say (see `config_file.KINDS`), or `a|b|c` for one of these words.
        doc: one sentence for `terok config show --defaults`.
    """
    return field(default=default, metadata={"kind": kind, "doc": doc})


@dataclass(frozen=True)
class Services:
    """How containers reach the services."""

    mode: str = key(
        "socket", "socket|tcp", "socket: no TCP port on the host; tcp: three ports on 127.0.0.1 a container."
    )


@dataclass(frozen=True)
class Paths:
    """Where things are, when the XDG directories are not the right place."""

    data: str | None = key(
        None, "path?", "State bundles, hooks and the vault; default: terok/ in the XDG data directory."
    )
    runtime: str | None = key(None, "path?", "Sockets; default: terok/ in the XDG runtime directory. Keep it short.")


@dataclass(frozen=True)
class NetworkConfig:
    """The containers' network."""

    mode: str = key(
        "airlock",
        "|".join(NETWORK_MODES),
        "airlock: loopback only; every connection goes through the relay, which decides by name (docs/airlock.md). "
        "auto: pasta for Podman 5 and newer, slirp4netns before (rootless); bridge for root.",
    )
    port_range: tuple[int, int] | None = key(
        None, "ports?", "[FIRST, LAST]: where tcp mode looks for ports; default: the kernel picks them."
    )
    upstream_proxy: str | None = key(
        None,
        "proxy?",
        "http://HOST:PORT or https://HOST:PORT: the HTTP proxy through which the airlock, the vault and the gate reach "
        "upstreams (docs/howto/behind-a-proxy.md). Its credential: terok vault proxy set.",
    )
    no_proxy: tuple[str, ...] = key(
        (), "hosts", "Hosts that are reached without the proxy: names, *.SUFFIX, addresses and ranges."
    )
    upstream_ca: str | None = key(
        None,
        "path?",
        "File of authorities that are trusted besides the system's: those of the proxy, and of what inspects TLS.",
    )


@dataclass(frozen=True)
class ShieldConfig:
    """The egress firewall."""

    enabled: bool = key(True, "bool", "Whether containers get the firewall unless --no-shield says otherwise.")
    profiles: tuple[str, ...] = key(("dev-standard",), "words", "Profiles of a container that names none.")
    unknown: str = key(
        "refuse",
        "refuse|ask",
        "What the airlock does with a name that nothing allows; ask: hold the connection until you decide.",
    )
    dns: str = key(
        "auto",
        "auto|dnsmasq|static",
        "auto: dnsmasq when it supports nftset, else names are resolved when the container is prepared.",
    )
    forwarder: str | None = key(
        None,
        "word?",
        "The only resolver that dnsmasq may ask, ADDRESS or ADDRESS#PORT; default: the network mode's own.",
    )


@dataclass(frozen=True)
class VaultConfig:
    """The vault's process in each container's supervisor."""

    enabled: bool = key(True, "bool", "Whether containers of a scope get the vault.")
    start: str = key("demand", "demand|eager", "demand: started by the first connection; eager: with the container.")
    idle_seconds: int = key(300, "seconds", "How long it stays without a connection; 0: for ever.")
    tls: bool = key(
        True,
        "bool",
        "Whether HTTPS at the providers' own hosts works, with a certificate authority for each container; off: "
        "clients need the vault's address (docs/tls.md).",
    )
    tls_except: tuple[str, ...] = key(
        (), "words", "Where TLS is off all the same: HOST for all scopes, SCOPE/ for a scope, SCOPE/HOST for one host."
    )


@dataclass(frozen=True)
class SshConfig:
    """The SSH signer's process in each container's supervisor."""

    enabled: bool = key(True, "bool", "Whether containers of a scope get the signer.")
    start: str = key("demand", "demand|eager", "demand: started by the first connection; eager: with the container.")
    idle_seconds: int = key(300, "seconds", "How long it stays without a connection; 0: for ever.")


@dataclass(frozen=True)
class GateConfig:
    """The git gate."""

    enabled: bool = key(True, "bool", "Whether containers of a scope get the gate when the scope has a mirror.")
    start: str = key("demand", "demand|eager", "demand: started by the first connection; eager: with the container.")
    idle_seconds: int = key(300, "seconds", "How long it stays without a connection; 0: for ever.")


@dataclass(frozen=True)
class AgentsConfig:
    """Which agents a container is prepared for."""

    default: tuple[str, ...] | None = key(
        None, "words?", "Agents of a container that names none; default: those whose credential its scope has."
    )
    base_image: str = key("debian:13", "word", "What `terok start` builds agents' images from; it must have apt.")


@dataclass(frozen=True)
class NotifyConfig:
    """What tells you that something waits for you."""

    command: tuple[str, ...] | None = key(
        None, "words?", "Program and arguments, run for each held connection (docs/airlock.md); no shell reads it."
    )


@dataclass(frozen=True)
class TopConfig:
    """The live view."""

    prices: str | None = key(
        None, "path?", "A YAML file with prices of models that replace the shipped ones and add to them (docs/top.md)."
    )


@dataclass(frozen=True)
class RunConfig:
    """How containers are started."""

    init: bool = key(
        False, "bool", "Start podman's small init first, which reaps zombies and passes signals on (not for systemd)."
    )


@dataclass(frozen=True)
class RestrictedConfig:
    """What --restricted sets."""

    always: bool = key(False, "bool", "Every container is started as with --restricted.")
    memory: str = key("4g", "word", "Memory limit, in podman's notation.")
    pids: int = key(512, "count", "Limit of processes and threads.")
    read_only: bool = key(True, "bool", "Whether the root filesystem is read-only, with tmpfs where programs write.")


@dataclass(frozen=True)
class Config:
    """Everything that is configured. `layout` is where everything is, with `paths` applied."""

    layout: Layout
    services: Services = Services()
    paths: Paths = Paths()
    network: NetworkConfig = NetworkConfig()
    shield: ShieldConfig = ShieldConfig()
    vault: VaultConfig = VaultConfig()
    ssh: SshConfig = SshConfig()
    gate: GateConfig = GateConfig()
    agents: AgentsConfig = AgentsConfig()
    notify: NotifyConfig = NotifyConfig()
    top: TopConfig = TopConfig()
    run: RunConfig = RunConfig()
    restricted: RestrictedConfig = RestrictedConfig()


SECTIONS: dict[str, type[Any]] = {
    "services": Services,
    "paths": Paths,
    "network": NetworkConfig,
    "shield": ShieldConfig,
    "vault": VaultConfig,
    "ssh": SshConfig,
    "gate": GateConfig,
    "agents": AgentsConfig,
    "notify": NotifyConfig,
    "top": TopConfig,
    "run": RunConfig,
    "restricted": RestrictedConfig,
}


def keys() -> dict[str, dataclasses.Field[object]]:
    """Every key by its dotted name (`services.mode`), in the order of the documentation."""
    return {
        f"{name}.{member.name}": member for name, section in SECTIONS.items() for member in dataclasses.fields(section)
    }


def kinds() -> dict[str, str]:
    """The kind of every key, by its dotted name."""
    return {name: field.metadata["kind"] for name, field in keys().items()}


def load(environ: Mapping[str, str], *, uid: int | None = None) -> Config:
    """The configuration of the calling user.

    Args:
        environ: where HOME and the XDG variables are looked up; usually `os.environ`.
        uid: the outer uid; default: this process's.

    Raises:
        TerokError: the file has an unknown key, a wrong value or is not YAML; names file, line and column. Or it could
            not be read.
    """
    return load_at(Layout.from_environ(environ, uid=uid))


def load_at(layout: Layout) -> Config:
    """The configuration whose file lies in `layout.config`; raises TerokError as `load` does."""
    try:
        with open(layout.config_file, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return Config(layout)
    except OSError as error:
        raise TerokError(f"The configuration {layout.config_file} could not be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise TerokError(f"The configuration {layout.config_file} is not UTF-8.", code=Exit.USAGE) from error
    from .config_file import parse

    return build(layout, parse(text, layout.config_file, kinds()))


def build(layout: Layout, values: Mapping[str, Any]) -> Config:
    """A configuration from dotted names and checked values; keys that are not given have their defaults."""
    chosen: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        given = {
            member.name: values[f"{name}.{member.name}"]
            for member in dataclasses.fields(section)
            if f"{name}.{member.name}" in values
        }
        chosen[name] = section(**given)
    paths: Paths = chosen["paths"]
    moved = Layout(data=paths.data or layout.data, runtime=paths.runtime or layout.runtime, config=layout.config)
    return Config(moved, **chosen)
