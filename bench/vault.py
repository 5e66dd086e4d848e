"""The vault against nginx and an aiohttp proxy: the same TLS upstream, the same client, in turns.

The upstream is nginx (and, for the event stream, the tests' stand-in). All three proxies verify its certificate and
keep connections to it. The vault also checks tokens, routes and answers, counts and audits: that is in its figures.
"""

from __future__ import annotations

import http.client
import re
import shutil
import socket
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

from bench.kit import Figure, family, interleaved, memory, pss, spread
from tests.lab.house import House
from tests.lab.waiting import until
from tests.standins.upstream import Upstream
from tests.standins.vault import Vault, provider

ROUNDS = 3
SECONDS = 2
BODY = '{"id":"msg_1","type":"message","content":[{"type":"text","text":"' + "x" * 400 + '"}]}'
PROXIES = Path(__file__).parent / "proxies"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_port(port: int) -> None:
    """Wait until something listens."""

    def listening() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    until(listening, 10)


@contextmanager
def nginx(root: Path, name: str, server: str) -> Iterator[int]:
    """One nginx with one worker; yields its master's pid."""
    home = root / name
    home.mkdir()
    conf = home / "nginx.conf"
    conf.write_text(
        f"worker_processes 1; daemon off; pid {home}/pid; error_log {home}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; client_body_temp_path {home}/a; proxy_temp_path {home}/b;\n"
        f"fastcgi_temp_path {home}/c; uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;\n"
        f"keepalive_requests 100000000;\n{server}\n}}\n"
    )
    process = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(conf), "-p", str(home)])
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def wrk(url: str, connections: int, token: str, *headers: str) -> dict[str, float]:
    """Requests a second and latencies in milliseconds."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency"]
    argv += [word for header in (f"Authorization: Bearer {token}", *headers) for word in ("-H", header)] + [url]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(out)
    found = {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])}  # type: ignore[index]  # wrk prints it always
    for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", out):
        found["p" + share] = float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
    return found


def stream_gaps(port: int, token: str, context: ssl.SSLContext | None, host: str = "") -> tuple[float, float]:
    """Milliseconds: from the request to the first event, and the median delay of an event behind its sending.

    `host`: another Host than the port's.
    """
    made = (
        http.client.HTTPSConnection("localhost", port, context=context)
        if context
        else http.client.HTTPConnection("127.0.0.1", port)
    )
    made.connect()
    began = time.monotonic()
    named = {"Host": host} if host else {}
    made.request("GET", "/paced/40/10", headers={"Authorization": f"Bearer {token}", **named})
    answer = made.getresponse()
    delays: list[float] = []
    first = 0.0
    while line := answer.readline():
        if line.startswith(b"data: "):
            now = time.monotonic()
            first = first or now - began
            delays.append(now - float(line[6:]))
    made.close()
    return first * 1000, statistics.median(delays) * 1000


def measure(house: House | None) -> list[Figure]:
    """Every figure of the vault."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tb", dir="/tmp")))
        ca = trustme.CA()
        certificate = ca.issue_cert("localhost")
        ca_file, cert_file, key_file = root / "ca.pem", root / "cert.pem", root / "key.pem"
        ca.cert_pem.write_to_path(str(ca_file))
        certificate.private_key_pem.write_to_path(str(key_file))
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(cert_file), append=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        slow = stack.enter_context(Upstream(context))
        upstream, front, aio, slow_front, slow_aio = (free_port() for _ in range(5))
        tls = f"ssl_certificate {cert_file}; ssl_certificate_key {key_file};"
        answer = f"location / {{ default_type application/json; return 200 '{BODY}'; }}"
        stack.enter_context(nginx(root, "up", f"server {{ listen 127.0.0.1:{upstream} ssl; {tls} {answer} }}"))
        pools = "".join(
            f"upstream u{port} {{ server 127.0.0.1:{port}; keepalive 64; keepalive_requests 100000000; }}\n"
            for port in (upstream, slow.port)
        )
        servers = "".join(
            f"server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass https://u{port}; proxy_http_version 1.1;"
            f' proxy_set_header Connection ""; proxy_set_header Authorization "Bearer real"; proxy_buffering off;'
            f" proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_verify on;"
            f" proxy_ssl_trusted_certificate {ca_file}; }} }}\n"
            for listen, port in ((front, upstream), (slow_front, slow.port))
        )
        nginx_pid = stack.enter_context(nginx(root, "front", pools + servers))
        aio_pid = 0
        for listen, port in ((aio, upstream), (slow_aio, slow.port)):
            argv = [
                sys.executable,
                str(PROXIES / "aiohttp_proxy.py"),
                str(listen),
                f"https://localhost:{port}",
                str(ca_file),
            ]
            process = subprocess.Popen(argv)
            aio_pid = aio_pid or process.pid
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
        providers = {
            "fast": provider(f"https://localhost:{upstream}", ca_bundle=str(ca_file), usage="anthropic"),
            "slow": provider(f"https://localhost:{slow.port}", ca_bundle=str(ca_file), usage="anthropic"),
        }
        vault = Vault(root / "v", providers)
        fast_token, slow_token = vault.add("fast"), vault.add("slow")
        for port in (upstream, front, aio, slow_front, slow_aio):
            wait_port(port)
        began = time.monotonic()
        stack.enter_context(vault)
        vault.get("/", fast_token)
        cold = (time.monotonic() - began) * 1000
        return [
            Figure("first vault answer, cold", cold, "ms", 60),
            *_rates(upstream, front, aio, vault, fast_token),
            *_streams(slow, slow_front, slow_aio, vault, slow_token, ca_file),
            memory(
                "vault in use, memory",
                vault.pid,
                detail=f"PSS of nginx {sum(map(pss, family(nginx_pid))):.1f} MB, of aiohttp {pss(aio_pid):.1f} MB",
            ),
        ]


def _rates(upstream: int, front: int, aio: int, vault: Vault, token: str) -> list[Figure]:
    urls = {
        "direct": f"https://localhost:{upstream}/",
        "nginx": f"http://127.0.0.1:{front}/",
        "aiohttp": f"http://127.0.0.1:{aio}/",
        "vault": f"http://127.0.0.1:{vault.port}/",
    }
    figures = []
    for connections in (1, 32):
        results: dict[str, list[dict[str, float]]] = {name: [] for name in urls}

        def run(name: str, n: int = connections, into: dict[str, list[dict[str, float]]] = results) -> float:
            into[name].append(wrk(urls[name], n, token))
            return into[name][-1]["rate"]

        rate = interleaved(ROUNDS, {name: (lambda name=name: run(name)) for name in urls})  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        detail = ", ".join(f"{name} {rate[name]:.0f}/s" for name in ("vault", "nginx", "aiohttp", "direct"))
        more = connections == 32
        figures += [
            Figure(
                f"requests a second, {connections} conn., to nginx",
                rate["vault"] / rate["nginx"],
                "×",
                0.6 if more else None,
                True,
                detail,
                spread(rate["vault"], rate["nginx"]),
                tuple((name, 0.0, rate[name]) for name in ("vault", "nginx", "aiohttp")) if more else (),
            ),
            Figure(
                f"requests a second, {connections} conn., to aiohttp",
                rate["vault"] / rate["aiohttp"],
                "×",
                3.5 if more else None,
                True,
                spread=spread(rate["vault"], rate["aiohttp"]),
            ),
        ]
        if connections == 1:
            for share, budget in (("p50", 0.15), ("p99", None)):
                value = {name: statistics.median(each[share] for each in found[1:]) for name, found in results.items()}
                detail = ", ".join(f"{name} {value[name]:.3f} ms" for name in urls)
                figures.append(
                    Figure(
                        f"added {share}, 1 connection", value["vault"] - value["direct"], "ms", budget, detail=detail
                    )
                )
    return figures


def _streams(slow: Upstream, front: int, aio: int, vault: Vault, token: str, ca_file: Path) -> list[Figure]:
    context = ssl.create_default_context(cafile=str(ca_file))
    seen: dict[str, list[tuple[float, float]]] = {}

    def run(name: str, port: int, tls: ssl.SSLContext | None) -> float:
        seen.setdefault(name, []).append(stream_gaps(port, token, tls))
        return seen[name][-1][1]

    delay = interleaved(
        ROUNDS,
        {
            "direct": lambda: run("direct", slow.port, context),
            "nginx": lambda: run("nginx", front, None),
            "aiohttp": lambda: run("aiohttp", aio, None),
            "vault": lambda: run("vault", vault.port, None),
        },
    )
    first = {name: statistics.median(each[0] for each in found[1:]) for name, found in seen.items()}
    return [
        Figure(
            "time to first event",
            first["vault"],
            "ms",
            None,
            detail=", ".join(f"{n} {v:.2f}" for n, v in first.items()),
        ),
        Figure(
            "delay of an event", delay["vault"], "ms", None, detail=", ".join(f"{n} {v:.3f}" for n, v in delay.items())
        ),
    ]
