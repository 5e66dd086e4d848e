"""The loopback interface on which synthetic addresses are local; in the airlock, no other destination has a route.

What should be there lies in `loopback.json`: `local`, the ranges whose connections the redirect rule of the firewall
hands to the relay. Every other destination meets the `prohibit` route: connect(2) fails with EACCES at once, blocking
or not. It is in the table `local`, before a default route that Podman or a process with NET_ADMIN adds; neighbours on
another interface have a longer prefix and meet the firewall instead.

Outside of the airlock `closed` is false: the interface has its address, and Podman's network keeps its routes.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, if_nametoindex

from ..ground import netlink
from ..ground.errors import TerokError
from ..ground.netlink import LOCAL, PROHIBIT, Route
from ..ground.quick import loads

OWN_ADDRESS = "198.18.0.1/15"
"""The range in which every name has its synthetic address (RFC 2544: never routed), and the interface's own one."""
_MARK = 0x54
"""The protocol number of terok's routes (rtnetlink(7), rtm_protocol)."""
_EVERYTHING = {AF_INET: "0.0.0.0/0", AF_INET6: "::/0"}


def put(path: str) -> None:
    """Make the network of the current namespace what the file says; harmless when repeated.

    Raises:
        TerokError: the file makes no sense, or the kernel refused.
    """
    lo = if_nametoindex("lo")
    try:
        netlink.link_up(lo)
        netlink.add_address(lo, OWN_ADDRESS)
        wanted = _wanted(path)
        for family in _families():
            held = netlink.routes(family, _MARK)
            mine = [route for route in wanted if (":" in route.network) == (family == AF_INET6)]
            # what closes comes first
            for route in sorted({*held} - {*mine}, key=repr):
                netlink.delete_route(lo, route, _MARK)
            for route in mine:
                if route not in held:
                    netlink.add_route(lo, route, _MARK)
    except OSError as error:
        raise TerokError(f"The container's loopback network could not be set up: {error.strerror}.") from error


def check(path: str) -> None:
    """Compare the network of the current namespace with the file.

    Raises:
        TerokError: naming the first difference.
    """
    lo = if_nametoindex("lo")
    try:
        if OWN_ADDRESS not in netlink.addresses(lo):
            raise TerokError(f"The container's loopback interface lacks {OWN_ADDRESS}.")
        wanted = {*_wanted(path)}
        held = {route for family in _families() for route in netlink.routes(family, _MARK)}
    except OSError as error:
        raise TerokError(f"The container's loopback network cannot be read back: {error.strerror}.") from error
    wanted = {route for route in wanted if ":" not in route.network or AF_INET6 in _families()}
    for route in sorted(wanted ^ held, key=repr):
        raise TerokError(f"The container's loopback network {'lacks' if route in wanted else 'has'} {route}.")


def closed(path: str) -> bool:
    """Whether the file is the airlock's: every route counts, not only the interface's address.

    Raises:
        TerokError: the file makes no sense.
    """
    return _read(path)[1]


def _wanted(path: str) -> list[Route]:
    """The routes of the file. A range that is everything takes the place of the refusal."""
    local, refusing = _read(path)
    refused = [Route(PROHIBIT, network) for network in _EVERYTHING.values() if refusing and network not in local]
    return [*refused, *(Route(LOCAL, network) for network in local)]


def _read(path: str) -> tuple[list[str], bool]:
    try:
        with open(path, "rb") as file:
            document = loads(file.read())
        return [netlink.shape(network) for network in document["local"]], document.get("closed") is not False
    except OSError as error:
        raise TerokError(f"{path} cannot be read: {error.strerror}.", fix="run `terok prepare` again") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TerokError(f"{path} is not what `terok prepare` writes.", fix="run `terok prepare` again") from error


def _families() -> tuple[int, ...]:
    """The address families of this namespace; without IPv6 there is nothing to refuse in it."""
    return (AF_INET, AF_INET6) if netlink.has_ipv6() else (AF_INET,)
