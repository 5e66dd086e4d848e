"""Where the network of a container answers DNS, told from what its network programs were started with.

Podman 5 fills the container's resolv.conf only after the createRuntime hooks (libpod, completeNetworkSetup), and with
--userns it starts the network program after them too. An empty file therefore says nothing about the network.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ...supervisor.ground.errors import TerokError
from . import podman

ROOTLESS_BRIDGE = "/rootless-netns/rootless-netns"
"""The end of the path of the network namespace in which all bridges of a rootless user are."""


@dataclass(frozen=True)
class Seen:
    """What can be seen of a container's network at createRuntime.

    namespace: path of its network namespace; "" while Podman has not made one.
    programs: argument lists of the pasta and slirp4netns processes that run.
    gateways: the container's default gateways.
    aardvark: addresses at which Podman's own DNS server for bridges answers.
    planned: where it will answer on the bridges that the container will join.
    mode: Podman's record of the container: `pasta`, `slirp4netns`, `bridge`, ...; "" when unknown.
    options: the options of that mode.
    chosen: nameservers that the operator named (--dns).
    """

    namespace: str = ""
    programs: Sequence[Sequence[str]] = ()
    gateways: Sequence[str] = ()
    aardvark: Sequence[str] = ()
    planned: Sequence[str] = ()
    mode: str = ""
    options: Sequence[str] = ()
    chosen: Sequence[str] = ()


def forwarder_of(seen: Seen) -> str | None:
    """The address at which the container's network answers DNS; None when it cannot be told. Pure."""
    if seen.chosen:
        return seen.chosen[0]
    if seen.namespace:
        own = _serving(seen.programs, lambda path: path == seen.namespace)
        served = next((gateway for gateway in seen.gateways if gateway in seen.aardvark), None)
        return own or served or (_serving(seen.programs, _is_bridge) if seen.gateways else None)
    if seen.mode == "pasta":
        return _after("--dns-forward", seen.options) or podman.PASTA_DNS
    if seen.mode == "slirp4netns":
        cidr = next((option.partition("=")[2] for option in seen.options if option.startswith("cidr=")), "")
        return _third(cidr) if cidr else podman.SLIRP_DNS
    if seen.mode == "bridge":
        return next(iter(seen.planned), podman.PASTA_DNS)  # podman 5 puts rootless bridges behind a pasta
    return None


def _is_bridge(path: str) -> bool:
    return path.endswith(ROOTLESS_BRIDGE)


def _serving(programs: Sequence[Sequence[str]], serves: Callable[[str], bool]) -> str | None:
    """The DNS address of the network program whose arguments name a namespace that `serves` accepts."""
    for argv in programs:
        if not any(serves(word) for word in argv):
            continue
        if os.path.basename(argv[0]).startswith("slirp4netns"):
            cidr = _after("--cidr", argv)
            return _third(cidr) if cidr else podman.SLIRP_DNS
        return _after("--dns-forward", argv)
    return None


def _after(flag: str, words: Sequence[str]) -> str | None:
    """The value of `flag`, written `FLAG VALUE` or `FLAG=VALUE`."""
    for position, word in enumerate(words):
        if word == flag and position + 1 < len(words):
            return words[position + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def _third(cidr: str) -> str | None:
    """slirp4netns answers DNS at the third address of its network (slirp4netns(1), --cidr)."""
    try:
        return str(ipaddress.ip_network(cidr, strict=False)[3])
    except (ValueError, IndexError):
        return None


def find(state: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    """The forwarder of the container that the OCI state and its configuration describe; None without a network.

    Raises:
        TerokError: it has a network, and the address cannot be told.
    """
    source = _resolv_conf(config)
    servers = podman.host_resolvers(source) if source else []
    if servers:
        return servers[0]
    seen = look(state, config, source)
    address = forwarder_of(seen)
    if address is None and source and seen.mode != "none":
        raise TerokError(
            "Podman has not yet written a nameserver for the container, and its network program names none.",
            fix="terok config set shield.forwarder ADDRESS   (where the container's network answers DNS)",
        )
    return address


def look(state: Mapping[str, object], config: Mapping[str, object], source: str | None) -> Seen:
    """Collect what `forwarder_of` decides on. Every part may be missing."""
    pid, bundle = state.get("pid"), str(state.get("bundle", ""))
    recorded = _podmans_record(bundle, str(state.get("id", "")))
    mode, options = str(recorded.get("networkMode") or ""), recorded.get("network_options") or {}
    return Seen(
        namespace=_namespace(config),
        programs=_network_programs(),
        gateways=_gateways(pid) if isinstance(pid, int) else [],
        aardvark=_aardvark(_above(source, 4)) if source else [],
        planned=_planned(_above(bundle, 3), recorded.get("newNetworks")),
        mode=mode,
        options=list(options.get(mode) or []) if isinstance(options, dict) else [],
        chosen=[str(server) for server in recorded.get("dnsServer") or []],
    )


def _resolv_conf(config: Mapping[str, object]) -> str | None:
    """The file that Podman mounts as the container's resolv.conf; None with --network=none and --dns=none."""
    mounts = config.get("mounts")
    for mount in mounts if isinstance(mounts, list) else []:
        if isinstance(mount, dict) and mount.get("destination") == "/etc/resolv.conf":
            source = mount.get("source")
            return source if isinstance(source, str) else None
    return None


def _namespace(config: Mapping[str, object]) -> str:
    linux = config.get("linux")
    spaces = linux.get("namespaces") if isinstance(linux, dict) else None
    for space in spaces if isinstance(spaces, list) else []:
        if isinstance(space, dict) and space.get("type") == "network":
            return str(space.get("path") or "")
    return ""


def _network_programs() -> list[list[str]]:
    """Argument lists of this user's pasta and slirp4netns processes; another user's could lie about the address."""
    programs = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    argv = os.fsdecode(file.read(1 << 16)).rstrip("\0").split("\0")
                if os.path.basename(argv[0]).partition(".")[0] in ("pasta", "slirp4netns"):
                    programs.append(argv)
        except OSError:
            continue  # it has ended
    return programs


def _gateways(pid: int) -> list[str]:
    """IPv4 default gateways in the network namespace of a process (proc_pid_net(5): hexadecimal, host byte order)."""
    try:
        with open(f"/proc/{pid}/net/route", encoding="ascii") as lines:
            rows = [line.split() for line in lines][1:]
    except OSError:
        return []
    fields = [bytes.fromhex(row[2])[::-1] for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"]
    return [str(ipaddress.IPv4Address(field)) for field in fields]


def _aardvark(run_root: str) -> list[str]:
    """The listening addresses in aardvark-dns's configuration: the first line of each file, one file a network."""
    folder = os.path.join(run_root, "networks", "aardvark-dns")
    addresses: list[str] = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                addresses += file.readline().split()[0].split(",") if name != "aardvark.pid" else []
        except (OSError, ValueError, IndexError):
            continue
    return addresses


def _planned(graph: str, networks: object) -> list[str]:
    """The gateways of the bridges that serve DNS, from Podman's network files."""
    gateways: list[str] = []
    for name in networks if isinstance(networks, dict) else {}:
        try:
            with open(os.path.join(graph, "networks", f"{os.path.basename(name)}.json"), encoding="utf-8") as file:
                network = json.load(file)
            if network.get("dns_enabled"):
                gateways += [str(subnet["gateway"]) for subnet in network.get("subnets") or [] if "gateway" in subnet]
        except (OSError, ValueError, AttributeError, TypeError):
            continue  # the default network has no file until it is changed
    return gateways


def _above(path: str, levels: int) -> str:
    for _ in range(levels):
        path = os.path.dirname(path)
    return path


def _podmans_record(bundle: str, identity: str) -> dict[str, Any]:
    """Podman's own configuration of the container, from its database (podman >= 5 by default); empty when not there.

    `podman inspect` cannot be asked: Podman holds the container's lock while it starts it.
    """
    path = os.path.join(_above(bundle, 3), "db.sql")
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=1)) as database:
            row = database.execute("SELECT JSON FROM ContainerConfig WHERE ID = ?", (identity,)).fetchone()
        recorded = json.loads(row[0]) if row else {}
    except (sqlite3.Error, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}
