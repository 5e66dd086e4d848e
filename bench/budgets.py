"""The budgets of DESIGN.md section 9: which figures judge each, and what the figure consists of."""

from __future__ import annotations

from typing import NamedTuple


class Budget(NamedTuple):
    """One row.

    what: as the design says it.
    figures: names of the figures that must keep it, as `bench.run` prints them.
    part: the measurement that they come from.
    why: what keeps the figure from being better; shown when it is missed.
    """

    what: str
    figures: tuple[str, ...]
    part: str
    why: str


BUDGETS = (
    Budget(
        "`podman run -d` with every service, to plain Podman with its default network",
        ("podman run -d",),
        "start",
        "Of the hook's time, 5 ms are the start of the Python interpreter, 4 its modules, and dnsmasq's start and the "
        "firewall run beside each other on two processors.",
    ),
    Budget(
        "`podman run --rm IMAGE true`, whole cycle",
        ("podman run --rm IMAGE true",),
        "start",
        "Two hooks start an interpreter each, and the second one also the program that deletes the bundle.",
    ),
    Budget(
        "`podman stop -t 0`; something of terok left after it",
        ("podman stop -t 0", "something of ours left after the stop, at most"),
        "start",
        "Podman looks in steps of up to 100 ms whether a container has ended, so one and the same stop takes 50 or "
        "140 ms; with hooks that do nothing it takes as long.",
    ),
    Budget(
        "createRuntime hook",
        ("hook at start (createRuntime)",),
        "start",
        "5 ms are the interpreter; the rest is in the picture.",
    ),
    Budget(
        "`terok prepare`; `terok --help`",
        ("terok prepare", "terok --help"),
        "start",
        "The command imports a YAML reader, the store's cryptography and SQLite before it writes anything.",
    ),
    Budget(
        "an idle container: processes besides dnsmasq, memory",
        ("processes of an idle container besides dnsmasq", "memory of an idle container (PSS)"),
        "start",
        "Supervisor and standby are two Python processes that share most pages.",
    ),
    Budget(
        "memory of vault and signer in use",
        ("memory of vault and signer in use (PSS)",),
        "start",
        "Each loads OpenSSL through `cryptography`, 5 MB, and an interpreter with its modules, 6 MB; the vault also "
        "the system's OpenSSL for TLS. They are two processes so that neither holds the other's secrets.",
    ),
    Budget(
        "first vault answer, cold; added by a warm one, p50",
        ("first vault answer, cold", "added p50, 1 connection"),
        "vault",
        "A cold vault starts an interpreter, opens the store and reads the routes before its first answer.",
    ),
    Budget(
        "from `podman run` to the first vault answer",
        ("podman run to the first vault answer",),
        "start",
        "It is the start of the container, of its program and of a cold vault, one after the other.",
    ),
    Budget(
        "vault: requests a second at 32 connections, to nginx and to aiohttp",
        ("requests a second, 32 conn., to nginx", "requests a second, 32 conn., to aiohttp"),
        "vault",
        "nginx is written in C and writes no audit line for a request.",
    ),
    Budget(
        "HTTPS at a brokered host: requests a second at 32 connections, to mitmproxy",
        ("TLS: requests a second, 32 kept conn., to mitmproxy",),
        "tls",
        "Both write each record through OpenSSL twice, in and out.",
    ),
    Budget(
        "signer: signatures a second on a kept connection and on new ones, to ssh-agent",
        (
            "signer: signatures/s, 1 client, kept, to ssh-agent",
            "signer: signatures/s, 1 client, new, to ssh-agent",
        ),
        "signer",
        "A signature takes 25 µs of the 45 that the signer needs on a processor of its own; where client and signer "
        "share one, the client's own time counts too.",
    ),
    Budget(
        "airlock: bytes a second each way, to slirp4netns",
        ("airlock: bytes a second out, to slirp4netns", "airlock: bytes a second in, to slirp4netns"),
        "airlock",
        "Sender, receiver and relay share two processors: a direct loopback connection between the same sender and "
        "receiver makes about 30 Gbit/s, so three times the 8 Gbit/s that slirp4netns makes inwards find no room.",
    ),
    Budget(
        "airlock: connect and first byte, p50, to slirp4netns",
        ("airlock: connect and first byte p50, to slirp4netns",),
        "airlock",
        "A connection is two connections and two audit lines, about forty system calls.",
    ),
    Budget(
        "airlock: memory with 1,000 connections open",
        ("airlock: relay, 1,000 connections open (PSS)",),
        "airlock",
        "Each connection costs two sockets and their Python objects.",
    ),
)
