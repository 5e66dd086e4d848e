"""A small internet for the firewall's tests: two network namespaces, joined by a veth pair, and servers in one of them.

`box` is where a container would be, `far` is everything else: each address of `INTERNET` is local there. Both belong to
one user namespace of the test's own, so an ordinary user can run it. Sockets are made inside by a short-lived child and
handed to the test, which then uses them like any other.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terok_host.sidecars.shield import bundle as shield_bundle
from terok_host.sidecars.shield import dnsmasq
from terok_host.sidecars.shield.live import Running
from terok_host.supervisor.ground import process, sockets, within
from terok_host.supervisor.ground.layout import Bundle
from terok_host.supervisor.schema import Shield
from terok_host.supervisor.wall import firewall, resolver

FORWARDER = "10.0.2.3"
INTERNET = ("0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3", "::/1", "8000::/2", "fc00::/7")
"""All of IPv4 but multicast, and enough of IPv6: routed from the box to `far`, and local there."""

_HOLD = "echo ready; exec cat"


class Box:
    """A user and a network namespace, held by a process that waits for its end of input."""

    def __init__(self, *, inside: Box | None = None) -> None:
        enter = ["unshare", "--user", "--map-root-user", "--map-auto", "--net"]  # like Podman: many uids
        if inside:
            enter = ["nsenter", "--user", "--preserve-credentials", f"--target={inside.pid}", "unshare", "--net"]
        self._holder = subprocess.Popen([*enter, "sh", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self.user = os.open(f"/proc/{self.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        self.net = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        return self._holder.pid

    @property
    def namespaces(self) -> process.Namespaces:
        """To run something inside."""
        return process.Namespaces(user=self.user, net=self.net)

    def run(self, *argv: str, stdin: bytes = b"", check: bool = True) -> process.Result:
        """Run a program inside; fails the test when it does."""
        result = process.run(list(argv), stdin=stdin, timeout=30, namespaces=self.namespaces)
        assert not check or result.code == 0, f"{argv}: {result.error}"
        return result

    def make(self, body: Callable[[], socket.socket]) -> socket.socket:
        """Run `body` inside; returns the socket that it made. Its OSError comes out as a TerokError with the text."""
        _, (fd,) = within.call_in(self.namespaces, lambda: (b"", [body().detach()]), timeout=10)
        return socket.socket(fileno=fd)

    def socket(self, family: int, kind: int) -> socket.socket:
        """A fresh socket that belongs to this network namespace."""
        return self.make(lambda: socket.socket(family, kind))

    def close(self) -> None:
        """End the holder; the namespaces go with the last socket."""
        assert self._holder.stdin is not None and self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(timeout=10)
        os.close(self.user)
        os.close(self.net)


class World:
    """The two boxes, wired; `shield` puts a policy in force in `box`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.far = Box()
        self.box = Box(inside=self.far)
        self.dns_log = 2
        self._dns: int | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._wire()

    def _wire(self) -> None:
        self.far.run("ip", "link", "add", "near0", "type", "veth", "peer", "name", "eth0", "netns", str(self.box.pid))
        script = ["link set lo up", "link set near0 up", "addr add 192.0.2.1/24 dev near0"]
        script += ["-6 addr add 2001:db8:ffff::1/64 dev near0 nodad"]
        script += [f"{'-6 ' if ':' in each else ''}route add local {each} dev lo table main" for each in INTERNET]
        self._ip(self.far, script)
        script = ["link set lo up", "link set eth0 up", "addr add 192.0.2.2/24 dev eth0"]
        script += ["-6 addr add 2001:db8:ffff::2/64 dev eth0 nodad", "route add default via 192.0.2.1"]
        script += ["-6 route add default via 2001:db8:ffff::1"]
        self._ip(self.box, script)

    def _ip(self, box: Box, lines: list[str]) -> None:
        for line in lines:
            box.run("ip", *line.split())

    # --- the policy --------------------------------------------------------------------------------------

    @property
    def bundle(self) -> Bundle:
        """The state bundle of the container that the box stands for."""
        return Bundle(str(self.path / "box"))

    def prepare(self, *lines: str, **options: Any) -> Shield:
        """Write the bundle for a profile of these lines."""
        (self.path / "profiles").mkdir(exist_ok=True)
        (self.path / "profiles" / "test.txt").write_text("\n".join(lines) + "\n")
        os.makedirs(self.bundle.root, exist_ok=True)
        given: dict[str, Any] = {"forwarder": FORWARDER, "features": installed_dnsmasq()} | options
        made = shield_bundle.prepare(self.bundle, profiles=["test"], user_profiles=str(self.path / "profiles"), **given)
        return Shield(**made)

    def shield(self, *lines: str, **options: Any) -> Shield:
        """Put a profile of these lines in force, with dnsmasq unless there is no forwarder."""
        shield = self.prepare(*lines, **options)
        firewall.apply(self.box.namespaces, shield)
        if shield.dnsmasq_conf is not None:
            self.start_dns(shield)
        return shield

    def start_dns(self, shield: Shield) -> None:
        """Start dnsmasq and wait for its first answer."""
        self._shield = shield
        self._dns = process.spawn(
            resolver.argv(shield),
            namespaces=self.box.namespaces,
            die_with_parent=True,
            fds={2: self.dns_log},
            prepare=resolver.confinement(shield),
        )
        with self.box.make(lambda: socket.socket(fileno=sockets.connect_udp("127.0.0.1", 53))) as probe:
            resolver.probe(probe.fileno(), shield.probe, 5)

    @property
    def dns_pid(self) -> int:
        """dnsmasq's pid."""
        assert self._dns is not None
        return self._dns

    def stop_dns(self) -> None:
        """Kill dnsmasq, as a crash would."""
        if self._dns is not None:
            os.kill(self._dns, 9)
            os.waitpid(self._dns, 0)
            self._dns = None

    def restart(self) -> None:
        """What a container's next start does: the firewall is applied anew, and dnsmasq is another process."""
        assert self._shield is not None
        self.stop_dns()
        firewall.apply(self.box.namespaces, self._shield)
        self.start_dns(self._shield)

    def running(self) -> Running:
        """What the live verbs need: here the test starts dnsmasq again, where else the supervisor would."""

        def restart() -> None:
            self.stop_dns()
            self.start_dns(self._shield)

        dns = None if self._dns is None else process.Process(self._dns, process.start_time(self._dns))
        return Running(self.box.namespaces, dns, restart)

    # --- servers and clients -----------------------------------------------------------------------------

    def serve(self, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """An echo server in `far`; it lives as long as the world."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def body() -> socket.socket:
            made = socket.socket(family, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND: IPv6 does not take a local route for an address
            made.bind((address, port))
            if kind == socket.SOCK_STREAM:
                made.listen(512)
            return made

        server = self.far.make(body)
        self._open.append(server)
        target = _echo_stream if kind == socket.SOCK_STREAM else _echo_datagrams
        thread = threading.Thread(target=target, args=(server,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return server

    def connect(self, address: str, port: int, *, timeout: float = 3) -> socket.socket:
        """A TCP connection from the box; OSError as the container would see it."""
        client = self.box.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(timeout)
        try:
            client.connect((address, port))
        except BaseException:
            client.close()
            raise
        return client

    def reaches(self, address: str, port: int, *, timeout: float = 3) -> bool:
        """Whether a TCP connection from the box comes about and carries bytes both ways; False when it is refused."""
        try:
            with self.connect(address, port, timeout=timeout) as client:
                client.sendall(b"hello")
                return client.recv(16) == b"hello"
        except (OSError, TimeoutError):
            return False

    def reaches_udp(self, address: str, port: int, *, timeout: float = 0.3) -> bool:
        """Whether a datagram from the box is answered."""
        with self.box.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(timeout)
            try:
                client.connect((address, port))
                client.send(b"hello")
                return client.recv(16) == b"hello"
            except (OSError, TimeoutError):
                return False

    def close(self) -> None:
        """Take everything down."""
        self.stop_dns()
        for each in self._open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not connected: still wakes whoever reads
        for thread in self._threads:
            thread.join(timeout=5)
        for each in self._open:
            each.close()
        self.box.close()
        self.far.close()


_features: list[dnsmasq.Features] = []


def installed_dnsmasq() -> dnsmasq.Features:
    """What the machine's dnsmasq can do."""
    if not _features:
        _features.append(dnsmasq.features(process.run(["dnsmasq", "--version"], timeout=5).out.decode()))
    return _features[0]


def _echo_stream(server: socket.socket) -> None:
    """Echo on every connection, one thread, until the server socket is shut down."""
    waiting = select.poll()
    server.setblocking(False)
    waiting.register(server, select.POLLIN)
    clients: dict[int, socket.socket] = {}
    try:
        while True:
            for fd, event in waiting.poll():
                if fd == server.fileno():
                    if event & select.POLLHUP:
                        return
                    client, _ = server.accept()
                    clients[client.fileno()] = client
                    waiting.register(client, select.POLLIN)
                    continue
                try:
                    data = clients[fd].recv(65536)
                    if data:
                        clients[fd].sendall(data)
                except OSError:
                    data = b""
                if not data:
                    waiting.unregister(fd)
                    clients.pop(fd).close()
    except (OSError, ValueError):
        return
    finally:
        for client in clients.values():
            client.close()


def _echo_datagrams(server: socket.socket) -> None:
    try:
        while True:
            data, peer = server.recvfrom(65536)
            if not data:
                return
            server.sendto(data, peer)
    except OSError:
        return


@contextmanager
def counted(box: Box, interface: str) -> Iterator[Callable[[], list[bytes]]]:
    """Every packet that arrives on an interface of `box` meanwhile: the callable drains what came so far."""

    def body() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))  # ETH_P_ALL
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        made.bind((interface, 0x0003))
        return made

    with box.make(body) as tap:
        tap.setblocking(False)
        seen: list[bytes] = []

        def drain() -> list[bytes]:
            while True:
                try:
                    packet, where = tap.recvfrom(65536)
                except BlockingIOError:
                    return seen
                if where[2] != socket.PACKET_OUTGOING:
                    seen.append(packet)

        yield drain
