"""The vault over HTTP/2 to a real peer: answers, streams, windows, ends, and the guards that hold there too."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.standins.upstream import Upstream
from tests.standins.upstream2 import Upstream2
from tests.standins.vault import SECRET, Vault, provider, read_all, wait_line
from tests.unit.conftest import Authority


@pytest.fixture
def h2(authority: Authority) -> Iterator[Upstream2]:
    """An upstream that speaks HTTP/2 only."""
    with Upstream2(authority.server("localhost", "127.0.0.1")) as made:
        yield made


@pytest.fixture
def vault(short_dir: Path, authority: Authority, h2: Upstream2) -> Iterator[Vault]:
    """A vault whose provider `p` leads there."""
    changes = {"ca_bundle": authority.file, "http2": True}
    with Vault(short_dir / "v", {"p": provider(f"https://localhost:{h2.port}", **changes)}) as made:
        yield made
        assert "Traceback" not in made.log()


def rss(vault: Vault) -> int:
    """Kilobytes in memory."""
    lines = Path(f"/proc/{vault.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


Ask = Callable[[str, str], http.client.HTTPResponse]


@pytest.fixture
def ask(vault: Vault) -> Iterator[Ask]:
    """Gives an answer whose body is still to be read."""
    clients: list[http.client.HTTPConnection] = []
    answers: list[http.client.HTTPResponse] = []

    def get(token: str, path: str) -> http.client.HTTPResponse:
        clients.append(vault.client(30))
        clients[-1].request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answers.append(clients[-1].getresponse())
        return answers[-1]

    yield get
    for answer in answers:
        answer.close()
    for client in clients:
        client.close()


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run it so many times at once; what fails there fails here."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures


def test_a_json_answer(vault: Vault, h2: Upstream2) -> None:
    token = vault.add("p")
    reply = vault.get("/x%2Fy?z=1", token, "POST", b"abc", Cookie="c=d", TE="trailers", X_Mine="yes")
    assert reply.status == 200
    headers = reply.json()["headers"]
    assert headers[":path"] == "/x%2Fy?z=1" and headers[":authority"] == f"localhost:{h2.port}"
    assert headers["x-mine"] == "yes" and headers["content-length"] == "3"
    assert not {"cookie", "te", "connection", "host", "transfer-encoding"} & set(headers)
    assert h2.seen[0].headers["authorization"] == f"Bearer {SECRET}"
    line = wait_line(vault, lambda line: line.get("status") == 200)
    assert line["bytes_in"] == 3 and line["bytes_out"] == len(reply.body)
    assert vault.get("/", token).status == 200 and vault.get("/", token, "HEAD").status == 200
    assert len(h2.connections) == 1 and not h2.resets


def test_events_arrive_one_by_one(vault: Vault, h2: Upstream2, ask: Ask) -> None:
    answer = ask(vault.add("p"), "/events/3")
    for number in range(3):
        assert answer.readline() == b"data: %d\n" % number
        assert answer.readline() == b"\n"
        h2.event("next").set()
    assert answer.read() == b""


def test_fifty_requests_share_a_connection(vault: Vault, h2: Upstream2) -> None:
    token = vault.add("p")
    assert vault.get("/", token).status == 200

    def work() -> None:
        assert vault.get("/meet/50", token).body == b"met"

    in_threads(50, work)
    assert h2.most == 50 and len(h2.connections) == 1


def test_no_more_streams_than_the_upstream_allows(vault: Vault, h2: Upstream2) -> None:
    h2.streams_max = 4
    token = vault.add("p")
    vault.up()

    def work() -> None:
        assert vault.get("/meet/12", token).body == b"met"

    in_threads(12, work)
    assert len(h2.connections) == 3 and not h2.errors


def test_twenty_megabytes_each_way_in_bounded_memory(vault: Vault, ask: Ask) -> None:
    token = vault.add("p")
    assert vault.get("/", token).status == 200
    before, block = rss(vault), bytes(range(256)) * 256
    client = vault.client(60)
    client.request("POST", "/", body=(block for _ in range(320)), headers={"Authorization": token}, encode_chunked=True)
    reply = json.loads(client.getresponse().read())
    client.close()
    assert reply["sha256"] == hashlib.sha256(block * 320).hexdigest()
    assert ask(token, f"/big/{20 << 20}").read() == block * 320
    assert rss(vault) - before < 8 << 10


def test_a_slow_reader_makes_its_stream_wait_and_no_other(vault: Vault, ask: Ask) -> None:
    token = vault.add("p")
    assert vault.get("/", token).status == 200
    before = rss(vault)
    answer = ask(token, f"/big/{64 << 20}")
    assert len(answer.read(1 << 20)) == 1 << 20
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert rss(vault) - before < 8 << 10
        assert vault.get("/", token).status == 200
    left = 63 << 20
    while left:
        left -= len(answer.read(1 << 20))
    assert rss(vault) - before < 8 << 10


def test_interim_answers_and_trailers(vault: Vault) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(
            f"GET /trailers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {token}\r\n\r\n".encode()
        )
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 103 ") and b"link: </style.css>" in answer
    assert b"set-cookie" not in answer and answer.endswith(b"5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")


def test_the_echo_guard_refuses(vault: Vault) -> None:
    reply = vault.get("/leak/header", vault.add("p"))
    assert (reply.status, reply.json()["reason"]) == (502, "echo") and SECRET.encode() not in reply.body


def test_the_echo_guard_cuts(vault: Vault, h2: Upstream2, ask: Ask) -> None:
    answer = ask(vault.add("p"), "/leak/late")
    assert answer.read(14) == b"innocent bytes"
    h2.event("next").set()
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert SECRET[12:].encode() not in caught.value.partial
    assert wait_line(vault, lambda line: line.get("reason") == "echo")


def test_a_refused_stream_is_sent_again_when_it_may_be(vault: Vault, h2: Upstream2) -> None:
    token = vault.add("p")
    assert vault.get("/reset/7/first", token).json()["number"] == 2
    assert vault.get("/reset/7/always", token, "POST", b"x").json()["reason"] == "upstream-lost"
    assert vault.get("/reset/2/always", token).json()["reason"] == "upstream-lost"
    assert len(h2.seen) == 4


def test_a_reset_in_the_middle_is_no_whole_answer(vault: Vault, h2: Upstream2, ask: Ask) -> None:
    answer = ask(vault.add("p"), "/reset/2/head")
    assert answer.read(9) == b"only this"
    h2.event("next").set()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    assert wait_line(vault, lambda line: line.get("reason") == "upstream-lost")


def test_goaway_lets_what_runs_go_on(vault: Vault, h2: Upstream2, ask: Ask) -> None:
    token = vault.add("p")
    running = ask(token, "/events/2")
    assert running.readline() == b"data: 0\n"
    assert vault.get("/goaway", token).status == 200
    assert len(h2.connections) == 2
    h2.event("next").set()
    assert running.read() == b"\ndata: 1\n\n"


def test_a_connection_that_dies_is_replaced(vault: Vault, h2: Upstream2) -> None:
    token = vault.add("p")
    assert vault.get("/", token).status == 200
    assert vault.get("/drop", token).status == 200
    assert len(h2.connections) == 2


def test_a_client_that_leaves_cancels_its_stream(vault: Vault, h2: Upstream2) -> None:
    token = vault.add("p")
    with vault.raw() as sock:
        sock.sendall(f"GET /silent HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        assert h2.event("asked").wait(10)
        sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0 s: a reset, since an end alone is no abort
    assert h2.event("reset").wait(10) and h2.resets == [8]
    assert vault.get("/", token).status == 200 and len(h2.connections) == 1


def test_a_server_without_http2(make_vault: Callable[..., Vault], upstream: Upstream, authority: Authority) -> None:
    vault = make_vault(http2=True)
    token = vault.add("p")
    vault.up()

    def work() -> None:
        assert vault.get("/small", token).body == b"ok"

    in_threads(10, work)
    made = upstream.connections
    work()
    assert upstream.connections == made <= 10


def test_a_web_socket_stays_on_http1(authority: Authority, short_dir: Path) -> None:
    context = authority.server("localhost", "127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Upstream(context) as upstream:
        changes = {"ca_bundle": authority.file, "http2": True}
        with Vault(short_dir / "v", {"p": provider(f"https://localhost:{upstream.port}", **changes)}) as vault:
            token = vault.add("p")
            with vault.raw() as sock:
                head = f"GET /web-socket HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
                head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n\r\n"
                sock.sendall(head.encode())
                assert sock.recv(12) == b"HTTP/1.1 101"
