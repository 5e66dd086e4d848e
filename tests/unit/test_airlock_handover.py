"""Connections to brokered hosts on their way from the relay to the vault: unread, waited for, and with a clear end."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.airlock import handover
from terok_host.sidecars.airlock.flow import Flow
from terok_host.sidecars.airlock.policy import Verdict
from terok_host.sidecars.airlock.service import Service
from terok_host.sidecars.kit.audit import Audit
from terok_host.sidecars.kit.reactor import Reactor
from terok_host.sidecars.shield.special import UNKNOWN
from terok_host.supervisor.ground import sockets
from tests.lab.waiting import until
from tests.standins.tls import Broker, Client, tcp_pair
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, read_all

BROKERED = "api.example.org"
POLICY: dict[str, Any] = {
    "container": "box", "generation": 1, "mode": "enforcing", "until": None, "denied": [], "passing": {},
    "allowed": ["*.example.org", "*.example.org:443"],
    "names": {"198.18.1.1": BROKERED, "198.18.1.2": "*.example.org", "198.18.1.3": "other.test"},
}  # fmt: skip


class Relay:
    """The relay's service in a thread, fed with connections as if rules had led them to it."""

    def __init__(self, root: Path, path: str, port: int = 443) -> None:
        self.policy, self.log = root / "policy.json", root / "audit.jsonl"
        self.port = port
        self.write(allowed=[f"*.example.org:{port}"])
        self.reactor = Reactor(strict=True)
        brokered = frozenset(((BROKERED, port),))
        audit = Audit(str(self.log), "shield")
        self.service = Service(
            self.reactor, [], str(self.policy), audit, container="box", brokered=brokered, handover=path
        )
        self.service.look()
        self._thread = threading.Thread(target=self.reactor.run, daemon=True)
        self._thread.start()

    def write(self, **changes: Any) -> None:
        """Write the policy."""
        self.policy.with_suffix(".new").write_text(json.dumps({**POLICY, **changes}))
        os.replace(self.policy.with_suffix(".new"), self.policy)

    def connect(self, address: str, timeout: float = 10) -> socket.socket:
        """A client's end of a connection to a synthetic address."""
        ours, theirs = tcp_pair()
        theirs.setblocking(False)
        ours.settimeout(timeout)

        def begin() -> None:
            route = self.service.policy.route(address, self.port, self.service.clock())
            if isinstance(route, Verdict):
                theirs.close()
                return
            flow = Flow(self.service, theirs, route)
            self.service._flows.add(flow)
            flow.start()

        self._call(begin)
        return ours

    def _call(self, body: Callable[[], None]) -> None:
        """In the loop, which is woken; returns when it is done."""
        done = threading.Event()

        def run() -> None:
            body()
            done.set()

        self.reactor.in_thread(lambda: run)
        assert done.wait(10)

    def look(self) -> None:
        """Read the policy again."""
        self._call(self.service.look)

    def close(self) -> None:
        """End what is open, and the thread."""

        def end() -> None:
            for flow in list(self.service._flows):
                flow.cut("the test is over")
            self.reactor.stop()

        self._call(end)
        self._thread.join(10)
        self.reactor.close()

    def lines(self) -> list[dict[str, Any]]:
        """The audit log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def line(self, **wanted: str) -> dict[str, Any]:
        """The line with these members, when it comes."""

        def find() -> dict[str, Any]:
            return next((line for line in self.lines() if wanted.items() <= line.items()), {})

        return until(find, 15, why=self.lines)


@pytest.fixture
def broker(vault: Vault, upstream: Upstream) -> Broker:
    """A vault that brokers the host of the policy, at the stand-in's port."""
    vault.add("p")
    return Broker(vault, [f"{BROKERED}:{upstream.port}"])


@pytest.fixture
def relay(tmp_path: Path, broker: Broker, upstream: Upstream) -> Iterator[Relay]:
    """A relay before that vault."""
    made = Relay(tmp_path, broker.path, upstream.port)
    yield made
    made.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that waits as long as a busy machine takes to start a vault; other tests hold its real bound."""
    monkeypatch.setattr(handover, "HANDOVER_SECONDS", 60.0)


def ask(broker: Broker, sock: socket.socket, name: str = BROKERED) -> int:
    """The status of a request over TLS: 403, as no credential is for the host."""
    target = f"{BROKERED}:{sock.getpeername()[1]}"
    host = f"{BROKERED}:{broker.vault.settings['tls_hosts'][0].split(':')[1]}"
    with closing(Client(broker.context().wrap_socket(sock, server_hostname=name), target)) as client:
        client.request("GET", "/", headers={"Host": host})
        with client.getresponse() as response:
            return response.status


@pytest.mark.parametrize("address", ["198.18.1.1", "198.18.1.2"])
def test_the_vault_serves_what_the_relay_passes_on(broker: Broker, relay: Relay, address: str) -> None:
    broker.vault.up()
    assert ask(broker, relay.connect(address)) == 403
    line = relay.line(verdict="brokered")
    assert (line["name"], line["port"]) == (BROKERED, relay.port)
    assert broker.vault.audit()[-1]["host"] == BROKERED
    closed = relay.line(event="closed")
    assert closed["id"] == line["id"] and "sent" not in closed
    until(lambda: not relay.service._flows)


def test_another_name_under_the_same_pattern_goes_out(broker: Broker, relay: Relay) -> None:
    with relay.connect("198.18.1.2") as sock, pytest.raises(OSError):
        ask(broker, sock, "www.example.org")
    assert relay.line(name="www.example.org")["verdict"] in ("failed", "refused")
    assert not any(line.get("verdict") == "brokered" for line in relay.lines())


def test_open_modes_broker_too(broker: Broker, relay: Relay) -> None:
    broker.vault.up()
    relay.write(mode="down", generation=2)
    relay.look()
    assert ask(broker, relay.connect(UNKNOWN)) == 403


def test_a_brokered_host_need_not_be_allowed(broker: Broker, relay: Relay) -> None:
    broker.vault.up()
    relay.write(allowed=[], generation=2)
    relay.look()
    assert ask(broker, relay.connect("198.18.1.1")) == 403


@pytest.mark.parametrize("change", [{"denied": [BROKERED]}, {"denied": ["*.example.org"]}, {"mode": "quarantine"}])
def test_a_denial_and_the_quarantine_count(broker: Broker, relay: Relay, change: dict[str, Any]) -> None:
    broker.vault.up()
    relay.write(**change, generation=2)
    relay.look()
    for address in ("198.18.1.1", "198.18.1.2"):
        with relay.connect(address) as sock, pytest.raises(OSError):
            ask(broker, sock)
    assert not any(line.get("verdict") == "brokered" for line in relay.lines())


def test_plain_http_is_not_spliced_to_a_brokered_host(broker: Broker, relay: Relay) -> None:
    with relay.connect("198.18.1.2") as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {BROKERED}:{relay.port}\r\n\r\n".encode())
        assert read_all(sock).startswith(b"HTTP/1.1 403")
    assert "TLS only" in relay.line(verdict="refused")["reason"]


def test_a_hello_in_pieces_is_left_whole(broker: Broker, relay: Relay) -> None:
    broker.vault.up()
    sent = ssl.MemoryBIO()
    received = ssl.MemoryBIO()
    client = broker.context().wrap_bio(received, sent, server_hostname=BROKERED)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    data = sent.read()
    with relay.connect("198.18.1.2") as sock:
        for at in range(0, len(data), 50):
            sock.sendall(data[at : at + 50])
        received.write(sock.recv(65536))
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        assert client.version()


# --- the vault is not there ---


def test_a_vault_that_starts_late_is_waited_for(broker: Broker, relay: Relay, patient: None) -> None:
    """The supervisor holds the socket: what is sent to it stays until the vault reads it."""
    with relay.connect("198.18.1.1", timeout=60) as sock:
        until(lambda: relay.service.handover._links == 1, 15)
        broker.vault.up()
        assert ask(broker, sock) == 403


def test_a_vault_that_dies_is_waited_for(broker: Broker, relay: Relay, patient: None) -> None:
    broker.vault.up()
    os.kill(broker.vault.pid, signal.SIGSTOP)
    with relay.connect("198.18.1.1", timeout=60) as sock:
        until(lambda: relay.service.handover._links == 1, 15)
        broker.vault.stop(signal.SIGKILL)
        broker.vault.up()
        assert ask(broker, sock) == 403


def test_a_vault_that_never_comes_is_told(broker: Broker, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "HANDOVER_SECONDS", 0.5)
    with relay.connect("198.18.1.1") as sock, pytest.raises(ssl.SSLError, match="INTERNAL_ERROR|internal error"):
        broker.context().wrap_socket(sock, server_hostname=BROKERED)
    line = relay.line(verdict="refused")
    assert "0.5 s" in line["reason"] and line["allow"] == "terok status"


def test_a_vault_that_has_failed_is_told(tmp_path: Path, short_dir: Path) -> None:
    """As the supervisor does: it accepts, says so in HTTP, and closes."""
    path = str(short_dir / "handover")
    listener = sockets.listen_unix(path, 0o600, messages=True)
    os.set_blocking(listener, True)
    held = socket.socket(fileno=listener)
    with held, closing(Relay(tmp_path, path)) as relay, relay.connect("198.18.1.1") as sock:
        sock.sendall(b"\x16\x03\x01\x00\x05hello")
        link, _ = held.accept()
        with link:
            sockets.send_last(link.fileno(), b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            assert read_all(sock) == b"\x15\x03\x03\x00\x02\x02\x50"
            assert "cannot start" in relay.line(verdict="refused")["reason"]


def test_a_vault_that_does_not_broker_it_is_told(broker: Broker, tmp_path: Path) -> None:
    broker.vault.up()
    (tmp_path / "r").mkdir()
    with closing(Relay(tmp_path / "r", broker.path, 444)) as relay:
        with relay.connect("198.18.1.1") as sock:
            sock.sendall(b"\x16\x03\x01\x00\x05hello")
            read_all(sock)
        assert "does not broker" in relay.line(verdict="refused")["reason"]


def test_more_than_the_queue_holds_wait_their_turn(broker: Broker, relay: Relay) -> None:
    broker.vault.up()
    os.kill(broker.vault.pid, signal.SIGSTOP)
    with ExitStack() as stack:
        socks = [stack.enter_context(relay.connect("198.18.1.1")) for _ in range(2 * handover.LINKS_MAX)]
        until(lambda: relay.service.handover._links == handover.LINKS_MAX)
        os.kill(broker.vault.pid, signal.SIGCONT)
        until(lambda: sum(line.get("verdict") == "brokered" for line in relay.lines()) == len(socks), 15)


def test_a_denial_ends_what_the_vault_has(broker: Broker, relay: Relay) -> None:
    broker.vault.up()
    secure = broker.context().wrap_socket(relay.connect("198.18.1.1"), server_hostname=BROKERED)
    with secure, relay.connect("198.18.1.1") as raw:
        until(lambda: sum(line.get("verdict") == "brokered" for line in relay.lines()) == 2)
        relay.write(denied=[BROKERED], generation=2)
        relay.look()
        for sock in (secure, raw):
            assert read_all(sock) == b""
    assert relay.line(event="closed")["reason"] == f"{BROKERED} is denied"


def test_a_relay_that_is_gone_leaves_the_vaults_connections_alone(broker: Broker, relay: Relay) -> None:
    broker.vault.up()
    with broker.context().wrap_socket(relay.connect("198.18.1.1"), server_hostname=BROKERED) as secure:
        relay.line(verdict="brokered")
        for flow in list(relay.service._flows):
            gift = flow._gift
            assert gift is not None and gift.link is not None
            os.close(gift.link.detach())
        secure.sendall(f"GET / HTTP/1.1\r\nHost: {BROKERED}:{relay.port}\r\nConnection: close\r\n\r\n".encode())
        assert read_all(secure).startswith(b"HTTP/1.1 403")
    relay.service._flows.clear()


def test_a_denial_takes_back_what_waits(broker: Broker, relay: Relay) -> None:
    broker.vault.up()
    os.kill(broker.vault.pid, signal.SIGSTOP)
    with relay.connect("198.18.1.1") as sock:
        until(lambda: relay.service.handover._links == 1)
        relay.write(denied=[BROKERED], generation=2)
        relay.look()
        until(lambda: not relay.service._flows)
        os.kill(broker.vault.pid, signal.SIGCONT)
        sock.settimeout(10)
        with pytest.raises(OSError):
            ask(broker, sock)


def test_a_client_that_goes_while_it_waits_is_forgotten(broker: Broker, relay: Relay) -> None:
    broker.vault.up()
    os.kill(broker.vault.pid, signal.SIGSTOP)
    relay.connect("198.18.1.1").close()
    until(lambda: relay.service.handover._links == 1)
    os.kill(broker.vault.pid, signal.SIGCONT)
    until(lambda: not relay.service._flows and not relay.service.handover._links)
