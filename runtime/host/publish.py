"""Which ports a container publishes, in podman's words.

Where Podman publishes, the firewall must let the first packets of UDP ports in. For TCP it lets every connection from
outside in, because its packets show who opened it; a datagram does not. In the airlock terok publishes TCP ports
itself (`sidecars/airlock/published/`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from ...sidecars.airlock.published.settings import Published
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import AIRLOCK_PORT, DNS_PORT, GATE_PORT, MCP_PORT, VAULT_PORT
from .flags import Words, is_on

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
PORTS_MAX = 1000
"""Published UDP ports of one container."""
PUBLISHED_MAX = 200
"""TCP ports of one container that terok publishes: each is two descriptors of the supervisor."""
RESERVED = (DNS_PORT, MCP_PORT, GATE_PORT, VAULT_PORT, AIRLOCK_PORT)
"""What terok's own services have on the container's loopback interface."""


def udp_ports(words: Words) -> tuple[int, ...]:
    """The container's ports in the --publish flags among podman's words: `[[IP:][HOST]:]PORT[-PORT]/udp`.

    Raises:
        TerokError: one of them is no port, or there are more than PORTS_MAX.
    """
    numbers: list[int] = []
    for flag in words.flags:
        ports, _, protocol = flag.value.rpartition("/")
        if flag.name == "publish" and protocol.lower() == "udp":
            numbers += _range(ports.rpartition(":")[2], flag.value)
    return _checked(numbers)


def annotated_udp_ports(text: str) -> tuple[int, ...]:
    """The ports in the annotation of a container that has only annotations: `53:8000-8010`.

    Raises:
        TerokError: as `udp_ports`.
    """
    return _checked([port for part in text.split(":") if part for port in _range(part, text)])


def tcp_ports(words: Words) -> tuple[Published, ...]:
    """What the --publish flags among podman's words ask for, where terok publishes.

    Raises:
        TerokError: USAGE, when a value is none that Podman takes, names another protocol than TCP or a port of terok's
            own services, or when one port of the host is asked for twice; and for --publish-all.
    """
    for flag in words.flags:
        if flag.name == "publish-all" and is_on(flag.value):
            raise TerokError(
                f"The airlock publishes ports by number, and podman's {flag.written} names none.",
                fix="use --publish for each port, or --network slirp4netns or pasta",
                code=Exit.USAGE,
            )
    return parse_ports([flag.value for flag in words.flags if flag.name == "publish"])


def refuse_published(words: Words) -> None:
    """Refuse ports where Podman makes no network: it would drop them with a warning.

    Raises:
        TerokError: USAGE, naming the flag.
    """
    for flag in words.flags:
        if flag.name == "publish" or (flag.name == "publish-all" and is_on(flag.value)):
            raise TerokError(
                f"The container has no network of Podman's, so podman's {flag.written} publishes nothing.",
                fix="give compose() the ports as `publish`",
                code=Exit.USAGE,
            )


def parse_ports(values: Sequence[str]) -> tuple[Published, ...]:
    """The TCP ports that values of --publish ask for, `[[IP:][HOST]:]PORT[-PORT][/tcp]`; raises as `tcp_ports`."""
    ports = [port for value in values for port in _published(value)]
    if len(ports) > PUBLISHED_MAX:
        raise TerokError(f"{len(ports)} published ports exceed the limit of {PUBLISHED_MAX}.", code=Exit.USAGE)
    for port in ports:
        if port.port in RESERVED:
            raise TerokError(
                f"Port {port.port} of a container in the airlock is terok's own and cannot be published.",
                fix="have the program listen on another port",
                code=Exit.USAGE,
            )
    for index, port in enumerate(ports):
        for other in ports[:index]:
            if port.host_port and port.host_port == other.host_port and _same_place(port.host, other.host):
                raise TerokError(f"The port {port.host_port} of the host is published twice.", code=Exit.USAGE)
    return tuple(ports)


def _same_place(one: str, other: str) -> bool:
    return one == other or not one or not other


def _published(value: str) -> list[Published]:
    ports, _, protocol = value.partition("/")
    if protocol and protocol.lower() != "tcp":
        raise TerokError(
            f"The airlock publishes TCP ports only, not {value[:100]!r}.",
            fix="use --network slirp4netns or pasta for UDP",
            code=Exit.USAGE,
        )
    host, before, inside = _split(ports, value)
    wanted = _numbers(inside, value)
    outside = _numbers(before, value) if before not in ("", "0") else [0] * len(wanted)
    if len(outside) != len(wanted):
        raise _invalid(value)
    return [Published(host, there, here) for there, here in zip(outside, wanted, strict=True)]


def _split(ports: str, value: str) -> tuple[str, str, str]:
    """The host's address, the host's ports and the container's ports of a value, as Podman tells them apart."""
    if not ports.startswith("["):
        *first, inside = ports.split(":")
        if len(first) > 2 or (len(first) == 2 and not first[0]):
            raise _invalid(value)
        address = first[0] if len(first) == 2 else ""
        return (_address(address, 4, value) if address else ""), (first[-1] if first else ""), inside
    address, bracket, rest = ports[1:].partition("]:")
    if not bracket or rest.count(":") != 1:
        raise _invalid(value)
    before, _, inside = rest.partition(":")
    return _address(address, 6, value), before, inside


def _address(text: str, version: int, value: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _invalid(value) from None
    if address.version != version or "%" in text:
        raise _invalid(value)
    return str(address)


def _numbers(text: str, value: str) -> list[int]:
    match = _PORTS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last < 65536:
        raise _invalid(value)
    return list(range(first, last + 1))


def _invalid(value: str) -> TerokError:
    return TerokError(f"{value[:100]!r} is not a port to publish.", fix="write [[IP:]HOSTPORT:]PORT", code=Exit.USAGE)


def _range(text: str, whole: str) -> list[int]:
    match = _PORTS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last < 65536:
        raise TerokError(f"{whole[:100]!r} contains no valid UDP port of the container (1 to 65535).", code=Exit.USAGE)
    return list(range(first, last + 1))


def _checked(ports: list[int]) -> tuple[int, ...]:
    if len(ports) > PORTS_MAX:
        raise TerokError(f"{len(ports)} published UDP ports exceed the limit of {PORTS_MAX}.", code=Exit.USAGE)
    return tuple(sorted(set(ports)))
