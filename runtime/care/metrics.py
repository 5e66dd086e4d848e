"""`terok metrics`: what Prometheus collects, from records, audit logs and counts. The store of secrets is not opened.

The text format is Prometheus's (exposition format 0.0.4). A label's value may come from outside (a container's name, a
provider): every one is escaped.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from ...sidecars.vault.books.ledger import FIELDS, Ledger
from ...supervisor.ground.errors import Exit, TerokError
from ...supervisor.ground.layout import SUN_PATH_MAX, Bundle
from ..host.release import version
from ..kit import audit_lines, files
from ..kit.alive import containers
from ..kit.env import Env
from ..kit.verb import argument, one_of, verb
from .status import container_status

STATES = ("prepared", "starting", "running", "ending", "stopped", "failed", "unsupervised", "suspended")
REQUEST_MAX, REQUEST_SECONDS = 64 << 10, 5.0
"""What a scraper may send, and how long it may take for it."""
TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, object]
Sample = tuple[Labels, float]


@verb(
    one_of(
        argument("--file", metavar="PATH", help="write them to this file, for node_exporter", values="files"),
        argument("--socket", metavar="PATH", help="serve them over HTTP at this Unix socket", values="files"),
    ),
    examples=("terok metrics", "terok metrics --file /var/lib/node_exporter/terok.prom"),
)
def run(args: argparse.Namespace, env: Env) -> int:
    """Print metrics of all containers in Prometheus's text format.

    States, restarts, troubles and memory of each container, what its services did and refused, and what the vault
    forwarded. They hold no secret. node_exporter's textfile collector reads what a timer writes with --file, whole or
    not at all. --socket answers `GET /metrics` until it is interrupted.
    """
    if args.socket:
        return serve(os.path.abspath(args.socket), env)
    text = render(collect(env, now=time.time()))
    if args.file:
        path = os.path.abspath(args.file)
        files.write(path, text, mode=0o644)
        env.out.emit({"file": path}, "")
    else:
        env.out.emit({"metrics": text}, text)
    return Exit.OK


def collect(env: Env, *, now: float) -> dict[str, tuple[str, str, list[Sample]]]:
    """Every metric: its name, its kind (`gauge` or `counter`), its help and its samples."""
    state: list[Sample] = []
    restarts: list[Sample] = []
    running: list[Sample] = []
    troubles: list[Sample] = []
    memory: list[Sample] = []
    events: list[Sample] = []
    for name in containers(env.layout):
        bundle = env.layout.bundle(name)
        row = container_status(bundle, now=now)
        who = {"container": name}
        state += [({**who, "state": word}, float(row["state"] == word)) for word in STATES]
        troubles.append((who, float(len(row["troubles"]))))
        memory.append((who, float(row["memory"])))
        for sidecar in row["sidecars"]:
            service = {**who, "service": sidecar["name"]}
            restarts.append((service, float(sidecar["restarts"])))
            running.append((service, float(sidecar["state"] == "running")))
        events += [({**who, **dict(labels)}, float(count)) for labels, count in audited(bundle).items()]
    metrics: dict[str, tuple[str, str, list[Sample]]] = {
        "terok_info": ("gauge", "The version of terok.", [({"version": version()}, 1.0)]),
        "terok_container_state": ("gauge", "1 for the state that a container is in.", state),
        "terok_container_troubles": ("gauge", "What is wrong with a container now; terok status says it.", troubles),
        "terok_container_memory_bytes": ("gauge", "Proportional memory of a container's services.", memory),
        "terok_service_running": ("gauge", "Whether a service's process runs; most start on demand.", running),
        "terok_service_restarts_total": ("counter", "How often a service was started again.", restarts),
        "terok_audit_events": ("gauge", "Events in a container's audit log, which keeps the last megabytes.", events),
    }
    return {**metrics, **used(env)}


def audited(bundle: Bundle) -> Counter[tuple[tuple[str, str], ...]]:
    """How many lines a container's audit log has, by source, event and verdict."""
    counts: Counter[tuple[tuple[str, str], ...]] = Counter()
    for line in audit_lines.read(bundle.audit):
        repeats = line.get("count")
        key = tuple((name, str(line.get(name, ""))[:40]) for name in ("source", "event", "verdict"))
        counts[key] += repeats if isinstance(repeats, int) and repeats > 0 else 1
    return counts


def used(env: Env) -> dict[str, tuple[str, str, list[Sample]]]:
    """What the vault forwarded, from its counts; nothing without a vault."""
    if not os.path.exists(env.layout.vault_usage):
        return {}
    try:
        with Ledger(env.layout.vault_usage, read_only=True) as ledger:
            rows = ledger.rows()
    except sqlite3.Error as error:
        raise TerokError(f"The counts in {env.layout.vault_usage} could not be read: {error}.") from error
    metrics: dict[str, tuple[str, str, list[Sample]]] = {}
    for field in FIELDS:
        samples: list[Sample] = [
            ({"scope": row.scope, "container": row.container, "provider": row.provider}, float(getattr(row, field)))
            for row in rows
        ]
        name = field.replace("bytes_in", "received_bytes").replace("bytes_out", "sent_bytes")
        metrics[f"terok_vault_{name}_total"] = "counter", f"The vault's {field.replace('_', ' ')}.", samples
    return metrics


def render(metrics: Mapping[str, tuple[str, str, Iterable[Sample]]]) -> str:
    """The text of metrics; one without samples is left out."""
    lines: list[str] = []
    for name, (kind, about, samples) in metrics.items():
        rows = [f"{name}{labelled(labels)} {_number(value)}" for labels, value in samples]
        if rows:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *rows]
    return "\n".join([*lines, ""])


def labelled(labels: Labels) -> str:
    """Labels in braces, their values escaped; nothing for none."""
    pairs = [f'{name}="{escape(str(value))}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def escape(value: str) -> str:
    """A label's value: backslash, double quote and line feed escaped, other control characters and surrogates as ?."""
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join("?" if ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 or ord(char) == 127 else char for char in text)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


# --- the socket ----------------------------------------------------------------------------------------------


def serve(path: str, env: Env) -> int:
    """Answer scrapers one after the other until SIGINT or SIGTERM."""
    if len(os.fsencode(path)) > SUN_PATH_MAX:
        raise TerokError(f"{path} is too long for a socket.", fix="use a shorter path", code=Exit.USAGE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        umask = os.umask(0o177)
        try:
            server.bind(path)
        except OSError as error:
            raise TerokError(
                f"Could not listen at {path}: {error.strerror}.", fix="give another path, or remove a stale socket"
            ) from error
        finally:
            os.umask(umask)
        try:
            server.listen(8)
            while True:
                client, _ = server.accept()
                with client:
                    answer(client, env)
        except KeyboardInterrupt:
            return Exit.OK
        finally:
            os.unlink(path)


def answer(client: socket.socket, env: Env) -> None:
    """One request and its answer; a client that is slow, talks too much or leaves loses its connection."""
    end = time.monotonic() + REQUEST_SECONDS
    head = b""
    try:
        while b"\r\n\r\n" not in head:
            client.settimeout(max(0.01, end - time.monotonic()))
            data = client.recv(4096)
            head += data
            if not data or len(head) > REQUEST_MAX or time.monotonic() > end:
                return
        status, body = respond(head.split(b"\r\n", 1)[0], env)
        client.settimeout(REQUEST_SECONDS)
        fields = f"Content-Type: {TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close"
        client.sendall(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
    except OSError as error:
        print(f"terok metrics: a client left: {error.strerror or error}", file=sys.stderr)


def respond(line: bytes, env: Env) -> tuple[str, bytes]:
    """Status and body for a request line."""
    words = line.split(b" ")
    if len(words) != 3 or words[0] != b"GET":
        return "405 Method Not Allowed", b"GET /metrics\n"
    if words[1].split(b"?", 1)[0] not in (b"/metrics", b"/"):
        return "404 Not Found", b"GET /metrics\n"
    return "200 OK", render(collect(env, now=time.time())).encode()
