"""The gate against git-daemon on the same mirror: clone and push of a large repository, a small push, memory."""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.kit import Figure, family, interleaved, memory, timed
from terok_host.sidecars.gate import mirror
from terok_host.sidecars.gate.forge import sync
from tests.lab.house import House
from tests.standins.gate import GIT_ENV, Rig, commit, git

COMMITS, FILES = 1500, 16
FILE_SIZE = 4096
ROUNDS = 3
SMALL_ROUNDS = 9


def large_repository(path: Path) -> Path:
    """A bare repository of about 75 MB in 24,000 blobs and 1,500 commits, made by git fast-import."""
    git("init", "-q", "--bare", "-b", "main", path, cwd=path.parent)
    generator = random.Random(7)
    with subprocess.Popen(
        ["git", "fast-import", "--quiet"], cwd=path, env=GIT_ENV | {"HOME": "/"}, stdin=subprocess.PIPE
    ) as importer:
        assert importer.stdin is not None
        for number in range(COMMITS):
            lines = f"commit refs/heads/main\ncommitter a <a@x> {1700000000 + number} +0000\ndata 1\nx\n"
            importer.stdin.write(lines.encode())
            for file in range(FILES):
                content = base64.b64encode(generator.randbytes(FILE_SIZE * 3 // 4))
                name = f"d{generator.randrange(50)}/f{generator.randrange(40)}-{file}"
                importer.stdin.write(f"M 100644 inline {name}\ndata {len(content)}\n".encode() + content + b"\n")
    return path


@contextmanager
def daemon(root: Path) -> Iterator[str]:
    """git-daemon for everything below `root`, pushes allowed; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    running = subprocess.Popen(
        ["git", "daemon", "--export-all", "--enable=receive-pack", f"--base-path={root}", "--listen=127.0.0.1",
         f"--port={port}", "--reuseaddr", "--verbose"],
        env=GIT_ENV | {"HOME": "/"}, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert running.stderr is not None
    try:
        while b"Ready" not in running.stderr.readline():
            pass
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.communicate(timeout=10)


def clone_time(url: str, target: Path) -> float:
    """Seconds of a bare clone."""
    shutil.rmtree(target, ignore_errors=True)
    return timed(lambda: git("clone", "-q", "--bare", url, target, cwd=target.parent))


def push_time(work: Path, url: str, repo: Path, ref: str) -> float:
    """Seconds of pushing everything to a branch of an empty repository; empties it again."""
    taken = timed(lambda: git("push", "-q", url, f"HEAD:{ref}", cwd=work))
    git("update-ref", "-d", ref, cwd=repo)
    for pack in (repo / "objects" / "pack").iterdir():
        pack.unlink()
    return taken


def small_push(work: Path, url: str, ref: str) -> float:
    """Seconds of pushing one more commit."""
    commit(work, "small", os.urandom(1000))
    return timed(lambda: git("push", "-q", url, f"HEAD:{ref}", cwd=work))


def measure(house: House) -> list[Figure]:
    """Every figure of the gate."""
    base = house.base / "gate"
    base.mkdir()
    try:
        return [*large(base), *small(base)]
    finally:
        shutil.rmtree(base)


def large(base: Path) -> list[Figure]:
    """A large repository both ways."""
    source = large_repository(base / "source.git")
    size = sum(file.stat().st_size for file in source.rglob("*.pack")) >> 20
    rig = Rig(base)
    settings = rig.configure(source)
    sync.synchronise(rig.site, settings)
    mirror.tidy(rig.home)
    empty = Rig(base, scope="empty", container="pusher")
    empty.configure(source)
    git("init", "-q", "--bare", base / "plain.git", cwd=base)
    rig.start()
    empty.start()
    try:
        with daemon(base) as url:
            clones = interleaved(ROUNDS, {
                "gate": lambda: clone_time(rig.url(), base / "one"),
                "daemon": lambda: clone_time(f"{url}/data/gate/proj/repo.git", base / "two"),
            })  # fmt: skip
            ref = "refs/heads/pusher/x"
            pushes = interleaved(ROUNDS, {
                "gate": lambda: push_gate(source, empty, ref),
                "daemon": lambda: push_time(source, f"{url}/plain.git", base / "plain.git", ref),
            })  # fmt: skip
    finally:
        rig.stop()
        empty.stop()
    return [
        ratio(f"clone of {size} MB to git-daemon", clones),
        ratio(f"push of {size} MB to git-daemon", pushes),
    ]


def push_gate(source: Path, rig: Rig, ref: str) -> float:
    """`push_time` for the gate, with its proposal forgotten again."""
    taken = push_time(source, rig.url(), Path(rig.home.repo), ref)
    Path(rig.home.state).unlink()
    git("update-ref", "-d", "refs/terok/proposals/1", cwd=Path(rig.home.repo))
    return taken


def ratio(what: str, medians: Mapping[str, float]) -> Figure:
    """The gate's time to git-daemon's."""
    detail = f"{medians['gate']:.2f} s to {medians['daemon']:.2f} s, {ROUNDS} rounds"
    return Figure(what, medians["gate"] / medians["daemon"], "×", None, detail=detail)


def small(base: Path) -> list[Figure]:
    """A push of 1 KB, the first answer of a gate that was not running, and memory."""
    rig = Rig(base, scope="small", container="quick")
    settings = rig.configure(base / "source.git")
    sync.synchronise(rig.site, settings)
    git("clone", "-q", "--bare", rig.home.repo, base / "small.git", cwd=base)
    rig.start()
    work = base / "work"
    git("clone", "-q", "--depth", "1", f"file://{base}/source.git", work, cwd=base)
    cold: list[float] = []
    try:
        with daemon(base) as url:
            ref = "refs/heads/quick/x"
            pushes = interleaved(SMALL_ROUNDS, {
                "gate": lambda: small_push(work, rig.url(), ref),
                "daemon": lambda: small_push(work, f"{url}/small.git", ref),
            })  # fmt: skip
        assert rig.process is not None
        resident = memory("gate in use, no connection open", *family(rig.process.pid))
        for _ in range(SMALL_ROUNDS):
            rig.process.terminate()
            rig.process.wait(10)
            cold.append(timed(lambda: first_answer(rig)))
    finally:
        rig.stop()
    detail = f"{pushes['gate'] * 1000:.0f} ms to {pushes['daemon'] * 1000:.0f} ms, {SMALL_ROUNDS} rounds"
    return [
        Figure("push of 1 KB to git-daemon", pushes["gate"] / pushes["daemon"], "×", None, detail=detail),
        Figure("gate's first answer, cold", sorted(cold)[len(cold) // 2] * 1000, "ms", 250),
        resident,
    ]


def first_answer(rig: Rig) -> None:
    """Start the gate's process, as the supervisor does on the first connection, and get one answer."""
    rig.run_process()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(rig.unix_path)
        target = f"/{rig.scope}.git/info/refs?service=git-upload-pack"
        request = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\nConnection: close\r\n\r\n"
        client.sendall(request.encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 ")
