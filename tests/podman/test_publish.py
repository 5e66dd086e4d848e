"""Published UDP ports of a container behind the shield: datagrams in, and their answers out."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from terok_host.supervisor.ground import process, within
from tests.lab.house import House

OUTSIDE = "slirp4netns:port_handler=slirp4netns,allow_host_loopback=true"
"""A network whose datagrams come from outside: Podman's own forwarder sends them over the container's loopback."""


@pytest.fixture(autouse=True)
def profile(house: House) -> Iterator[None]:
    """A profile that makes the scope `udptest` known."""
    path = Path(house.layout.profiles) / "udptest.txt"
    os.makedirs(path.parent, exist_ok=True)
    path.write_text("allowed.test\n")
    yield
    path.unlink()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def server(house: House, container: str, port: int) -> socket.socket:
    """A socket in the container's network: no program of the image listens for datagrams."""
    pid = house.podman("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
    user, net = (os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net"))

    def body() -> tuple[bytes, list[int]]:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", port))
        return b"", [made.detach()]

    _, (fd,) = within.call_in(process.Namespaces(user=user, net=net), body, timeout=10)
    os.close(user)
    os.close(net)
    return socket.socket(fileno=fd)


def reach(published: int, inside: socket.socket, seconds: float) -> tuple[bool, bool]:
    """Send datagrams to the host's port until one is answered: whether one arrived, and whether an answer came back."""
    arrived = False
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        while time.monotonic() < deadline:
            client.sendto(b"hello", ("127.0.0.1", published))
            ready, _, _ = select.select([client, inside], [], [], 0.1)
            if inside in ready:
                data, sender = inside.recvfrom(64)
                arrived = data == b"hello"
                inside.sendto(b"answer", sender)
            if client in ready:
                return arrived, client.recv(64) == b"answer"
    return arrived, False


def test_what_run_publishes_is_open(house: House, name: str) -> None:
    port = free_port()
    words = ("--detach", "--publish", f"127.0.0.1:{port}:5300/udp", house.image, "sleep", "1000")
    house.terok("run", name, "--network", "auto", "--profiles", "udptest", "--", *words)
    with server(house, name, 5300) as inside:
        assert reach(port, inside, 10) == (True, True)


def test_what_no_annotation_names_is_closed(house: House, name: str) -> None:
    known, other = free_port(), free_port()
    house.podman(
        "run", "--detach", "--name", name, "--network", OUTSIDE,
        "--annotation", "terok.shield.profiles=udptest", "--annotation", "terok.shield.udp_ports=5300",
        "--publish", f"127.0.0.1:{known}:5300/udp", "--publish", f"127.0.0.1:{other}:5301/udp",
        house.image, "sleep", "1000",
    )  # fmt: skip
    identity = house.podman("inspect", "--format", "{{.Id}}", name).stdout[:12]
    try:
        with server(house, name, 5300) as inside:
            assert reach(known, inside, 10) == (True, True)
        with server(house, name, 5301) as inside:
            assert reach(other, inside, 1) == (False, False)
    finally:
        house.podman("rm", "--force", "--time", "0", name)
        house.terok("cleanup", identity)
