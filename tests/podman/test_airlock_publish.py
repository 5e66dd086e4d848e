"""Published TCP ports of containers in the airlock: who is served, what is refused, what stays over restarts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from terok_host.supervisor import record
from terok_host.supervisor.ground import process, sockets, within
from tests.lab.house import House
from tests.lab.waiting import until

SERVER = "nc -ll -p 8000 -e cat & nc -ll -p 8001 -e cat & trap exit TERM; sleep 1000 & wait"
"""What a container runs here: two echo servers at all of its addresses."""


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def start(house: House, name: str, *publish: str, command: str = SERVER) -> None:
    words = [word for value in publish for word in ("--publish", value)]
    house.terok(
        "run", name, "--network", "airlock", "--profiles", "base",
        "--", "--detach", *words, house.image, "sh", "-c", command,
    )  # fmt: skip


def echoes(host: str, port: int, data: bytes = b"ping\n") -> bool:
    """Whether a server in the container sends `data` back."""
    try:
        with socket.create_connection((host, port), timeout=5) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            received = b""
            while more := client.recv(65536):
                received += more
            return received == data
    except OSError:
        return False


def log(house: House, box: str, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, Path(house.bundle(box).audit).read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def listening_inside(house: House, box: str, port: int) -> socket.socket:
    """A listening socket in the container's network: busybox's nc loses a connection now and then."""
    known = record.read(house.bundle(box).record)
    assert known is not None and known.container is not None
    user, net = (
        os.open(f"/proc/{known.container.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")
    )
    spaces = process.Namespaces(user=user, net=net)
    _, (fd,) = within.call_in(spaces, lambda: (b"", [sockets.listen_tcp("127.0.0.1", port)]), timeout=10)
    os.close(user)
    os.close(net)
    server = socket.socket(fileno=fd)
    server.settimeout(20)
    return server


def send_back(client: socket.socket) -> None:
    with client:
        client.settimeout(20)
        while data := client.recv(1 << 16):
            client.sendall(data)


def published(house: House, box: str) -> list[dict[str, Any]]:
    status = json.loads(house.terok("status", box, "--json").stdout)
    rows: list[dict[str, Any]] = status["containers"][0]["published"]
    return rows


def test_every_form_of_publish(house: House, name: str) -> None:
    everywhere, local, six, first = free_port("::"), free_port(), free_port("::1"), 41800
    start(
        house, name, f"{everywhere}:8000", f"127.0.0.1:{local}:8000", f"[::1]:{six}:8001",
        f"{first}-{first + 1}:8000-8001/tcp", "8001",
    )  # fmt: skip
    until(lambda: echoes("127.0.0.1", local))
    assert echoes("127.0.0.1", everywhere) and echoes("::1", everywhere) and echoes("192.0.2.2", everywhere)
    assert not echoes("192.0.2.2", local) and not echoes("::1", local)
    assert echoes("::1", six) and not echoes("127.0.0.1", six)
    assert echoes("127.0.0.1", first) and echoes("127.0.0.1", first + 1)
    rows = published(house, name)
    assert [(row["host"], row["host_port"], row["port"]) for row in rows[:3]] == [
        ("", everywhere, 8000), ("127.0.0.1", local, 8000), ("::1", six, 8001)
    ]  # fmt: skip
    chosen = rows[-1]["host_port"]
    assert chosen and echoes("127.0.0.1", chosen)
    text = house.terok("status", name).stdout
    assert f"publishes 0.0.0.0:{everywhere}->8000/tcp" in text and f"publishes [::1]:{six}->8001/tcp" in text
    assert f"127.0.0.1:{local}->8000/tcp" in house.terok("ps").stdout
    house.podman("stop", "--time", "0", name)
    assert not echoes("127.0.0.1", chosen)
    house.podman("start", name)
    until(lambda: echoes("127.0.0.1", chosen))
    assert published(house, name) == rows


def test_lines_of_the_log(house: House, name: str) -> None:
    port, silent = free_port(), free_port()
    start(house, name, f"127.0.0.1:{port}:8000", f"127.0.0.1:{silent}:8999")
    until(lambda: echoes("127.0.0.1", port))
    assert not echoes("127.0.0.1", silent)
    until(lambda: bool(log(house, name, "published-closed")))
    begun = next(line for line in log(house, name, "published") if line["verdict"] == "allowed")
    assert (begun["address"], begun["port"], begun["at"]) == ("127.0.0.1", 8000, f"127.0.0.1:{port}")
    ended = log(house, name, "published-closed")[0]
    assert (ended["received"], ended["sent"], ended["id"]) == (5, 5, begun["id"])
    failed = [line for line in log(house, name, "published") if line["verdict"] == "failed"]
    assert any(line["port"] == 8999 and "refused" in line["reason"] for line in failed)
    assert f"at=127.0.0.1:{port}" in house.terok("shield", "logs", name).stdout


def test_much_at_once_arrives_whole(house: House, name: str) -> None:
    port = free_port()
    start(house, name, f"127.0.0.1:{port}:7000", command="sleep 1000")
    data = os.urandom(1 << 20)
    answers: list[bool] = []

    def send(client: socket.socket) -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    def transfer() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            sender = threading.Thread(target=send, args=(client,))
            sender.start()
            received = bytearray()
            while more := client.recv(1 << 20):
                received += more
            sender.join()
            answers.append(bytes(received) == data)

    clients = [threading.Thread(target=transfer) for _ in range(20)]
    with listening_inside(house, name, 7000) as server:
        for client in clients:
            client.start()
        servers = [threading.Thread(target=send_back, args=(server.accept()[0],)) for _ in clients]
        for thread in servers:
            thread.start()
        for thread in (*clients, *servers):
            thread.join()
    assert answers == [True] * 20


def test_the_helper_is_inside_and_is_replaced_when_killed(house: House, name: str) -> None:
    """Its sockets belong to the container's network, so it reaches nothing of the host's."""
    port = free_port()
    start(house, name, f"127.0.0.1:{port}:8000")
    until(lambda: echoes("127.0.0.1", port))
    known = record.read(house.bundle(name).record)
    assert known is not None and known.container is not None
    helper = known.service("publish").process
    assert helper is not None
    network = os.readlink(f"/proc/{known.container.pid}/ns/net")
    status = Path(f"/proc/{helper.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    listing = house.podman("unshare", "readlink", f"/proc/{helper.pid}/ns/net", check=False).stdout.strip()
    assert listing in (network, "")  # it is not dumpable: only Podman's own user namespace may look
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        os.kill(helper.pid, signal.SIGKILL)
        client.settimeout(5)
        with pytest.raises(ConnectionError):
            if not client.recv(1):
                raise ConnectionError
    before = time.monotonic()
    assert echoes("127.0.0.1", port)  # it waited in the listener that the supervisor holds
    assert time.monotonic() - before < 3


@pytest.mark.parametrize("heal", [False, True], ids=["standby", "heal"])
def test_published_ports_outlive_the_supervisor(house: House, name: str, heal: bool) -> None:
    port = free_port()
    start(house, name, f"127.0.0.1:{port}:8000")
    until(lambda: echoes("127.0.0.1", port))
    first = record.read(house.bundle(name).record)
    assert first is not None and first.supervisor is not None and first.standby is not None
    for process_ in (first.standby, first.supervisor) if heal else (first.supervisor,):
        os.kill(process_.pid, signal.SIGKILL)
    if heal:
        house.terok("heal", name)

    def replaced() -> bool:
        now = record.read(house.bundle(name).record)
        return now is not None and now.supervisor not in (None, first.supervisor)

    until(replaced)
    until(lambda: echoes("127.0.0.1", port))


def test_quarantine_closes_published_ports(house: House, name: str) -> None:
    port = free_port()
    start(house, name, f"127.0.0.1:{port}:8000")
    until(lambda: echoes("127.0.0.1", port))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        house.terok("shield", "quarantine", name)
        client.settimeout(1)
        client.sendall(b"y")
        with pytest.raises(OSError, match="timed out|reset"):
            client.recv(1)
    assert not echoes("127.0.0.1", port)
    house.terok("shield", "up", name)
    assert echoes("127.0.0.1", port)


def test_a_taken_port_refuses_the_start(house: House, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--", "--detach", "-p", f"127.0.0.1:{port}:8000", house.image, "sleep", "1000"]
        refused = house.terok("run", name, "--network", "airlock", *words, check=False)
        assert refused.returncode != 0 and f"The port {port} of the host cannot be published" in refused.stderr
        assert not Path(house.bundle(name).root).exists()
        # prepared while it is taken, or taken in between: the hook refuses, and the container does not run
        flags = shlex.split(house.terok("prepare", name, "--network", "airlock", *words).stdout)
        assert not [word for word in flags if "publish" in word or word == "-p"]
        refused = house.podman("run", *flags, check=False)
        assert refused.returncode != 0
        said = Path(house.bundle(name).hook_error).read_text()
        assert f"The published port {port} cannot be listened on at 127.0.0.1: Address already in use" in said
        assert "has it" in said
    house.podman("start", name)
    assert published(house, name)[0]["host_port"] == port


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "5300:53/udp"], "publishes TCP ports only"),
        (["-P"], "names none"),
        (["-p", "9419:9419"], "terok's own"),
        (["-p", "8000:80", "-p", "127.0.0.1:8000:81"], "published twice"),
        (["-p", "8000-8002:80"], "not a port to publish"),
    ],
)
def test_what_cannot_be_published_is_refused(house: House, name: str, words: list[str], said: str) -> None:
    refused = house.terok("run", name, "--network", "airlock", "--", *words, house.image, "true", check=False)
    assert refused.returncode != 0 and said in refused.stderr
    assert not Path(house.bundle(name).root).exists()


@pytest.mark.parametrize("form", ["compose", "quadlet"])
def test_compose_and_quadlet_publish_through_terok(house: House, name: str, form: str) -> None:
    port = free_port()
    words = ["--", "-dp", f"{port}:8000", house.image, "sh", "-c", SERVER]
    text = house.terok("prepare", name, "--network", "airlock", "--format", form, *words).stdout
    assert str(port) not in text and "ublish" not in text and "ports" not in text
    assert published(house, name) == [{"host": "", "host_port": port, "port": 8000, "protocol": "tcp"}]


def test_an_annotation_publishes(house: House) -> None:
    port = free_port()
    wanted = ["--network", "none", "--annotation", "terok.network=airlock"]
    wanted += ["--annotation", f"terok.publish=127.0.0.1:{port}:8000 8001"]
    identity = house.podman("run", "--detach", *wanted, house.image, "sh", "-c", SERVER).stdout.strip()
    try:
        until(lambda: echoes("127.0.0.1", port))
        until(lambda: echoes("127.0.0.1", published(house, identity[:12])[1]["host_port"]))
    finally:
        house.podman("rm", "--force", "--time", "0", identity)
    house.terok("cleanup", identity[:12])
    words = ["run", "--rm", "--annotation", "terok.publish=8000", house.image, "true"]
    assert house.podman(*words, check=False).returncode != 0
    assert "needs terok.network=airlock" in Path(house.layout.hook_error).read_text()
