"""The one table of forbidden addresses, through both of its users: the vault's dialler and the shield."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from terok_host.sidecars.kit import addresses
from terok_host.sidecars.shield import dnsmasq, ruleset, static
from terok_host.sidecars.shield.model import Model
from terok_host.sidecars.shield.special import check_allowed
from terok_host.sidecars.shield.targets import TargetError, parse

ORDINARY, NAMED, NEVER = "", addresses.AS_SUCH, addresses.NEVER_OPENED
OPEN, PRIVATE, METADATA = "open", "private", "metadata"
"""What the vault says: connected to, only with `allow_private`, not even then."""

TABLE = [
    ("93.184.216.34", ORDINARY, OPEN),
    ("172.32.0.1", ORDINARY, OPEN),
    ("2606:4700::1111", ORDINARY, OPEN),
    ("203.0.113.7", ORDINARY, PRIVATE),
    ("2001:db8::1", ORDINARY, PRIVATE),
    ("3fff::1", ORDINARY, PRIVATE),
    ("10.1.2.3", NAMED, PRIVATE),
    ("172.31.0.1", NAMED, PRIVATE),
    ("192.168.1.1", NAMED, PRIVATE),
    ("100.64.0.1", NAMED, PRIVATE),
    ("192.0.0.9", NAMED, PRIVATE),
    ("198.18.0.1", NAMED, PRIVATE),
    ("fd12::1", NAMED, PRIVATE),
    ("100::1", NAMED, PRIVATE),
    ("5f00::1", NAMED, PRIVATE),
    ("64:ff9b::808:808", NAMED, PRIVATE),
    ("64:ff9b:1::808:808", NAMED, PRIVATE),
    ("2001::f7f7:f7f7", NAMED, PRIVATE),
    ("2002:808:808::1", NAMED, PRIVATE),
    ("0.0.0.0", NEVER, PRIVATE),
    ("127.0.0.1", NEVER, PRIVATE),
    ("169.254.1.1", NEVER, PRIVATE),
    ("224.0.0.1", NEVER, PRIVATE),
    ("255.255.255.255", NEVER, PRIVATE),
    ("::", NEVER, PRIVATE),
    ("::1", NEVER, PRIVATE),
    ("::7f00:1", NEVER, PRIVATE),
    ("fe80::1", NEVER, PRIVATE),
    ("fec0::1", NEVER, PRIVATE),
    ("ff02::1", NEVER, PRIVATE),
    ("::ffff:93.184.216.34", NEVER, PRIVATE),
    ("64:ff9b::7f00:1", NEVER, PRIVATE),
    ("2002:7f00:1::", NEVER, PRIVATE),
    ("169.254.169.254", NEVER, METADATA),
    ("169.254.170.23", NEVER, METADATA),
    ("100.100.100.200", NEVER, METADATA),
    ("168.63.129.16", NEVER, METADATA),
    ("192.0.0.192", NEVER, METADATA),
    ("fd00:ec2::254", NEVER, METADATA),
    ("fd20:ce::254", NEVER, METADATA),
    ("fe80::a9fe:a9fe", NEVER, METADATA),
    ("::ffff:169.254.169.254", NEVER, METADATA),
    ("::a9fe:a9fe", NEVER, METADATA),
    ("64:ff9b::a9fe:a9fe", NEVER, METADATA),
    ("64:ff9b:1:a9fe:a9:fe00::", NEVER, METADATA),
    ("64:ff9b:1:a9:fe:a9fe::", NEVER, METADATA),
    ("64:ff9b:1:0:a9:fea9:fe00:0", NEVER, METADATA),
    ("64:ff9b:1::a9fe:a9fe", NEVER, METADATA),
    ("2002:a9fe:a9fe::1", NEVER, METADATA),
    ("2001:0:a9fe:a9fe::1", NEVER, METADATA),
    ("2001::5601:5601", NEVER, METADATA),
]


@pytest.mark.parametrize(("address", "kind", "vault"), TABLE)
def test_both_users_judge_alike(address: str, kind: str, vault: str) -> None:
    assert addresses.kind(address) == kind
    assert bool(addresses.refusal(address, allow_private=False)) is (vault != OPEN)
    assert bool(addresses.refusal(address, allow_private=True)) is (vault == METADATA)

    assert static.usable(Model(), address) is (kind == ORDINARY)
    if "::ffff:" in address:  # no target is written like this
        return
    if kind == NEVER:
        with pytest.raises(TargetError, match="never reachable"):
            check_allowed(parse(address))
    else:
        notes = check_allowed(parse(address))
        assert any("special" in note for note in notes) is (kind == NAMED)
        assert static.usable(Model(allowed=(parse(address),)), address)


BY_SUFFIX_ONLY = ("64:ff9b:1:", "2001:")
"""Teredo, and local NAT64 of an unknown prefix: no range holds exactly what leads to a forbidden IPv4 address."""


@pytest.mark.parametrize(("address", "kind", "vault"), TABLE)
def test_what_the_firewall_and_dnsmasq_are_told(address: str, kind: str, vault: str) -> None:
    del vault
    host = ipaddress.ip_address(address)
    sets = {each.name: each.elements or () for each in ruleset.build(Model()).sets}
    held = {
        name
        for name in ("never", "special")
        if any(host in ipaddress.ip_network(element) for element in sets[f"{name}{host.version}"])
    }
    if kind == ORDINARY:
        assert not held
    elif kind == NEVER and not address.startswith(BY_SUFFIX_ONLY):
        assert "never" in held
    else:
        assert "special" in held
    conf = dnsmasq.config(Model(), "/s", "/h", dnsmasq.Features())
    refused = [line.partition("=")[2] for line in conf.splitlines() if line.startswith("bogus-nxdomain=")]
    assert any(host in ipaddress.ip_network(text) for text in refused) is (kind != ORDINARY)


@pytest.mark.parametrize("text", ["169.254.0.0/16", "127.0.0.0/8", "64:ff9b::7f00:0/104", "fe80::/64", "::/97"])
def test_ranges_that_are_never_allowed(text: str) -> None:
    assert addresses.never_range(text)
    with pytest.raises(TargetError, match="never reachable"):
        check_allowed(parse(text))


def test_a_range_that_holds_more_is_noted_only() -> None:
    for text in ("0.0.0.0/0", "::/0", "10.0.0.0/7", "10.1.0.0/16"):
        assert addresses.never_range(text) == ""
        assert any("special" in note for note in check_allowed(parse(text)))
    assert check_allowed(parse("93.184.0.0/16")) == []


@pytest.mark.parametrize("ranges", [addresses.NEVER, addresses.SPECIAL])
def test_ranges_of_one_set_are_disjoint(ranges: tuple[str, ...]) -> None:
    networks = [ipaddress.ip_network(text) for text in ranges]
    for family in (4, 6):
        same = [network for network in networks if network.version == family]
        assert not [(one, other) for one in same for other in same if one != other and one.overlaps(other)]


def test_what_is_no_address() -> None:
    assert addresses.refusal("nonsense", allow_private=True)
    with pytest.raises(OSError, match="illegal"):
        addresses.kind("nonsense")
    assert addresses.refusal("fe80::1%eth0", allow_private=False)


def test_the_hosts_own_addresses_open_only_as_such() -> None:
    own = addresses.own_addresses()
    assert "127.0.0.1" in own
    assert all(":" in text or socket.inet_aton(text) for text in own)
    theirs = frozenset({"93.184.216.34", "2606:4700::1111"})
    assert addresses.kind("93.184.216.34", theirs) == NAMED
    assert addresses.kind("2606:4700:0::1111", theirs) == NAMED
    assert addresses.kind("93.184.216.35", theirs) == ORDINARY
    assert addresses.kind("127.0.0.1", own) == NEVER
