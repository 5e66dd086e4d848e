"""The vault at a brokered host against nginx and mitmproxy, each as a TLS-to-TLS proxy to the same upstream.

The client verifies nothing and keeps its connections, or makes a new one for each request; the upstream is nginx (for
the event stream, the tests' stand-in). All verify its certificate and keep connections to it. The vault gets its
connections handed over, as from the airlock's relay, and checks tokens, routes and answers, counts and audits.

mitmproxy is measured where `mitmdump` is on PATH: `make bench` installs it.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trustme

from bench.kit import Figure, family, held, interleaved, memory, spread
from bench.vault import BODY, PROXIES, ROUNDS, free_port, nginx, stream_gaps, wait_port, wrk
from tests.lab.house import House
from tests.standins.tls import Broker
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, provider

IDLE = 200
COLD = 7


class Subjects:
    """Who is measured, all running.

    Attributes:
        direct: the upstream's port.
        ports: by name, those of the proxies to it.
        slow: by name, those to the upstream of the event stream.
        pids: by name, the process that serves.
        token, slow_token: phantom tokens.
    """

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self._stack = root, stack
        self.ports: dict[str, int] = {}
        self.slow: dict[str, int] = {}
        self.pids: dict[str, int] = {}
        ca = trustme.CA()
        certificate = ca.issue_cert("localhost")
        self.ca_file, self._cert, self._key = root / "ca.pem", root / "cert.pem", root / "key.pem"
        ca.cert_pem.write_to_path(str(self.ca_file))
        certificate.private_key_pem.write_to_path(str(self._key))
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(self._cert), append=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.streams = stack.enter_context(Upstream(context))
        self.direct = free_port()
        tls = f"ssl_certificate {self._cert}; ssl_certificate_key {self._key};"
        answer = f"location / {{ default_type application/json; return 200 '{BODY}'; }}"
        stack.enter_context(nginx(root, "up", f"server {{ listen 127.0.0.1:{self.direct} ssl; {tls} {answer} }}"))
        self._nginx(tls)
        self._mitmproxy()
        self._vault()
        for port in (self.direct, *self.ports.values(), *self.slow.values()):
            wait_port(port)

    def _nginx(self, tls: str) -> None:
        self.ports["nginx"], self.slow["nginx"] = free_port(), free_port()
        config = ""
        for listen, port in ((self.ports["nginx"], self.direct), (self.slow["nginx"], self.streams.port)):
            config += (
                f"upstream u{port} {{ server 127.0.0.1:{port}; keepalive 64; keepalive_requests 100000000; }}\n"
                f"server {{ listen 127.0.0.1:{listen} ssl backlog=1024; {tls} location / {{ proxy_pass https://u{port};"
                ' proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;'
                ' proxy_set_header Authorization "Bearer real"; proxy_ssl_name localhost; proxy_ssl_server_name on;'
                f" proxy_ssl_verify on; proxy_ssl_trusted_certificate {self.ca_file}; }} }}\n"
            )
        self.pids["nginx"] = self._stack.enter_context(nginx(self.root, "front", config))

    def _mitmproxy(self) -> None:
        program = shutil.which("mitmdump")
        if program is None:
            return
        self.ports["mitmproxy"] = free_port()
        argv = [program, "-q", "--mode", f"reverse:https://localhost:{self.direct}/", "--listen-host", "127.0.0.1"]
        argv += ["-p", str(self.ports["mitmproxy"]), "--set", f"confdir={self.root}/mitm", "--set", "http2=false"]
        argv += ["--set", f"ssl_verify_upstream_trusted_ca={self.ca_file}"]
        argv += ["--modify-headers", "/~q/Authorization/Bearer real"]
        self.pids["mitmproxy"] = self._start(argv)

    def _vault(self) -> None:
        place = f"localhost:{self.direct}"
        slow = f"localhost:{self.streams.port}"
        providers = {
            "fast": provider(f"https://{place}", ca_bundle=str(self.ca_file), usage="anthropic"),
            "slow": provider(f"https://{slow}", ca_bundle=str(self.ca_file), usage="anthropic"),
        }
        self.vault = Vault(self.root / "v", providers)
        self.token, self.slow_token = self.vault.add("fast"), self.vault.add("slow")
        self.place = place
        self.broker = Broker(self.vault, [place, slow])
        self._stack.enter_context(self.vault)
        self.vault.up()
        for ports, target in ((self.ports, place), (self.slow, slow)):
            ports["vault"] = free_port()
            script = str(PROXIES / "handing.py")
            self._start([sys.executable, script, str(ports["vault"]), self.broker.path, target])

    def _start(self, argv: list[str]) -> int:
        ours = {"PYTHONPATH": ":".join(path for path in sys.path if path)} if argv[0] == sys.executable else {}
        process = subprocess.Popen(argv, env={**os.environ, **ours})
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.terminate)
        return process.pid

    def ask(self, name: str, connections: int, *headers: str) -> dict[str, float]:
        """What wrk measures of one of them, or of `direct`."""
        port = self.direct if name == "direct" else self.ports[name]
        return wrk(f"https://localhost:{port}/", connections, self.token, f"Host: {self.place}", *headers)


def measure(house: House | None) -> list[Figure]:
    """Every figure of TLS at brokered hosts."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tb", dir="/tmp")))
        subjects = Subjects(root, stack)
        return [*_memory(subjects), *_rates(subjects), *_handshakes(subjects), _events(subjects), _cold(subjects)]


def _rates(subjects: Subjects) -> list[Figure]:
    names = [*subjects.ports, "direct"]
    figures: list[Figure] = []
    for connections in (32, 1):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}

        def run(name: str, n: int = connections, into: dict[str, list[dict[str, float]]] = found) -> float:
            into[name].append(subjects.ask(name, n))
            return into[name][-1]["rate"]

        rate = interleaved(ROUNDS, {name: (lambda name=name: run(name)) for name in names})  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        if connections == 1:
            p50 = {name: statistics.median(each["p50"] for each in results[1:]) for name, results in found.items()}
            detail = ", ".join(f"{name} {p50[name]:.3f} ms" for name in names)
            figures.append(
                Figure("TLS: added p50, kept connection", p50["vault"] - p50["direct"], "ms", 0.25, detail=detail)
            )
            continue
        detail = ", ".join(f"{name} {rate[name]:.0f}/s" for name in names)
        for name, budget in (("nginx", 0.4), ("mitmproxy", 5.0)):
            if name in rate:
                what = f"TLS: requests a second, 32 kept conn., to {name}"
                ratio = rate["vault"] / rate[name]
                figures.append(Figure(what, ratio, "×", budget, True, detail, spread(rate["vault"], rate[name])))
    return figures


def _handshakes(subjects: Subjects) -> list[Figure]:
    names = list(subjects.ports)
    rate = interleaved(
        ROUNDS,
        {name: (lambda name=name: subjects.ask(name, 16, "Connection: close")["rate"]) for name in names},  # type: ignore[misc]  # as above
    )
    detail = ", ".join(f"{name} {rate[name]:.0f}/s" for name in names)
    return [
        Figure(f"TLS: a connection a request, to {name}", rate["vault"] / rate[name], "×", None, True, detail)
        for name in names
        if name != "vault"
    ]


def _events(subjects: Subjects) -> Figure:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host = f"localhost:{subjects.streams.port}"
    delays = {
        name: [stream_gaps(port, subjects.slow_token, context, host)[1] for _ in range(3)]
        for name, port in {**subjects.slow, "direct": subjects.streams.port}.items()
    }
    middle = {name: statistics.median(values) for name, values in delays.items()}
    detail = ", ".join(f"{name} {value:.2f} ms" for name, value in middle.items())
    return Figure("TLS: event delay, p50", middle["vault"] - middle["direct"], "ms", None, detail=detail)


def _memory(subjects: Subjects) -> Iterator[Figure]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    each: dict[str, float] = {}
    for name, port in subjects.ports.items():
        pids = [subjects.vault.pid] if name == "vault" else family(subjects.pids[name])
        with _idle(port, context, IDLE // 10):
            before = sum(map(held, pids))
            with _idle(port, context, IDLE):
                each[name] = (sum(map(held, pids)) - before) * 1024 / IDLE
    detail = ", ".join(f"{name} {value:.1f} KB" for name, value in each.items())
    yield Figure("TLS: memory of an idle connection", each["vault"], "KB", None, detail=detail)
    yield memory("TLS: vault in use, memory", subjects.vault.pid)


@contextmanager
def _idle(port: int, context: ssl.SSLContext, count: int) -> Iterator[None]:
    import socket

    with ExitStack() as stack:
        for _ in range(count):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stack.enter_context(context.wrap_socket(raw, server_hostname="localhost"))
        yield


def _cold(subjects: Subjects) -> Figure:
    """From a connection that finds no vault running to its answer."""
    times: list[float] = []
    for _ in range(COLD):
        subjects.vault.stop(signal.SIGTERM)
        began = time.monotonic()
        subjects.broker.get(subjects.place, "/", Authorization=f"Bearer {subjects.token}")
        times.append((time.monotonic() - began) * 1000)
    return Figure("TLS: first answer, vault not running, p50", statistics.median(times), "ms", 150)
