"""Which UDP ports a container publishes: the firewall must let their first packets in.

For TCP it lets every connection from outside in, because its packets show who opened it; a datagram does not.
"""

from __future__ import annotations

import re

from ...supervisor.ground.errors import Exit, TerokError
from .flags import Words, is_on

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
PORTS_MAX = 1000
"""Published UDP ports of one container."""


def udp_ports(words: Words) -> tuple[int, ...]:
    """The container's ports in the --publish flags among podman's words: `[[IP:][HOST]:]PORT[-PORT]/udp`.

    Raises:
        TerokError: one of them is no port, or there are more than PORTS_MAX.
    """
    found: list[int] = []
    for flag in words.flags:
        ports, _, protocol = flag.value.rpartition("/")
        if flag.name == "publish" and protocol.lower() == "udp":
            found += _range(ports.rpartition(":")[2], flag.value)
    return _checked(found)


def annotated_udp_ports(text: str) -> tuple[int, ...]:
    """The ports in the annotation of a container that has only annotations: `53:8000-8010`.

    Raises:
        TerokError: as `udp_ports`.
    """
    return _checked([port for part in text.split(":") if part for port in _range(part, text)])


def refuse_in_airlock(words: Words) -> None:
    """Refuse published ports where Podman makes no network: it would drop them with a warning.

    Raises:
        TerokError: USAGE, naming the flag.
    """
    for flag in words.flags:
        if flag.name in ("publish", "publish-all") and (flag.name == "publish" or is_on(flag.value)):
            raise TerokError(
                f"The airlock publishes no ports, and podman's {flag.written} asks for one.",
                fix=f"remove {flag.written}, or use --network slirp4netns or pasta",
                code=Exit.USAGE,
            )


def _range(text: str, whole: str) -> list[int]:
    found = _PORTS.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < first <= last < 65536:
        raise TerokError(f"{whole[:100]!r} contains no valid UDP port of the container (1 to 65535).", code=Exit.USAGE)
    return list(range(first, last + 1))


def _checked(ports: list[int]) -> tuple[int, ...]:
    if len(ports) > PORTS_MAX:
        raise TerokError(f"{len(ports)} published UDP ports exceed the limit of {PORTS_MAX}.", code=Exit.USAGE)
    return tuple(sorted(set(ports)))
