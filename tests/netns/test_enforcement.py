"""What the firewall lets out of a container and what not, seen from both ends of the wire."""

from __future__ import annotations

import errno
import socket
import time

import pytest

from terok_host.supervisor.wall import firewall
from tests.lab.world import FORWARDER, World, counted
from tests.standins.nameserver import AAAA, HTTPS, NameServer, ask

ALLOWED, OTHER = "198.51.100.10", "198.51.100.66"
ALLOWED6, OTHER6 = "2001:db8:1::10", "2001:db8:1::66"


def test_default_deny_says_so_at_once(world: World) -> None:
    world.serve(OTHER, 443)
    world.shield("203.0.113.1", forwarder=None)
    began = time.monotonic()
    with pytest.raises(OSError) as refused:
        world.connect(OTHER, 443)
    assert refused.value.errno == errno.EHOSTUNREACH
    assert time.monotonic() - began < 1
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        world.connect(OTHER6, 443)
    assert time.monotonic() - began < 0.5


def test_no_packet_reaches_a_refused_destination(world: World) -> None:
    world.shield("203.0.113.1", forwarder=None)
    with counted(world.far, "near0") as packets:
        for address in (OTHER, OTHER6, "10.1.2.3", "169.254.169.254", "8.8.8.8"):
            assert not world.reaches(address, 443)
            assert not world.reaches_udp(address, 53)
            assert not world.reaches_udp(address, 443)
        assert [each for each in packets() if each[:1] != b"\x60" and each[9:10] in (b"\x06", b"\x11")] == []
        # neighbour discovery of the gateway may leave over IPv6: ICMPv6 and nothing else
        assert {each[6] for each in packets() if each[:1] == b"\x60"} <= {58, 0}


def test_allowed_address_on_the_web_ports_alone(world: World) -> None:
    for port in (80, 443, 8080):
        world.serve(ALLOWED, port)
        world.serve(ALLOWED6, port)
    world.serve(ALLOWED, 443, socket.SOCK_DGRAM)
    world.shield(ALLOWED, ALLOWED6, forwarder=None)
    assert world.reaches(ALLOWED, 80) and world.reaches(ALLOWED, 443)
    assert world.reaches(ALLOWED6, 80) and world.reaches(ALLOWED6, 443)
    assert not world.reaches(ALLOWED, 8080) and not world.reaches(ALLOWED6, 8080)
    assert not world.reaches_udp(ALLOWED, 443), "QUIC must be refused so that clients fall back"


def test_ports_that_a_target_names(world: World) -> None:
    for port in (80, 5000, 5010, 5011):
        world.serve(ALLOWED, port)
    world.serve(ALLOWED, 123, socket.SOCK_DGRAM)
    world.shield(f"{ALLOWED}:5000-5010", f"{ALLOWED}:123/udp", forwarder=None)
    assert world.reaches(ALLOWED, 5000) and world.reaches(ALLOWED, 5010)
    assert not world.reaches(ALLOWED, 5011) and not world.reaches(ALLOWED, 80)
    assert world.reaches_udp(ALLOWED, 123)


def test_overlapping_ranges_and_addresses(world: World) -> None:
    world.serve("198.51.100.7", 443)
    world.serve("198.51.101.7", 443)
    world.shield("198.51.100.0/24", "198.51.100.7", "198.51.100.0/25", "198.51.100.128/25", forwarder=None)
    assert world.reaches("198.51.100.7", 443)
    assert not world.reaches("198.51.101.7", 443)


def test_metadata_stays_closed_whatever_is_allowed(world: World) -> None:
    world.serve("169.254.169.254", 80)
    world.serve("100.100.100.200", 80)
    world.serve(ALLOWED, 80)
    world.shield("0.0.0.0/0", "::/0", forwarder=None)
    assert world.reaches(ALLOWED, 80)
    assert not world.reaches("169.254.169.254", 80)
    assert not world.reaches("100.100.100.200", 80)


def test_names_that_are_allowed_resolve_and_are_reachable(world: World, names: NameServer) -> None:
    names.know("allowed.test", ALLOWED, ALLOWED6)
    names.know("other.test", OTHER)
    names.know("sub.allowed.test", OTHER)
    names.know("deep.below.wild.test", "198.51.100.11")
    names.know("wild.test", OTHER)
    for address in (ALLOWED, ALLOWED6, OTHER, "198.51.100.11"):
        world.serve(address, 443)
    world.shield("allowed.test", "*.wild.test")
    assert not world.reaches(ALLOWED, 443), "an address is closed until a name taught it"
    assert ask(world, "allowed.test").addresses == (ALLOWED,)
    assert ask(world, "allowed.test", AAAA).addresses == (ALLOWED6,)
    assert world.reaches(ALLOWED, 443) and world.reaches(ALLOWED6, 443)
    assert ask(world, "deep.below.wild.test").addresses == ("198.51.100.11",)
    assert world.reaches("198.51.100.11", 443)
    names.asked.clear()
    for refused in ("other.test", "sub.allowed.test", "wild.test", "secret-data.other.test"):
        assert ask(world, refused).code == 3, f"{refused} must be NXDOMAIN"
    assert names.asked == [], "no question for a refused name may leave"
    assert not world.reaches(OTHER, 443)


def test_nobody_but_dnsmasq_reaches_the_forwarder(world: World, names: NameServer) -> None:
    names.know("other.test", OTHER)
    names.know("allowed.test", ALLOWED)
    world.shield("allowed.test", f"{FORWARDER}:5353")
    assert ask(world, "allowed.test").addresses == (ALLOWED,)
    names.asked.clear()
    with pytest.raises(OSError):
        ask(world, "other.test", server=FORWARDER, timeout=0.3)
    assert not world.reaches(FORWARDER, 53, timeout=0.5)
    assert names.asked == []


def test_answers_with_private_addresses_open_nothing(world: World, names: NameServer) -> None:
    private = ("10.1.2.3", "192.168.1.1", "172.16.0.1", "100.64.0.1", "169.254.169.254", "198.18.0.1")
    for index, address in enumerate(private):
        names.know(f"evil{index}.test", ALLOWED, address)
        world.serve(address, 443)
    names.know("evil.test", "fd00::1", "64:ff9b::a01:203", "2002:a01:203::1")
    world.shield(*(f"evil{index}.test" for index in range(len(private))), "evil.test")
    for index, address in enumerate(private):
        ask(world, f"evil{index}.test")
        assert not world.reaches(address, 443, timeout=0.5), address
    ask(world, "evil.test", AAAA)
    for address in ("fd00::1", "64:ff9b::a01:203", "2002:a01:203::1"):
        assert not world.reaches(address, 443, timeout=0.5), address


def test_private_range_that_is_named_opens_and_its_names_resolve(world: World, names: NameServer) -> None:
    names.know("inside.test", "10.1.2.3")
    world.serve("10.1.2.3", 443)
    world.serve("10.9.2.3", 443)
    world.shield("inside.test", "10.1.0.0/16")
    assert ask(world, "inside.test").addresses == ("10.1.2.3",)
    assert world.reaches("10.1.2.3", 443)
    assert not world.reaches("10.9.2.3", 443)


def test_aliases_teach_the_address_at_their_end(world: World, names: NameServer) -> None:
    names.alias("allowed.test", "edge.cdn.test")
    names.alias("edge.cdn.test", "pop.cdn.test")
    names.know("pop.cdn.test", ALLOWED)
    world.serve(ALLOWED, 443)
    world.shield("allowed.test")
    assert ask(world, "allowed.test").addresses == (ALLOWED,)
    assert world.reaches(ALLOWED, 443)
    assert ask(world, "pop.cdn.test").code == 3


def test_https_records_lead_nowhere(world: World, names: NameServer) -> None:
    names.know("allowed.test", ALLOWED)
    world.serve(ALLOWED, 443)
    world.shield("allowed.test")
    assert ask(world, "allowed.test", HTTPS).code == 0
    assert not world.reaches(ALLOWED, 443)


def test_port_of_a_name(world: World, names: NameServer) -> None:
    names.know("git.test", ALLOWED)
    names.know("both.test", "198.51.100.12")
    for address in (ALLOWED, "198.51.100.12"):
        for port in (22, 443):
            world.serve(address, port)
    world.shield("git.test:22", "both.test", "both.test:22")
    ask(world, "git.test")
    ask(world, "both.test")
    assert world.reaches(ALLOWED, 22) and not world.reaches(ALLOWED, 443)
    assert world.reaches("198.51.100.12", 22) and world.reaches("198.51.100.12", 443)


def test_loopback_is_free_and_replies_to_visitors_pass(world: World) -> None:
    world.shield("203.0.113.1", forwarder=None)
    server = world.box.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind(("0.0.0.0", 8000))
    server.listen(4)
    with server, world.connect("127.0.0.1", 8000) as client:
        client.sendall(b"x")
        with server.accept()[0] as peer:
            assert peer.recv(1) == b"x"
        visitor = world.far.socket(socket.AF_INET, socket.SOCK_STREAM)
        visitor.settimeout(3)
        with visitor:
            visitor.connect(("192.0.2.2", 8000))
            with server.accept()[0] as peer:
                peer.sendall(b"welcome")
                assert visitor.recv(16) == b"welcome"


def test_datagrams_from_outside_open_no_way_back(world: World) -> None:
    world.shield("203.0.113.1", forwarder=None)
    with (
        world.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside,
        world.far.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside,
    ):
        inside.bind(("0.0.0.0", 9000))
        inside.settimeout(0.3)
        outside.sendto(b"knock", ("192.0.2.2", 9000))
        with pytest.raises(TimeoutError):
            inside.recv(16)


def test_reading_back_notices_every_change(world: World) -> None:
    shield = world.shield("allowed.test", ALLOWED, forwarder=None)
    firewall.verify(world.box.namespaces, shield)
    for command, said in (
        ("add rule inet terok named accept", "rules"),
        ("add element inet terok allow4_web_host { 9.9.9.9 }", "elements"),
        ("add set inet terok extra { type ipv4_addr; }", "foreign"),
        ("flush chain inet terok refuse", "rules"),
        ("add chain inet terok output { type filter hook output priority 0; policy accept; }", "hangs"),
        ("delete table inet terok", "read back"),
    ):
        world.box.run("nft", command)
        with pytest.raises(Exception, match=said):
            firewall.verify(world.box.namespaces, shield)
        firewall.restore(world.box.namespaces, shield)
