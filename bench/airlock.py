"""The airlock against slirp4netns: bytes a second each way, connect and first byte, memory.

Client and server are sockets of this process: the client's are made inside the container's network, so both sides
cost the same in every mode.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.kit import Figure, interleaved, memory, pss, spread, timed
from terok_host.supervisor import record
from terok_host.supervisor.ground import process, within
from tests.lab.house import House

ADDRESS, SINK, SOURCE, ECHO = "192.88.99.10", 7000, 7001, 7002
ROUNDS = 5
SECONDS = 1.0
CONNECTIONS = 100
PIECE = bytes(1 << 18)


def measure(house: House) -> list[Figure]:
    """Every figure of the airlock."""
    with ExitStack() as stack:
        for port, serve in ((SINK, _drain), (SOURCE, _pour), (ECHO, _echo)):
            stack.enter_context(server(port, serve))
        boxes = {mode: stack.enter_context(container(house, mode)) for mode in modes(house)}
        return [*streams(boxes), *connections(boxes), *held(house, boxes["airlock"])]


def modes(house: House) -> list[str]:
    """The networks to compare: pasta where Podman has it (4.4 and newer)."""
    version = house.podman("version", "--format", "{{.Client.Version}}").stdout.split(".")
    return ["airlock", "slirp4netns", *(["pasta"] if (int(version[0]), int(version[1])) >= (4, 4) else [])]


class Box:
    """A running container's network."""

    def __init__(self, house: House, name: str) -> None:
        self.name = name
        pid = house.podman("inspect", "--format", "{{.State.Pid}}", name).stdout.strip()
        user, net = (os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net"))
        self._namespaces = process.Namespaces(user=user, net=net)

    def sockets(self, count: int) -> list[socket.socket]:
        """TCP sockets of the container's network."""

        def body() -> tuple[bytes, list[int]]:
            return b"", [socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach() for _ in range(count)]

        return [socket.socket(fileno=fd) for fd in within.call_in(self._namespaces, body, timeout=10)[1]]

    def connect(self, port: int) -> socket.socket:
        """A connection to the server on `port`."""
        (client,) = self.sockets(1)
        client.connect((ADDRESS, port))
        return client


@contextmanager
def container(house: House, mode: str) -> Iterator[Box]:
    """A container that runs: in the airlock through terok, in any other network by Podman alone."""
    name = f"b-{uuid.uuid4().hex[:6]}"
    wait = ["--detach", house.image, "sh", "-c", "trap exit TERM; sleep 1000 & wait"]
    if mode == "airlock":
        profiles = Path(house.layout.profiles)
        profiles.mkdir(parents=True, exist_ok=True)
        (profiles / "airlockbench.txt").write_text(f"{ADDRESS}:7000-7010\n")
        house.terok("run", name, "--network", "airlock", "--profiles", "airlockbench", "--", *wait)
    else:
        house.podman("run", "--name", name, "--network", mode, *wait)
    try:
        yield Box(house, name)
    finally:
        house.podman("rm", "--force", "--time", "0", name)
        house.terok("cleanup", name)


@contextmanager
def server(port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server in a thread for each connection."""
    listener = socket.create_server((ADDRESS, port), backlog=1024)

    def one(client: socket.socket) -> None:
        with client:
            try:
                serve(client)
            except OSError:
                pass  # the client has what it wanted

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _drain(client: socket.socket) -> None:
    space = bytearray(1 << 20)
    while client.recv_into(space):
        pass


def _pour(client: socket.socket) -> None:
    while True:
        client.sendall(PIECE)


def _echo(client: socket.socket) -> None:
    while data := client.recv(65536):
        client.sendall(data)


def streams(boxes: dict[str, Box]) -> list[Figure]:
    """Bytes a second on one connection, each way."""

    def out(box: Box) -> float:
        with box.connect(SINK) as client:
            sent, began = 0, time.monotonic()
            while (now := time.monotonic()) < began + SECONDS:
                sent += client.send(PIECE)
            return sent / (now - began)

    def back(box: Box) -> float:
        space = bytearray(1 << 20)
        with box.connect(SOURCE) as client:
            got, began = 0, time.monotonic()
            while (now := time.monotonic()) < began + SECONDS:
                try:
                    got += client.recv_into(space)
                except ConnectionResetError:  # pasta gives a connection up now and then on a busy machine
                    now = time.monotonic()
                    break
            return got / (now - began)

    figures = []
    for what, work in (("out", out), ("in", back)):
        rates = interleaved(ROUNDS, {mode: partial(work, box) for mode, box in boxes.items()})
        ratio = rates["airlock"] / rates["slirp4netns"]
        detail = ", ".join(f"{mode} {rate * 8 / 1e9:.1f} Gbit/s" for mode, rate in rates.items())
        off, series = spread(*rates.values()), tuple((mode, 0.0, rate * 8 / 1e9) for mode, rate in rates.items())
        name = f"airlock: bytes a second {what}, to slirp4netns"
        figures.append(Figure(name, ratio, "×", 3, True, detail, off, series))
        if "pasta" in rates:
            ratio, off = rates["airlock"] / rates["pasta"], spread(rates["airlock"], rates["pasta"])
            figures.append(Figure(f"airlock: bytes a second {what}, to pasta", ratio, "×", 1, True, spread=off))
    return figures


def connections(boxes: dict[str, Box]) -> list[Figure]:
    """Connect, send one byte, get it back: the median and the 99th percentile."""
    times: dict[str, list[float]] = {mode: [] for mode in boxes}
    for _ in range(ROUNDS):
        for mode, box in boxes.items():
            clients = box.sockets(CONNECTIONS // 2)
            for client in clients:
                times[mode].append(timed(partial(_once, client)))
    figures = []
    for what, at, budget in (("p50", 50, 1.5), ("p99", 99, None)):
        found = {mode: statistics.quantiles(values, n=100)[at - 1] for mode, values in times.items()}
        detail = ", ".join(f"{mode} {value * 1000:.2f} ms" for mode, value in found.items())
        ratio = found["airlock"] / found["slirp4netns"]
        series = tuple((mode, 0.0, value * 1000) for mode, value in found.items())
        name = f"airlock: connect and first byte {what}, to slirp4netns"
        figures.append(Figure(name, ratio, "×", budget, detail=detail, series=series))
    return figures


def _once(client: socket.socket) -> None:
    with client:
        client.connect((ADDRESS, ECHO))
        client.sendall(b"x")
        client.recv(1)


def held(house: House, box: Box) -> list[Figure]:
    """The relay's memory with no connection open, and with a thousand."""
    known = record.read(house.bundle(box.name).record)
    relay = known.service("airlock").process if known else None
    assert relay is not None
    figures = [memory("airlock: relay, nothing open", relay.pid)]
    clients: list[socket.socket] = []
    try:
        for _ in range(20):
            for client in box.sockets(50):
                client.connect((ADDRESS, ECHO))
                client.sendall(b"x")
                clients.append(client)
        for client in clients:
            client.recv(1)
        figures.append(Figure("airlock: relay, 1,000 connections open (PSS)", pss(relay.pid), "MB", 40))
    except PermissionError:
        figures.append(memory("airlock: relay, 1,000 connections open", relay.pid))
    finally:
        for client in clients:
            client.close()
    return figures
