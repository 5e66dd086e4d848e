"""`terok metrics`: Prometheus's text, whatever stands in a name; a file written whole; a socket for scrapers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.runtime.care import metrics
from terok_host.sidecars.vault.books.ledger import Ledger
from terok_host.supervisor import record
from terok_host.supervisor.ground import audit
from terok_host.supervisor.ground.layout import Layout
from terok_host.supervisor.ground.pids import Process, start_time
from tests.lab.waiting import until

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).parent / "terok"
SAMPLE = re.compile(
    r'^[a-z_]+(\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\})? -?[0-9.e+-]+$'
)
SECRET = "sk-ant-api03-REAL-secret"


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    """A home with one container whose supervisor is this process, an audit log and the vault's counts."""
    layout = Layout.from_environ(environ(tmp_path), uid=1000)
    bundle = layout.bundle("box")
    Path(bundle.root).mkdir(parents=True)
    Path(bundle.sidecar).write_text("{}")
    Path(bundle.meta).write_text("{}")
    own = Process(os.getpid(), start_time(os.getpid()))
    row = record.Row(own, "running", 0.0, 3, None)
    now = record.Record("box", container=own, supervisor=own, phase=record.READY, services=(("vault", row),))
    record.write(bundle.record, now)
    for _ in range(2):
        audit.append(bundle.audit, "shield", "connection", verdict="refused", name=SECRET)
    ledger = Ledger(layout.vault_usage)
    ledger.add({("work", "box", 'odd"\\\nname', 1): [5, 10, 20, 7, 8, 0]})
    ledger.close()
    return tmp_path


def environ(home: Path) -> dict[str, str]:
    run = home / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    xdg = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("DATA", "CONFIG")}
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(run), "TEROK_NO_PODMAN": "1", **xdg}


def terok(home: Path, *words: str) -> str:
    """The command as an ordinary user of this home would run it: for real root the data lies elsewhere."""
    command = [str(PROGRAM), *words]
    if os.getuid() == 0:
        empty = "mount -t tmpfs none /var/lib; mount -t tmpfs none /run; mkdir /var/lib/terok /run/terok"
        mounts = empty + '; mount --bind "$0" /var/lib/terok; exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mounts, str(home / "data" / "terok"), *command]
    return subprocess.run(
        command, env=environ(home), capture_output=True, text=True, check=True, timeout=30, stdin=subprocess.DEVNULL
    ).stdout


@given(st.text())
def test_no_value_breaks_out_of_its_label(value: str) -> None:
    text = metrics.render({"terok_x": ("gauge", "X.", [({"name": value}, 1.0)])})
    *head, sample, end = text.split("\n")
    assert len(head) == 2 and end == "" and SAMPLE.match(sample)
    text.encode()


def test_a_metric_without_samples_is_left_out() -> None:
    assert metrics.render({"terok_x": ("gauge", "X.", [])}) == ""


def test_the_lines_of_a_container(home: Path) -> None:
    text = terok(home, "metrics")
    assert all(SAMPLE.match(line) for line in text.splitlines() if not line.startswith("# "))
    for line in (
        'terok_container_state{container="box",state="running"} 1',
        'terok_container_state{container="box",state="failed"} 0',
        'terok_container_troubles{container="box"} ',
        'terok_service_running{container="box",service="vault"} 1',
        'terok_service_restarts_total{container="box",service="vault"} 3',
        'terok_audit_events{container="box",source="shield",event="connection",verdict="refused"} 2',
        'terok_vault_requests_total{scope="work",container="box",provider="odd\\"\\\\\\nname"} 5',
    ):
        assert line in text
    assert SECRET not in text


def test_a_file_is_written_whole(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "terok.prom"
    path.write_text("old")
    assert terok(home, "metrics", "--file", str(path)) == ""
    assert path.read_text().startswith("# HELP terok_info ") and path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("terok.prom")] == ["terok.prom"]


@pytest.fixture(name="served")
def _served(home: Path) -> Iterator[Path]:
    path = home / "m.sock"
    command = [str(PROGRAM), "metrics", "--socket", str(path)]
    with subprocess.Popen(command, env=environ(home), stderr=subprocess.PIPE, start_new_session=True) as running:
        until(lambda: running.poll() is not None or (path.exists() and connects(path)), 30)
        assert running.poll() is None
        yield path
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
    assert not path.exists()


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def ask(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(request)
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


def test_a_scrape_over_the_socket(served: Path) -> None:
    assert served.stat().st_mode & 0o777 == 0o600
    head, _, body = ask(served, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"text/plain; version=0.0.4" in head
    assert b"terok_info{" in body and f"Content-Length: {len(body)}".encode() in head
    assert ask(served, b"POST / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert ask(served, b"GET /x HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 ")


def test_a_client_that_says_nothing_or_too_much_holds_nobody_for_long(served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.connect(str(served))
        try:
            ask(served, b"x" * (metrics.REQUEST_MAX + 4096))
        except ConnectionError:
            pass  # it was cut off
        assert ask(served, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_the_dashboard_uses_what_there_is() -> None:
    source = (ROOT / "runtime/care/metrics.py").read_text()
    board = json.loads((ROOT / "examples/grafana-terok.json").read_text())
    named = {word for panel in board["panels"] for word in re.findall(r"terok_[a-z_]+", panel["targets"][0]["expr"])}
    fields = {f"terok_vault_{field}_total" for field in ("requests", "output_tokens")}
    assert named and all(name in source or name in fields for name in named)
