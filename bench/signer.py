"""The signer against OpenSSH's ssh-agent: Ed25519 signatures a second, latency, memory, first answer."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.kit import Figure, interleaved, memory, spread
from terok_host.sidecars.ssh.wire import string
from tests.lab.house import House
from tests.standins.signer import Operator, Signer

CLIENT = Path(__file__).parent / "clients" / "agent_load.py"
SECONDS = 1.0
ROUNDS = 9
SSHSIG = b"SSHSIG" + string("git") + string("") + string("sha512") + string(bytes(64))


def measure(house: House) -> list[Figure]:
    """The signer's figures; ssh-agent holds the same key and signs the same bytes, in turns."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="tk", dir="/tmp") as directory:
        base = Path(directory)
        operator = Operator(base / "operator")
        operator.terok("ssh", "generate", "key", "--scope", "work")
        operator.terok("ssh", "export", "key", "--no-passphrase", "--output", str(base / "key"))
        blob = base64.b64decode(operator.terok("ssh", "pub", "key").split()[1])
        request = string(b"\x0d" + string(blob) + string(SSHSIG) + bytes(4)).hex()
        with agent(base) as other, Signer(operator, "work", policy={"rate": 0}) as signer:
            first = first_answer(signer)
            for clients in (1, 4):
                figures += compare(signer.path, other, request, clients)
            figures.append(memory("signer: memory in use", signer.pid))
            figures.append(Figure("signer: first answer, cold", first, "ms", 100))
    return figures


@contextmanager
def agent(base: Path) -> Iterator[str]:
    """A running ssh-agent that holds the key; its socket."""
    path = str(base / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not Path(path).exists():
            time.sleep(0.01)
        subprocess.run(["ssh-add", "-q", str(base / "key")], env={"SSH_AUTH_SOCK": path}, check=True)
        yield path
    finally:
        process.terminate()
        process.wait()


def first_answer(signer: Signer) -> float:
    """Milliseconds from the start of the process until a client that waited already has its list of keys."""
    took = []
    for _ in range(ROUNDS):
        subprocess.run(["kill", str(signer.pid)], check=True)
        signer.wait(5)
        with signer.connect() as client:
            client.sendall(string(b"\x0b"))
            began = time.perf_counter()
            signer.start()
            client.recv(4096, socket.MSG_PEEK)
            took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[ROUNDS // 2]


def compare(ours: str, theirs: str, request: str, clients: int) -> list[Figure]:
    """Signatures a second of both, on kept and on new connections, as ratios; and our latency."""
    latency: dict[str, list[tuple[float, float]]] = {"kept": [], "new": []}

    def contender(path: str, mode: str) -> Callable[[], float]:
        def run() -> float:
            rate, p50, p99 = load(path, request, clients, mode)
            if path == ours:
                latency[mode].append((p50, p99))
            return rate

        return run

    found = interleaved(
        ROUNDS,
        {
            f"{mode} {name}": contender(path, mode)
            for mode in ("kept", "new")
            for name, path in (("ours", ours), ("theirs", theirs))
        },
    )
    figures = []
    for mode, budget in (("kept", 6.5), ("new", 4.0)):
        mine, agents = found[f"{mode} ours"], found[f"{mode} theirs"]
        p50, p99 = (sorted(values)[len(values) // 2] for values in zip(*latency[mode], strict=True))
        what = f"signer: signatures/s, {clients} client{'s' * (clients > 1)}, {mode}, to ssh-agent"
        detail = f"{mine:.0f}/s to {agents:.0f}/s; p50 {p50:.0f} µs, p99 {p99:.0f} µs"
        figures.append(
            Figure(what, mine / agents, "×", budget, at_least=True, detail=detail, spread=spread(mine, agents))
        )
    return figures


def load(path: str, request: str, clients: int, mode: str) -> tuple[float, float, float]:
    """Signatures a second of that many clients together, and the medians of their p50 and p99 in microseconds."""
    command = [sys.executable, "-I", "-S", str(CLIENT), path, request, str(SECONDS), mode]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(clients)
    ]
    for each in running:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    results = []
    for each in running:
        out, _ = each.communicate(timeout=SECONDS + 30)
        results.append(tuple(map(float, out.split())))
    middle = len(results) // 2
    rate = sum(result[0] for result in results) / SECONDS
    return rate, sorted(result[1] for result in results)[middle], sorted(result[2] for result in results)[middle]
