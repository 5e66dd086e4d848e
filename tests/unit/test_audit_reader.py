"""What the audit reader makes of packets and of dnsmasq's log, also of hostile ones."""

from __future__ import annotations

import os
import struct
import time
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.sidecars.kit.reactor import Reactor
from terok_host.sidecars.shield.reader import names, packets, window
from terok_host.sidecars.shield.reader.main import Feed, Reader


def ipv4(address: str, protocol: int = 6, port: int = 443, *, options: bytes = b"", offset: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 60, 1, offset, 64, protocol, 0)
    return head + bytes(4) + ip_address(address).packed + options + struct.pack("!HH", 50000, port) + bytes(8)


def ipv6(address: str, chain: bytes = b"", first: int = 6, port: int = 443) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, 40, first, 64) + bytes(16) + ip_address(address).packed
    return head + chain + struct.pack("!HH", 50000, port) + bytes(8)


def logged(prefix: str, payload: bytes) -> bytes:
    def attribute(kind: int, value: bytes) -> bytes:
        whole = struct.pack("=HH", 4 + len(value), kind) + value
        return whole + bytes(-len(whole) % 4)

    body = bytes(4) + attribute(10, prefix.encode() + b"\0") + attribute(9, payload)
    return struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("payload", "seen"),
    [
        (ipv4("203.0.113.9"), ("203.0.113.9", 443, "tcp")),
        (ipv4("203.0.113.9", 17, 53), ("203.0.113.9", 53, "udp")),
        (ipv4("203.0.113.9", options=bytes(8)), ("203.0.113.9", 443, "tcp")),
        (ipv4("203.0.113.9", offset=3), ("203.0.113.9", 0, "tcp")),
        (ipv4("203.0.113.9", 1), ("203.0.113.9", 0, "icmp")),
        (ipv4("203.0.113.9", 47), ("203.0.113.9", 0, "47")),
        (ipv6("2001:db8::9"), ("2001:db8::9", 443, "tcp")),
        (ipv6("2001:db8::9", bytes([60, 0]) + bytes(6) + bytes([6, 0]) + bytes(6), 0), ("2001:db8::9", 443, "tcp")),
        (ipv6("2001:db8::9", bytes([17, 0, 0, 8]) + bytes(4), 44), ("2001:db8::9", 0, "udp")),
        (b"", ("", 0, "")),
        (b"\x45" + bytes(10), ("", 0, "")),
        (b"\x00" * 40, ("", 0, "")),
    ],
)
def test_destinations(payload: bytes, seen: tuple[str, int, str]) -> None:
    assert packets.destination(payload) == seen


def test_several_packets_in_one_datagram() -> None:
    data = logged("refused", ipv4("203.0.113.9")) + logged("granted", ipv6("2001:db8::9"))
    assert [(each.prefix, each.address) for each in packets.packets(data)] == [
        ("refused", "203.0.113.9"),
        ("granted", "2001:db8::9"),
    ]


@given(st.binary(max_size=300))
def test_no_bytes_break_the_packet_reader(data: bytes) -> None:
    list(packets.packets(data))
    packets.destination(data)
    list(packets.packets(logged("x", data)))


LOG = b"""dnsmasq[7]: started, version 2.90 cache disabled
dnsmasq[7]: query[A] www.test from 127.0.0.1
dnsmasq[7]: forwarded www.test to 10.0.2.3
dnsmasq[7]: reply www.test is <CNAME>
dnsmasq[7]: nftset add 4 inet terok s 198.51.100.10 test
dnsmasq[7]: reply cdn.test is 198.51.100.10
dnsmasq[7]: query[AAAA] plain.test from 127.0.0.1
dnsmasq[7]: reply plain.test is 2001:db8::1
dnsmasq[7]: query[TXT] secret.evil.example from 127.0.0.1
dnsmasq[7]: config secret.evil.example is NXDOMAIN
"""


def test_names_are_learned_by_what_was_asked_and_refusals_are_seen() -> None:
    reader = names.Names()
    refused, other = reader.feed(LOG)
    assert refused == [("secret.evil.example", "TXT")]
    assert other == ["started, version 2.90 cache disabled"]
    assert reader.name_of("198.51.100.10") == "www.test"
    assert reader.name_of("2001:db8::1") == "plain.test"
    assert reader.name_of("198.51.100.11") is None


def test_a_log_may_arrive_in_any_pieces() -> None:
    whole, pieces = names.Names(), names.Names()
    expected = whole.feed(LOG)[0]
    assert [event for at in range(len(LOG)) for event in pieces.feed(LOG[at : at + 1])[0]] == expected


def test_a_name_cannot_pretend_to_be_an_answer() -> None:
    reader = names.Names()
    refused, _ = reader.feed(b"dnsmasq: config github.com is 9.9.9.9 is NXDOMAIN\n")
    assert refused == [("github.com is 9.9.9.9", "?")]
    assert reader.name_of("9.9.9.9") is None


def test_names_are_bounded() -> None:
    reader = names.Names()
    for number in range(names.NAMES_MAX + 10):
        reader.feed(b"dnsmasq: reply n%d.test is 10.%d.%d.1\n" % (number, number >> 8, number & 255))
    assert reader.name_of("10.0.0.1") is None and reader.name_of("10.0.10.1") is not None


@given(st.lists(st.binary(max_size=200)))
def test_no_bytes_break_the_name_reader(pieces: list[bytes]) -> None:
    reader = names.Names()
    for piece in pieces:
        reader.feed(b"dnsmasq: " + piece + b"\n")


def test_repeats_are_counted_and_told_once() -> None:
    counted: window.Window[str] = window.Window()
    assert [counted.add("x", 0.0), counted.add("x", 1.0), counted.add("y", 2.0)] == [True, False, True]
    assert counted.next_end() == window.SECONDS
    assert counted.due(window.SECONDS) == [("x", 1)]
    assert counted.due(100) == [] and counted.next_end() is None
    assert counted.add("x", 101)


def test_a_flood_of_different_events_is_bounded() -> None:
    counted: window.Window[int] = window.Window()
    written = sum(counted.add(number, 0.0) for number in range(5000))
    assert written == window.KEYS_MAX and counted.take_overflow() == 5000 - window.KEYS_MAX


def test_lines_name_the_address_and_what_would_allow_it() -> None:
    lines: list[tuple[str, dict[str, Any]]] = []
    reader = Reader("web", lambda event, **fields: lines.append((event, fields)))
    reader.on_log(LOG, 0.0)
    reader.on_packets(logged("granted", ipv4("198.51.100.10")) * 3 + logged("refused", ipv4("203.0.113.9")), 0.0)
    reader.on_time(100.0)
    assert [(event, fields["verdict"], fields["name"], fields["count"]) for event, fields in lines] == [
        ("dns", "refused", "secret.evil.example", 1),
        ("packet", "granted", "www.test", 1),
        ("packet", "refused", None, 1),
        ("packet", "granted", "www.test", 2),
    ]
    assert lines[2][1]["allow"] == "terok shield allow web 203.0.113.9"


class Fed:
    """A feed on a pipe in place of dnsmasq's log, and what it wrote."""

    def __init__(self, idle_seconds: float) -> None:
        self.reactor = Reactor(strict=True)
        self.lines: list[str] = []
        self.source, self.log = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        reader = Reader("web", lambda event, **fields: self.lines.append(event))
        Feed(self.reactor, reader, idle_seconds).start({self.source: "dnslog"})

    def close(self) -> None:
        self.reactor.close()
        os.close(self.source)
        if self.log >= 0:
            os.close(self.log)


def test_a_feed_leaves_when_nothing_came() -> None:
    fed = Fed(0.2)
    os.write(fed.log, LOG)
    began = time.monotonic()
    fed.reactor.run()
    assert 0.15 < time.monotonic() - began < 5
    assert fed.lines == ["dns"]
    fed.close()


def test_a_feed_that_is_written_to_does_not_leave_and_piles_up_no_timers() -> None:
    fed = Fed(0.3)
    for _ in range(10):
        os.write(fed.log, LOG)
        assert not fed.reactor.wait(0.05)
    assert len([timer for timer in fed.reactor._timers if timer.callback is not None]) <= 1
    assert fed.lines == ["dns"]  # its repeats are counted
    fed.close()


def test_a_feed_without_a_limit_waits_without_a_timer_and_bears_the_end_of_its_source() -> None:
    fed = Fed(0)
    assert not fed.reactor._timers
    os.close(fed.log)
    fed.log = -1
    turns = fed.reactor.turn
    assert not fed.reactor.wait(0.05)
    assert fed.reactor.turn - turns < 5
    fed.close()
