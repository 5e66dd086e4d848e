"""What comes to the vault's door: handshakes of every kind, hostile clients, and a relay that passes nonsense."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.kit.tls.layer import server_context
from terok_host.sidecars.vault.tls import arrival
from terok_host.sidecars.vault.tls.authority import make_authority
from terok_host.sidecars.vault.tls.leaf import issue_leaf
from tests.lab.waiting import until
from tests.standins.tls import Place
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, read_all

Make = Callable[..., Vault]
ALERT = b"\x15\x03\x03\x00\x02\x02"


@pytest.fixture
def place(vault: Vault, upstream: Upstream) -> Place:
    return Place(vault, upstream)


def hello(name: str | None, versions: tuple[ssl.TLSVersion, ssl.TLSVersion] | None = None) -> bytes:
    """The first flight of a client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if versions:
        context.minimum_version, context.maximum_version = versions
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


# --- versions, names, protocols ---


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_both_versions(place: Place, version: str) -> None:
    context = place.broker.context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with place.broker.secure(place.target, context=context) as sock:
        assert sock.version() == version.replace("_", ".")
        assert sock.selected_alpn_protocol() == "http/1.1"
        assert sock.compression() is None
        session = sock.session
        assert session is None or not session.has_ticket
        chain = sock.getpeercert()
        assert chain is not None and chain["subjectAltName"] == (("DNS", "localhost"),)


def test_tls_1_1_is_refused(place: Place) -> None:
    context = place.broker.context()
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        place.broker.secure(place.target, context=context)
    assert place.reason("tls-version")["host"] == "localhost"


def test_sessions_of_tls_1_3_are_not_resumed(place: Place) -> None:
    context = place.broker.context()
    first = place.broker.secure(place.target, context=context)
    first.sendall(f"GET /small HTTP/1.1\r\nHost: {place.target}\r\nConnection: close\r\n\r\n".encode())
    read_all(first)
    session = first.session
    first.close()
    raw = place.broker.raw(place.target)
    with context.wrap_socket(raw, server_hostname="localhost", session=session) as second:
        assert not second.session_reused


@pytest.mark.parametrize(
    ("name", "reason"),
    [("other.example", "other-name"), ("x.localhost", "other-name"), ("xlocalhost", "other-name"), (None, "no-name")],
)
def test_other_names_are_turned_away(place: Place, name: str | None, reason: str) -> None:
    with place.broker.raw(place.target) as sock:
        sock.sendall(hello(name))
        assert read_all(sock) == ALERT + b"\x70"
    line = place.reason(reason)
    assert (line["host"], line["status"], line["verdict"]) == ("localhost", 421, "refused")
    place.works()


@pytest.mark.parametrize("name", ["b.example", None])
def test_openssl_itself_refuses_another_name(name: str | None) -> None:
    """The hello that was looked at is the first one; a second one (RFC 8446, section 4.1.4) only OpenSSL sees."""
    context = server_context(issue_leaf(make_authority("box", ["a.example"]), "a.example").pem, "a.example")
    incoming = ssl.MemoryBIO()
    incoming.write(hello(name))
    with pytest.raises(ssl.SSLError) as raised:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    assert not isinstance(raised.value, ssl.SSLWantReadError)


def test_a_client_that_speaks_http2_alone_is_told_so(place: Place) -> None:
    context = place.broker.context()
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match="NO_APPLICATION_PROTOCOL|no application protocol"):
        place.broker.secure(place.target, context=context)
    assert "HTTP/1.1" in place.reason("no-http1")["allow"]


def test_a_client_without_alpn_is_served(place: Place) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=place.broker.authority.root.decode())
    with place.broker.secure(place.target, context=context) as sock:
        assert sock.selected_alpn_protocol() is None


def test_the_name_in_capitals_is_the_same(place: Place) -> None:
    with place.broker.secure(place.target, name="LocalHost") as sock:
        assert sock.version()


def test_the_first_request_does_not_wait_for_a_delayed_acknowledgement(place: Place) -> None:
    """The client's last flight and its request are two writes, and nothing of the server's comes between them."""
    place.works()
    times = []
    for _ in range(5):
        with place.broker.secure(place.target) as sock:
            began = time.monotonic()
            sock.sendall(b"GET / HTTP/1.1\r\nHost: other\r\n\r\n")
            sock.recv(1)
            times.append(time.monotonic() - began)
    assert min(times) < 0.03


# --- trust ---


def test_a_client_that_does_not_trust_us_is_told_what_to_set(place: Place) -> None:
    other = make_authority("box", ["localhost"])
    for root in (other.root, make_authority("other", ["localhost"]).root):
        with pytest.raises(ssl.SSLCertVerificationError):
            place.broker.secure(place.target, context=place.broker.context(root))
    line = place.reason("distrust")
    assert "/run/terok/ca.pem" in line["allow"] and "SSL_CERT_FILE" in line["allow"]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_client_that_leaves_at_the_certificate_is_told_what_to_set(place: Place, version: str) -> None:
    sock = place.broker.raw(place.target)
    sock.sendall(hello("localhost", (ssl.TLSVersion[version], ssl.TLSVersion[version])))
    assert sock.recv(100)[:1] == b"\x16"
    sock.close()
    assert place.reason("distrust")["allow"] == arrival.TRUST


def test_a_client_that_leaves_after_the_handshake_is_told_what_to_set(place: Place) -> None:
    """As one does that pins the certificate, and looks at it then."""
    place.broker.secure(place.target).close()
    line = place.reason("no-request")
    assert (line["event"], line["host"], line["allow"]) == ("connection", "localhost", arrival.TRUST)


def test_client_certificates_are_not_asked_for(place: Place) -> None:
    context = place.broker.context()
    leaf = issue_leaf(place.broker.authority, "localhost")
    with tempfile.NamedTemporaryFile() as file:
        file.write(leaf.pem)
        file.flush()
        context.load_cert_chain(file.name)
    with place.broker.secure(place.target, context=context) as sock:
        sock.sendall(f"GET /small HTTP/1.1\r\nHost: {place.target}\r\nConnection: close\r\n\r\n".encode())
        assert read_all(sock).endswith(b"ok")


# --- what clients do wrong ---


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x03\x01",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x00" * 100,
    ],
)
def test_what_is_no_tls(place: Place, data: bytes) -> None:
    with place.broker.raw(place.target) as sock:
        sock.sendall(data)
        answer = read_all(sock)
    assert answer in (b"", ALERT + b"\x70")
    place.reason("hello")
    place.works()


def server_name(size: int) -> bytes:
    """A hello whose server name has so many bytes."""
    name = b"a" * size
    listed = b"\0" + struct.pack("!H", size) + name
    content = struct.pack("!H", len(listed)) + listed
    extension = struct.pack("!HH", 0, len(content)) + content
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + struct.pack("!H", len(extension)) + extension
    message = b"\1" + len(body).to_bytes(3, "big") + body
    pieces = [message[at : at + 16000] for at in range(0, len(message), 16000)]
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(piece)) + piece for piece in pieces)


@pytest.mark.parametrize("size", [254, 16 << 10, 60 << 10])
def test_a_server_name_without_measure(place: Place, size: int) -> None:
    with place.broker.raw(place.target) as sock:
        sock.sendall(server_name(size))
        assert read_all(sock) == ALERT + b"\x70"
    place.reason("hello")
    place.works()


def test_a_hello_that_comes_slowly_is_read(place: Place) -> None:
    data = hello("localhost")
    with place.broker.raw(place.target) as sock:
        for at in range(0, len(data), 40):
            sock.sendall(data[at : at + 40])
            time.sleep(0.005)  # so that it arrives in pieces
        assert sock.recv(5)[:1] == b"\x16"


def test_a_hello_in_pieces_keeps_the_vault_asleep(place: Place) -> None:
    place.works()
    with place.broker.raw(place.target) as sock:
        data = hello("localhost")
        sock.sendall(data[:100])
        before = ticks(place.vault.pid)
        time.sleep(1)
        assert ticks(place.vault.pid) - before <= 5
        sock.sendall(data[100:])
        assert sock.recv(5)[:1] == b"\x16"


def ticks(pid: int) -> int:
    """Hundredths of a second of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_early_data_is_not_taken(place: Place) -> None:
    data = hello("localhost")
    with place.broker.raw(place.target) as sock:
        sock.sendall(data + b"\x17\x03\x03\x00\x20" + bytes(32))
        read_all(sock)
    place.works()
    assert len(place.upstream.seen) == 1


def test_no_renegotiation(place: Place) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(place.broker.authority.root)
        file.flush()
        raw = place.broker.raw(place.target)
        result = renegotiate(raw, file.name)
    assert b"renegotiation" in result.lower() or b"no renegotiation" in result.lower()
    place.works()


def renegotiate(raw: socket.socket, root: str) -> bytes:
    """What openssl says after it has asked for another handshake, over a forwarder in front of the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        argv = ["openssl", "s_client", "-connect", address, "-servername", "localhost", "-tls1_2", "-CAfile", root]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
            inside, _ = server.accept()
            with inside, raw:
                forward(client, inside, raw)
            assert client.stdout is not None
            return client.stdout.read()


def forward(client: subprocess.Popen[bytes], one: socket.socket, other: socket.socket) -> None:
    """Carry bytes until either side ends; ask for the renegotiation once the handshake is through."""
    import selectors

    assert client.stdin is not None
    selector = selectors.DefaultSelector()
    selector.register(one, selectors.EVENT_READ, other)
    selector.register(other, selectors.EVENT_READ, one)
    asked, deadline = False, time.monotonic() + 10
    while time.monotonic() < deadline:
        ready = selector.select(0.5)
        if not ready and not asked:
            client.stdin.write(b"R\n")
            client.stdin.flush()
            asked = True
        for key, _ in ready:
            source: Any = key.fileobj
            data = source.recv(65536)
            if not data:
                return
            key.data.sendall(data)


# --- many ---


def test_a_flood_of_names_below_the_host_makes_no_leaf(place: Place) -> None:
    place.works()
    before = memory(place.vault.pid)
    for number in range(1000):
        with place.broker.raw(place.target) as sock:
            sock.sendall(hello(f"name-{number}.localhost"))
            assert read_all(sock) == ALERT + b"\x70"
    assert memory(place.vault.pid) - before < 4 << 10
    place.works()


def test_slow_handshakes_end(make_vault: Make, upstream: Upstream) -> None:
    place = Place(make_vault(), upstream)
    began = time.monotonic()
    socks = [place.broker.raw(place.target, timeout=20) for _ in range(50)]
    for sock in socks:
        sock.sendall(hello("localhost")[:50])
    place.works()
    assert all(read_all(sock) == b"" for sock in socks)
    assert 9 < time.monotonic() - began < 15
    place.reason("slow-handshake")
    for sock in socks:
        sock.close()


def test_many_handshakes_at_once(place: Place) -> None:
    place.works()
    first = hello("localhost")
    socks = []
    for _ in range(300):
        socks.append(place.broker.raw(place.target))
        socks[-1].sendall(first)
    for sock in socks:
        assert sock.recv(5)[:1] == b"\x16"
    for sock in socks:
        sock.close()
    until(lambda: sum(line.get("reason") == "distrust" for line in place.vault.audit()) >= 300, 10)
    place.works()


@pytest.fixture
def kept(place: Place) -> Iterator[Callable[[int], None]]:
    """Opens connections that stay."""
    made: list[ssl.SSLSocket] = []
    context = place.broker.context()

    def more(count: int) -> None:
        for _ in range(count):
            made.append(place.broker.secure(place.target, context=context))

    yield more
    for sock in made:
        sock.close()


def test_a_thousand_idle_connections_cost_little(place: Place, kept: Callable[[int], None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        place.works()
        kept(10)
        before = memory(place.vault.pid)
        kept(980)  # the vault holds 1,000
        grown = memory(place.vault.pid) - before
        assert grown < 980 * 40, f"{grown / 980} KiB each"
        place.works()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(pid: int) -> int:
    """KiB in memory (proc(5), statm): of a process that is not dumpable, no more can be read."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * (os.sysconf("SC_PAGE_SIZE") >> 10)


def test_the_vault_stops_in_the_middle_of_handshakes(place: Place) -> None:
    socks = [place.broker.raw(place.target) for _ in range(20)]
    for sock in socks:
        sock.sendall(hello("localhost")[:50])
    code, seconds = place.vault.stop()
    assert (code, seconds < 1) == (0, True)
    for sock in socks:
        assert read_all(sock) == b""
        sock.close()
    place.works()
