"""One container under attack and what must hold for it: nothing forbidden arrives, no secret is inside, it recovers.

The container asks for forbidden things all the time: TCP and UDP to addresses that this machine has and counts. It also
asks for an allowed one, so that silence is not mistaken for safety.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from terok_host.supervisor import record
from terok_host.supervisor.record import Process, Record
from tests.lab import leaks, scope
from tests.lab.house import House
from tests.lab.waiting import until

ALLOWED, FORBIDDEN, PORT = "192.88.99.10", "192.88.99.66", 7443
DNS = "198.51.100.53"
ASKS = f"""
trap exit TERM
while :; do
  echo x | nc -w 1 {FORBIDDEN} {PORT}; echo x | nc -w 1 {ALLOWED} 7444; echo x | nc -u -w 1 {DNS} 53
  nslookup secret.leak.test {DNS}; nslookup leak.test; echo >>/tmp/rounds
done >/dev/null 2>&1 &
while :; do
  [ -e /tmp/load ] && {{ curl -s -m 5 -o /dev/null http://127.0.0.1:9419/v1/models; timeout 5 ssh-add -l; }}
  sleep 0.05
done >/dev/null 2>&1 &
wait
"""
"""Without end: what is forbidden; and, while /tmp/load is there, what is allowed."""
WORKS = f"""
curl -s -m 2 -o /dev/null http://127.0.0.1:9419/v1/models || exit 1
timeout 2 ssh-add -l | grep -q ED25519 || exit 2
nslookup not-allowed.test 127.0.0.1 2>&1 | grep -q NXDOMAIN || exit 3
[ "$(echo x | nc -w 2 {ALLOWED} {PORT})" = x ] || exit 4
"""
"""Vault, signer, names, relay: each has to answer."""
RECOVERY = 10.0
"""Seconds in which everything has to work again, on a machine that may be busy."""
ROLES = ("supervisor", "standby", "dnsmasq", "vault", "ssh", "airlock")
STOPPED = 1.0
"""Seconds that a process stays stopped before it goes on."""


class Row(NamedTuple):
    """One thing that was done: what to, how often, and the longest time until everything worked again (seconds)."""

    what: str
    state: str
    times: int
    recovery: float | None


class Canary:
    """Servers on the forbidden and the allowed address; counts what arrives.

    Attributes:
        hits: what arrived at the forbidden ones.
        answered: how often the allowed one was reached.
    """

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.answered = 0
        self._servers: dict[socket.socket, str] = {}
        for address, port, kind in (
            (FORBIDDEN, PORT, socket.SOCK_STREAM),
            (ALLOWED, 7444, socket.SOCK_STREAM),
            (DNS, 53, socket.SOCK_DGRAM),
            (ALLOWED, PORT, socket.SOCK_STREAM),
        ):
            server = socket.socket(socket.AF_INET, kind)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            if kind == socket.SOCK_STREAM:
                server.listen(64)
            self._servers[server] = f"{address}:{port}"
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            numbers = [self._stop, *(server.fileno() for server in self._servers)]
            ready, _, _ = select.select(numbers, [], [])
            if self._stop in ready:
                return
            for server in [server for server in self._servers if server.fileno() in ready]:
                place = self._servers[server]
                if server.type == socket.SOCK_DGRAM:
                    self.hits.append(f"{place} {server.recv(512)!r}")
                    continue
                client, _ = server.accept()
                with client:
                    if place != f"{ALLOWED}:{PORT}":
                        self.hits.append(place)
                        continue
                    self.answered += 1
                    client.settimeout(2)
                    try:
                        client.sendall(client.recv(64))
                    except OSError:
                        pass  # the client or the relay was just killed

    def close(self) -> None:
        """Stop serving."""
        os.close(self._stopped)
        self._thread.join()
        for server in self._servers:
            server.close()
        os.close(self._stop)


class Box:
    """A running container that asks for forbidden things."""

    def __init__(self, house: House, name: str, canary: Canary) -> None:
        self.house, self.name, self.canary = house, name, canary

    def known(self) -> Record:
        """Its supervisor's record."""
        found = record.read(self.house.bundle(self.name).record)
        assert found is not None
        return found

    def process(self, role: str) -> Process | None:
        """One of terok's processes of it by its name in the record, or Podman's `conmon`."""
        if role == "conmon":
            pid = int(self.house.podman("inspect", "--format", "{{.State.ConmonPid}}", self.name).stdout)
            return Process(pid, 0)
        return dict(self.known().processes()).get(role)

    def works(self) -> bool:
        """Every service answers, the pair is whole, and the rules are in force."""
        done = self.house.podman("exec", self.name, "sh", "-c", WORKS, check=False)
        if done.returncode != 0:
            return False
        now = self.known()
        whole = now.supervisor is not None and now.standby is not None and now.phase == record.READY
        return whole and self.house.terok("shield", "status", self.name, check=False).returncode == 0

    def recovered(self, within: float = RECOVERY, *, why: str = "") -> float:
        """Seconds until it works again; raises AssertionError when it does not."""
        began = time.monotonic()
        until(self.works, within, why=lambda: f"{why} {self.known()}")
        return time.monotonic() - began

    def asked(self, times: int = 3) -> None:
        """Wait until it has asked for everything forbidden so many times more."""
        before = self._rounds()
        until(lambda: self._rounds() >= before + times, 60)

    def _rounds(self) -> int:
        return len(self.house.podman("exec", self.name, "cat", "/tmp/rounds").stdout)

    def load(self, *, on: bool) -> None:
        """Have its services used without a pause, or not any more."""
        self.house.podman("exec", self.name, "sh", "-c", "touch /tmp/load" if on else "rm -f /tmp/load", check=False)

    def secrets(self) -> list[str]:
        """Where the credential is seen inside; nowhere, it should be."""
        script = f"grep -rls -e '{scope.SECRET}' /run/terok /root /etc /tmp /proc/[0-9]*/environ /proc/[0-9]*/cmdline"
        found = self.house.podman("exec", self.name, "sh", "-c", f"{script} 2>/dev/null | grep -v /self/", check=False)
        # the search itself has the words on its own command line
        return [line for line in found.stdout.splitlines() if not line.endswith("/cmdline")]


def furnish(house: House) -> None:
    """A scope with a credential and a key, and a profile with the allowed address."""
    scope.furnish(house, allowed=[scope.ALLOWED, f"{ALLOWED}:{PORT}"])


def flags(house: House, name: str) -> list[str]:
    """The wiring of a container with every service in the airlock."""
    words = ("--scope", scope.SCOPE, "--profiles", scope.PROFILE, "--network", "airlock")
    wiring: list[str] = json.loads(house.terok("prepare", name, *words, "--json").stdout)
    return wiring


@contextmanager
def box(house: House, canary: Canary, name: str = "chaos") -> Iterator[Box]:
    """A container that works; afterwards it is removed, and nothing of it may be left."""
    before = leaks.take(house, bundles=False)
    with ExitStack() as stack:
        stack.callback(house.podman, "rm", "--force", "--time", "0", "--ignore", name)
        house.podman("run", "--detach", *flags(house, name), house.image, "sh", "-c", ASKS)
        made = Box(house, name, canary)
        made.recovered(30)
        yield made
        judge(made)
    rest = leaks.left(house, before, within=5, bundles=False)
    assert not rest, "left behind:\n" + "\n".join(rest)


def strike(one: Box, role: str, number: int) -> bool:
    """Send a signal to one of a container's processes; False when there is no such process now."""
    process = one.process(role)
    if process is None:
        return False
    try:
        os.kill(process.pid, number)
        if number == signal.SIGSTOP:
            time.sleep(STOPPED)
            os.kill(process.pid, signal.SIGCONT)
    except ProcessLookupError:
        return False  # it was just leaving
    return True


def judge(one: Box) -> None:
    """Raise AssertionError when something forbidden arrived or a secret is inside."""
    assert not one.canary.hits, f"arrived: {one.canary.hits[:3]}"
    if one.house.podman("inspect", "--format", "{{.State.Running}}", one.name, check=False).stdout.strip() == "true":
        assert not (found := one.secrets()), f"the credential is in {found}"
