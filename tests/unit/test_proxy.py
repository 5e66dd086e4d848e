"""Connections through an HTTP proxy: what goes through it, what its answers may do, and its credential."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.sidecars.kit.dial import Dialling, Endpoint
from terok_host.sidecars.kit.proxy import dialer, egress, tunnel
from terok_host.sidecars.kit.proxy.dialer import ProxyDialer, dialer_for
from terok_host.sidecars.kit.proxy.egress import Egress
from terok_host.sidecars.kit.reactor import Reactor
from terok_host.sidecars.kit.refusal import Refusal
from terok_host.sidecars.kit.stream import Stream
from terok_host.sidecars.store.records import LockedError
from tests.lab.waiting import until
from tests.standins.authority import Authority
from tests.standins.proxy import Proxy
from tests.standins.upstream import Upstream

LOGIN, PASSWORD = "jane:open-sesame", "open-sesame"
BASIC = "Basic amFuZTpvcGVuLXNlc2FtZQ=="
NAME = "api.example.test"


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    loop = Reactor(strict=True)
    yield loop
    loop.close()


def way_to(proxy: Proxy, *direct: str, ca: str = "") -> Egress:
    return Egress(*egress.parse_url(proxy.url), direct, ca)


Result = tuple[Stream | None, Refusal | None]


def dial(reactor: Reactor, way: Egress, *endpoints: Endpoint, credential: str = "") -> list[Result]:
    """Connect to all of them at once."""
    dialling = dialer_for(reactor, way, lambda: credential)
    return dial_with(reactor, dialling, *endpoints)


def dial_with(reactor: Reactor, dialling: Dialling, *endpoints: Endpoint) -> list[Result]:
    results: list[Result] = []

    def done(stream: Stream | None, refusal: Refusal | None) -> None:
        results.append((stream, refusal))
        if len(results) == len(endpoints):
            reactor.stop()

    for endpoint in endpoints:
        dialling.dial(endpoint, done)
    assert reactor.wait(20), results
    return results


def leave(reactor: Reactor, *streams: Stream | socket.socket | None, proxy: Proxy) -> None:
    """Close connections, and wait until the proxy has seen it: what passes bytes on is then closed too."""
    for stream in streams:
        assert stream is not None
        (stream.close if isinstance(stream, socket.socket) else stream.abort)()
    until(lambda: reactor.wait(0.01) or not proxy.busy, 10)
    reactor.wait(0.01)


def refused(results: list[Result]) -> Refusal:
    stream, refusal = results[0]
    assert stream is None
    assert refusal is not None
    return refusal


def plain(name: str = NAME, port: int = 80) -> Endpoint:
    return Endpoint(name, port, tls=False)


# --- what goes through it ---


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "fd00::1", "2130706433", "metadata.google.internal"])
def test_special_addresses_are_not_asked_for(reactor: Reactor, host: str) -> None:
    with Proxy({host: ("127.0.0.1", 9)}) as proxy:
        assert refused(dial(reactor, way_to(proxy), plain(host))).rule == "private-address"
        assert proxy.asked == []


def test_a_route_may_ask_for_a_private_address(reactor: Reactor, upstream: Upstream) -> None:
    with Proxy({"10.0.0.1": ("127.0.0.1", upstream.port)}) as proxy:
        endpoint = Endpoint("10.0.0.1", 8080, tls=False, allow_private=True)
        stream, _ = dial(reactor, way_to(proxy), endpoint)[0]
        assert stream is not None
        leave(reactor, stream, proxy=proxy)
        assert proxy.asked == ["10.0.0.1:8080"]


# --- what it opens ---


@pytest.mark.parametrize("secure", [False, True])
def test_bytes_of_both_sides_pass(reactor: Reactor, authority: Authority, secure: bool) -> None:
    """The upstream speaks first, in the same segment as the proxy's answer."""
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        port = upstream.getsockname()[1]
        with Proxy({NAME: ("127.0.0.1", port)}, tls=authority.context if secure else None) as proxy:
            stream, refusal = dial(reactor, way_to(proxy, ca=authority.file), plain(port=22))[0]
            assert stream is not None, refusal
            assert proxy.asked == [f"{NAME}:22"]
            here, (there, _) = stream.hand_over(), upstream.accept()
            with here, there:
                there.sendall(b"SSH-2.0-stand-in\r\n")
                got, sent = exchange(reactor, here, b"hello" * 100_000, there, 18)
                assert (got, len(sent)) == (b"SSH-2.0-stand-in\r\n", 500_000)
                leave(reactor, here, there, proxy=proxy)


def test_a_slow_reader_gets_everything_that_was_sent(reactor: Reactor, authority: Authority) -> None:
    """The upstream has sent its last byte and ended while most of it still waits in the pump and the kernel."""
    content = bytes(range(256)) * (4 << 12)
    upstream = socket.create_server(("127.0.0.1", 0))
    names = {NAME: ("127.0.0.1", upstream.getsockname()[1])}
    with upstream, Proxy(names, tls=authority.context) as proxy:
        stream, refusal = dial(reactor, way_to(proxy, ca=authority.file), plain())[0]
        assert stream is not None, refusal
        here, (there, _) = stream.hand_over(), upstream.accept()

        def pour() -> None:
            with there:
                there.sendall(content)

        threading.Thread(target=pour, daemon=True).start()
        reactor.wait(0.3)  # everything is full now, and the reader has read nothing
        got = bytearray()
        with here:
            while reactor.wait(0.001) or len(got) < len(content):
                try:
                    piece = here.recv(20_000)
                except BlockingIOError:
                    continue
                if not piece:
                    break
                got += piece
        assert len(got) == len(content)
        assert got == content
        leave(reactor, proxy=proxy)


def exchange(
    reactor: Reactor, here: socket.socket, data: bytes, there: socket.socket, size: int
) -> tuple[bytes, bytes]:
    """Send `data` from one end, read `size` bytes there, while the loop passes them on."""
    here.setblocking(True)
    here.settimeout(10)
    there.settimeout(10)
    sent, got = bytearray(), bytearray()

    def far() -> None:
        while len(sent) < len(data):
            sent.extend(there.recv(65536))

    def near() -> None:
        here.sendall(data)
        while len(got) < size:
            got.extend(here.recv(65536))

    threads = [threading.Thread(target=work) for work in (far, near)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        reactor.wait(0.02)
    return bytes(got), bytes(sent)


def test_what_the_upstream_says_first_is_not_read(reactor: Reactor) -> None:
    banner = b"220 first\r\n\r\nsecond"
    with Proxy(answer=b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n" + banner) as proxy:
        stream, _ = dial(reactor, way_to(proxy), plain())[0]
        assert stream is not None
        with stream.hand_over() as sock:
            sock.setblocking(True)
            sock.settimeout(10)
            assert sock.recv(100) == banner


def test_the_answer_in_single_bytes(reactor: Reactor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        way = Egress(host="127.0.0.1", port=listener.getsockname()[1])

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.recv(4096)
                for byte in b"HTTP/1.0 200 OK\r\nVia: slow\r\n\r\nthe rest":
                    sock.send(bytes([byte]))
                sock.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        stream, _ = dial(reactor, way, plain())[0]
        assert stream is not None
        with stream.hand_over() as sock:
            sock.setblocking(True)
            sock.settimeout(10)
            got = b""
            while len(got) < 8:
                got += sock.recv(100)
            assert got == b"the rest"


@pytest.mark.parametrize("secure", [False, True])
def test_tls_to_the_upstream_is_verified_inside(
    reactor: Reactor, authority: Authority, upstream: Upstream, tmp_path: Path, secure: bool
) -> None:
    target = ("127.0.0.1", upstream.port)
    with Proxy({"localhost": target, "other.test": target}, tls=authority.context if secure else None) as proxy:
        way = way_to(proxy, ca=authority.file)
        # the name that the certificate has cannot be carried, as localhost is this host
        stranger = Endpoint("other.test", 443, tls=True)
        refusal = refused(dial(reactor, way, stranger))
        leave(reactor, proxy=proxy)
        assert (refusal.rule, "other.test" in refusal.why) == ("upstream-certificate", True)
    right = Upstream(authority.server("other.test"))
    names = {"other.test": ("127.0.0.1", right.port)}
    with right, Proxy(names, tls=authority.context if secure else None) as proxy:
        stream, problem = dial(reactor, way_to(proxy, ca=authority.file), stranger)[0]
        assert stream is not None, problem
        leave(reactor, stream, proxy=proxy)
        unknown = Authority(tmp_path / "unknown.pem", "localhost")
        refusal = refused(dial(reactor, way_to(proxy, ca=unknown.file), stranger))
        assert refusal.rule == ("proxy-connect" if secure else "upstream-certificate")
        assert "certificate" in refusal.why
        leave(reactor, proxy=proxy)


def test_around_it(reactor: Reactor, upstream: Upstream) -> None:
    with Proxy() as proxy:
        endpoint = Endpoint("127.0.0.1", upstream.port, tls=False, allow_private=True)
        stream, _ = dial(reactor, way_to(proxy), endpoint)[0]
        assert stream is not None
        stream.abort()
        assert proxy.asked == []


# --- its answers ---


@pytest.mark.parametrize(
    ("answer", "rule", "part"),
    [
        (b"HTTP/1.1 403 open-sesame\r\n\r\n", "proxy-refused", "status 403"),
        (b"HTTP/1.1 401 x\r\n\r\n", "proxy-credential", "refused its credential"),
        (b"HTTP/1.1 500 x\r\n\r\n", "proxy-refused", "could not resolve"),
        (b"HTTP/1.1 502 x\r\n\r\n", "proxy-refused", "could not resolve"),
        (b"HTTP/1.1 302 x\r\nLocation: http://evil.test\r\n\r\n", "proxy-refused", "status 302"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "proxy-refused", "status 100"),
        (b"HTTP/2 200\r\n\r\n", "proxy-answer", "HTTP/1"),
        (b"HTTP/1.1 20\r\n\r\n", "proxy-answer", "HTTP/1"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "proxy-answer", "HTTP/1"),
        (b"SSH-2.0-OpenSSH\r\n", "proxy-answer", "HTTP/1"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "proxy-answer", "HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", "proxy-answer", "HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20), "proxy-answer", "too long"),
        (b"\r\n" * 10_000, "proxy-answer", "HTTP/1"),
    ],
)
def test_answers_that_open_nothing(reactor: Reactor, answer: bytes, rule: str, part: str) -> None:
    with Proxy(answer=answer) as proxy:
        refusal = refused(dial(reactor, way_to(proxy), plain(), credential=BASIC))
        assert (refusal.rule, part in refusal.why) == (rule, True)
        assert PASSWORD not in refusal.why
        assert refusal.status in (502, 504)


def test_a_proxy_that_says_nothing(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "ANSWER_SECONDS", 0.2)
    with Proxy() as proxy:
        proxy.mute = True
        refusal = refused(dial(reactor, way_to(proxy), plain()))
        assert (refusal.status, refusal.rule) == (504, "proxy-answer")


def test_a_proxy_that_is_not_there(reactor: Reactor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        way = Egress(host="127.0.0.1", port=listener.getsockname()[1])
    refusal = refused(dial(reactor, way, plain()))
    assert (refusal.rule, "The proxy was not reached" in refusal.why) == ("proxy-connect", True)


def test_a_proxy_that_hangs_up(reactor: Reactor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        refusal = refused(dial(reactor, Egress(host="127.0.0.1", port=listener.getsockname()[1]), plain()))
        assert (refusal.rule, "ended the connection" in refusal.why) == ("proxy-answer", True)


# --- its credential ---


def test_the_credential_goes_to_the_proxy(reactor: Reactor, upstream: Upstream) -> None:
    with Proxy({NAME: ("127.0.0.1", upstream.port)}, login=LOGIN) as proxy:
        stream, refusal = dial(reactor, way_to(proxy), plain(), credential=BASIC)[0]
        assert stream is not None, refusal
        stream.abort()
        refusal = refused(dial(reactor, way_to(proxy), plain()))
        assert (refusal.rule, "terok vault proxy set" in refusal.why) == ("proxy-credential", True)
        assert b"Authorization" not in proxy.heads[1]


def test_a_wrong_credential_is_tried_once(reactor: Reactor) -> None:
    """However many connections a container asks for: an account may be locked after a few failures."""
    with Proxy({NAME: ("127.0.0.1", 9)}, login=LOGIN) as proxy:
        dialling = dialer_for(reactor, way_to(proxy), lambda: "Basic d3Jvbmc=")
        results = dial_with(reactor, dialling, *[plain() for _ in range(30)])
        assert {refusal.rule for _, refusal in results if refusal} == {"proxy-credential"}
        assert len(proxy.asked) == 1
        assert isinstance(dialling, ProxyDialer)
        dialling.tried("", None)
        dial_with(reactor, dialling, plain())
        assert len(proxy.asked) == 1


def test_it_is_tried_again_later_or_when_it_is_another(
    reactor: Reactor, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = "Basic d3Jvbmc="
    with Proxy({NAME: ("127.0.0.1", upstream.port)}, login=LOGIN) as proxy:
        dialling = dialer_for(reactor, way_to(proxy), lambda: current)
        refused(dial_with(reactor, dialling, plain()))
        current = BASIC
        results = dial_with(reactor, dialling, *[plain() for _ in range(5)])
        assert [refusal for _, refusal in results] == [None] * 5
        for stream, _ in results:
            assert stream is not None
            stream.abort()
        proxy.login = "jane:another"  # the password has changed there
        refused(dial_with(reactor, dialling, plain()))
        before = len(proxy.asked)
        refused(dial_with(reactor, dialling, plain()))
        assert len(proxy.asked) == before
        monkeypatch.setattr(dialer, "REFUSED_SECONDS", 0.0)
        dialling = dialer_for(reactor, way_to(proxy), lambda: current)
        for _ in range(2):
            refused(dial_with(reactor, dialling, plain()))
        assert len(proxy.asked) == before + 2


def test_a_locked_vault_says_so(reactor: Reactor) -> None:
    def locked() -> str:
        raise LockedError("The vault is locked.")

    with Proxy() as proxy:
        refusal = refused(dial_with(reactor, dialer_for(reactor, way_to(proxy), locked), plain()))
        assert (refusal.status, "terok vault unlock" in refusal.why, proxy.asked) == (503, True, [])


def test_an_upstream_context_keeps_its_own_authorities(authority: Authority) -> None:
    """`upstream_ca` is trusted besides, never instead."""
    from terok_host.sidecars.kit.tls.layer import client_context

    with_system = client_context("", authority.file)
    subjects = [str(entry["subject"]) for entry in with_system.get_ca_certs()]
    assert any("trustme" in subject for subject in subjects)
    both = client_context(authority.file, authority.file)
    assert both.verify_mode is ssl.CERT_REQUIRED
    assert both.check_hostname
