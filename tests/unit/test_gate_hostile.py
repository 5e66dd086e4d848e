"""Tests of the gate against a container that means harm: it gets nothing, keeps nothing, and stops nobody else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.gate import objects, refs
from terok_host.sidecars.gate.config import Limits
from terok_host.sidecars.gate.forge.landing import Landing
from terok_host.sidecars.gate.serving import front
from terok_host.sidecars.gate.site import remove_tree
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground import process
from terok_host.supervisor.ground.errors import TerokError
from tests.lab.waiting import until
from tests.standins.gate import Rig, commit, git


def raw(rig: Rig, data: bytes, *, token: str | None = None) -> bytes:
    """Send bytes, `TOKEN` in them replaced, and return the whole answer."""
    with socket.create_connection(("127.0.0.1", rig.port), 20) as client:
        client.sendall(data.replace(b"TOKEN", (token or rig.token).encode()))
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer


def get(rig: Rig, target: str, **options: Any) -> bytes:
    return raw(rig, f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n\r\n".encode(), **options)


# -- who --


@pytest.mark.parametrize("token", ["x", "terok-0123456789abcdef0123456789abcdef01234567-other", "terok-", "ü"])
def test_without_its_token_nothing_is_told(rig: Rig, token: str) -> None:
    other = Rig(rig.base, container="other")
    assert other.token.endswith("-other")
    for target in ("/proj.git/info/refs?service=git-upload-pack", "/proj.git/info/lfs/x", "/", "/other.git/x"):
        answer = get(rig, target, token=token.encode().decode("latin-1"))
        assert answer.startswith(b"HTTP/1.1 401 ") and b"WWW-Authenticate: Basic" in answer
    lines = [line for line in rig.audit() if line["event"] == "token"]
    assert lines and all(token not in str(line) for line in lines)


def test_a_revoked_token_is_worth_nothing_at_once(rig: Rig) -> None:
    target = "/proj.git/info/refs?service=git-upload-pack"
    with socket.create_connection(("127.0.0.1", rig.port), 20) as kept:
        request = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n\r\n".encode()
        kept.sendall(request)
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += kept.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        with Store.open(rig.layout.vault_db) as store:
            assert store.revoke("agent") == 1
        kept.sendall(request)
        assert kept.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert get(rig, target).startswith(b"HTTP/1.1 401 ")


# -- what --


@pytest.mark.parametrize(
    "target",
    [
        "/proj.git/HEAD",
        "/proj.git/config",
        "/proj.git/objects/info/packs",
        "/proj.git/../gate.json",
        "/proj.git/%2e%2e/gate.json",
        "/proj.git//info/refs?service=git-upload-pack",
        "/proj.git/./info/refs?service=git-upload-pack",
        "/proj.git/info/refs/?service=git-upload-pack",
        "/PROJ.git/info/refs?service=git-upload-pack",
        "/other.git/info/refs?service=git-upload-pack",
        "/proj.git/info/refs",
        "/proj.git/info/refs?service=git-upload-archive",
        "/proj.git/info/refs?service=git-upload-pack&x=y",
        "/proj.git/info/refs?x=y&service=git-upload-pack",
        "/proj.git/info/refs?service=git-upload-pack;id",
        "/proj.git/git-upload-pack",
        "/",
    ],
)
def test_path_tricks(rig: Rig, target: str) -> None:
    assert get(rig, target)[:13] in (b"HTTP/1.1 403 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /proj.git/HEAD HTTP/1.1\nHost: x\n\n\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0000",
        b"GET http://127.0.0.1/proj.git/HEAD HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused(rig: Rig, data: bytes) -> None:
    answer = raw(rig, data)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"Connection: close" in answer


def test_an_endless_head_is_refused(rig: Rig) -> None:
    assert raw(rig, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4000).startswith(b"HTTP/1.1 431 ")


def test_a_second_request_in_a_body_is_not_read(rig: Rig) -> None:
    head = b"POST /proj.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n"
    head += b"Content-Type: application/x-git-receive-pack-request\r\nContent-Length: 4\r\n\r\n"
    answer = raw(rig, head + b"0000GET /proj.git/HEAD HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.startswith(b"HTTP/1.1 400 ")


# -- how much --


def test_slow_clients_go_and_others_are_served(rig: Rig) -> None:
    rig.configure_again(limits=Limits(connections=4, head_seconds=1, idle_seconds=1))
    rig.stop()
    rig.start()
    silent = [socket.create_connection(("127.0.0.1", rig.port), 20) for _ in range(3)]
    slow = socket.create_connection(("127.0.0.1", rig.port), 20)
    slow.sendall(b"POST /proj.git/git-upload-pack HTTP/1.1\r\n")
    with socket.create_connection(("127.0.0.1", rig.port), 20) as late:
        late.sendall(f"GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n\r\n".encode())
        assert late.recv(100).startswith(b"HTTP/1.1 404 ")  # it waited until one of the others was given up
    for each in (*silent, slow):
        assert each.recv(100) == b""
        each.close()


def test_a_body_that_stops_ends_git_too(rig: Rig) -> None:
    rig.configure_again(limits=Limits(idle_seconds=1))
    with half_a_push(rig) as client:
        assert len(children(rig)) > 2
        assert client.recv(100) == b""
    until(lambda: len(children(rig)) == 1, 20)
    assert os.listdir(rig.site.incoming) == []


def test_a_client_that_takes_no_answer_ends_git_too(rig: Rig) -> None:
    """More than sockets and pipes hold: git blocks, and everything goes when nothing moved for the time allowed."""
    repo = Path(rig.home.repo)
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"],
        cwd=repo,
        input=os.urandom(24 << 20),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    tree = subprocess.run(
        ["git", "mktree"],
        cwd=repo,
        input=f"100644 blob {blob.strip()}\tlarge\n".encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    tip = git("commit-tree", "-m", "large", tree.strip(), cwd=repo).stdout.strip()
    git("update-ref", "refs/heads/large", tip, cwd=repo)
    rig.configure_again(limits=Limits(idle_seconds=1))
    want = f"want {tip}\n"
    body = f"{len(want) + 4:04x}{want}00000009done\n".encode()
    head = f"POST /proj.git/git-upload-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n"
    head += f"Content-Type: application/x-git-upload-pack-request\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", rig.port), 20) as client:
        client.sendall(head.encode() + body)
        assert client.recv(12) == b"HTTP/1.1 200"
        assert len(children(rig)) > 2
        until(lambda: len(children(rig)) == 1, 20)


def half_a_push(rig: Rig) -> socket.socket:
    """A push whose pack never comes to its end; git waits for it."""
    tip = rig.refs()["refs/heads/main"]
    line = f"{'0' * 40} {tip} refs/heads/agent/x\0 report-status"
    body = f"{len(line) + 4:04x}{line}0000".encode() + b"PACK\0\0\0\2\0\0\3\xe8"
    head = f"POST /proj.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n"
    head += "Content-Type: application/x-git-receive-pack-request\r\nContent-Length: 100000\r\n\r\n"
    client = socket.create_connection(("127.0.0.1", rig.port), 20)
    client.sendall(head.encode() + body)
    until(lambda: any("index-pack" in words for words in children(rig).values()), 20)
    return client


def children(rig: Rig) -> dict[int, str]:
    """Every process below the gate's, with its command line."""
    assert rig.process is not None
    found: dict[int, str] = {}
    parents = {rig.process.pid}
    rows = {pid: row for pid in filter(str.isdigit, os.listdir("/proc")) if (row := describe(int(pid)))}
    for _ in range(6):
        for pid, (parent, words) in rows.items():
            if parent in parents:
                found[int(pid)] = words
                parents.add(int(pid))
    return found


def describe(pid: int) -> tuple[int, str] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = stat.rpartition(")")[2].split()[:2]
    return None if state == "Z" else (int(parent), words)


def test_when_the_gate_is_killed_every_git_goes_with_it(rig: Rig) -> None:
    with half_a_push(rig):
        below = children(rig)
        assert len(below) >= 4
        fds = [os.pidfd_open(pid) for pid in below]
        assert rig.process is not None
        rig.process.send_signal(signal.SIGKILL)
        rig.process.wait(10)
        for fd in fds:
            assert process.wait_gone(fd, 5)
            os.close(fd)
    rig.run_process()


def test_when_the_gate_is_stopped_half_a_push_leaves_no_file(rig: Rig) -> None:
    with half_a_push(rig):
        assert os.listdir(rig.site.incoming)
        fds = [os.pidfd_open(pid) for pid in children(rig)]
        rig.stop()
        assert not os.path.exists(rig.site.incoming)
        for fd in fds:
            assert process.wait_gone(fd, 0.3)
            os.close(fd)


def test_a_mirror_that_is_full_takes_nothing_more(rig: Rig) -> None:
    work = rig.base / "work"
    git("clone", "-q", rig.url(), work, cwd=rig.base)
    git("checkout", "-q", "-b", "agent/x", cwd=work)
    commit(work, "new")
    rig.configure_again(limits=Limits(mirror_bytes=1))
    done = git("push", "origin", "agent/x", cwd=work, check=False)
    assert done.returncode == 1 and "its limit is 1" in done.stderr
    assert "refs/heads/agent/x" not in rig.refs()


# -- code --


def test_hooks_and_configuration_in_the_mirror_have_no_effect(rig: Rig) -> None:
    repo, mark = Path(rig.home.repo), rig.base / "mark"
    (repo / "hooks").mkdir()
    for name in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction", "proc-receive"):
        hook = repo / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
        hook.chmod(0o755)
    with (repo / "config").open("a") as file:
        file.write(
            f"[core]\n\thooksPath = {repo}/hooks\n\tfsmonitor = touch {mark}\n\talternateRefsCommand = touch {mark};:\n"
        )
        file.write(f"[uploadpack]\n\tpackObjectsHook = touch {mark}; exec\n[include]\n\tpath = {rig.base}/none\n")
    work = rig.base / "work"
    git("clone", "-q", rig.url(), work, cwd=rig.base)
    git("checkout", "-q", "-b", "agent/x", cwd=work)
    commit(work, "new")
    git("push", "-q", "origin", "agent/x", cwd=work)
    assert not mark.exists()


def in_child(body: Callable[[], None]) -> None:
    """Run `body` in a process of its own, where confinement stays."""

    def run() -> int:
        body()
        return 0

    assert os.waitstatus_to_exitcode(os.waitpid(process.fork(run), 0)[1]) == 0


def test_the_front_reaches_only_what_it_needs(rig: Rig, tmp_path: Path) -> None:
    other = Rig(tmp_path, scope="other", container="other")
    other.configure(tmp_path / "up.git")

    def body() -> None:
        front.confine_to(rig.site)
        assert os.listdir(rig.home.repo)
        Path(rig.site.incoming, "x").write_text("fine")
        os.unlink(Path(rig.site.incoming, "x"))
        forbidden: list[tuple[Callable[..., Any], Path | str, int]] = [
            (os.open, rig.layout.vault_db, os.O_RDONLY),
            (os.open, rig.layout.vault_key, os.O_RDONLY),
            (os.open, rig.layout.bundle("agent").sidecar, os.O_RDONLY),
            (os.open, other.home.config, os.O_RDONLY),
            (os.open, f"{rig.home.repo}/config", os.O_WRONLY),
            (os.open, f"{rig.home.repo}/refs/heads/x", os.O_WRONLY | os.O_CREAT),
            (os.open, f"{rig.home.objects}/x", os.O_WRONLY | os.O_CREAT),
            (os.open, rig.home.config, os.O_WRONLY),
            (os.open, "/etc/shadow", os.O_RDONLY),
            (os.open, "/proc/1/environ", os.O_RDONLY),
        ]
        for function, path, flags in forbidden:
            with pytest.raises(PermissionError):
                function(path, flags)
        for program in ("/bin/sh", "/usr/bin/curl", "/usr/bin/python3"):
            if os.path.exists(program):
                with pytest.raises(TerokError, match="Permission denied"):
                    process.spawn([program, "-c", ":"])
        with pytest.raises(PermissionError):
            socket.create_connection(("127.0.0.1", rig.port), 5)
        with pytest.raises(OSError, match="not permitted"):
            os.kill(os.getppid(), 0)

    in_child(body)


def confined(pid: int) -> dict[str, str]:
    """The process's status once it has confined itself; empty before that, and when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return status if status["NoNewPrivs"] == "1" else {}


def test_the_running_front_has_no_privilege(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.port), 10):  # a client that says nothing keeps its front

        def all_confined() -> list[dict[str, str]]:
            now = [confined(pid) for pid in children(rig)]
            return now if all(now) else []

        for status in until(all_confined, 10):  # an ordinary user cannot give up the bounding set
            assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}


# -- what the front may ask of the keeper --


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../x"},
        {"name": "push-1/../../x"},
        {"commands": []},
        {"commands": "x"},
        {"commands": [{"old": "0" * 40, "new": "x", "ref": "refs/heads/agent/x", "refused": ""}]},
        {"commands": [{"old": "0" * 40, "new": "a" * 40, "ref": "../x", "refused": ""}]},
        {"commands": [{"old": "0" * 40, "new": "a" * 40, "ref": 7, "refused": ""}]},
        {"commands": [{"new": "a" * 40, "ref": "refs/heads/agent/x", "refused": ""}]},
    ],
)
def test_the_keeper_refuses_what_no_front_would_ask(rig: Rig, change: dict[str, Any]) -> None:
    command = {"old": "0" * 40, "new": "a" * 40, "ref": "refs/heads/agent/x", "refused": ""}
    with pytest.raises(TerokError):
        Landing(rig.site, print).land({"name": "push-1", "commands": [command], "atomic": False, **change})


def test_the_keeper_judges_again(rig: Rig) -> None:
    before = rig.refs()
    tip = before["refs/heads/stable"]
    os.makedirs(f"{rig.site.incoming}/push-1/objects/pack")
    commands = [
        {"old": before["refs/heads/main"], "new": tip, "ref": "refs/heads/main", "refused": ""},
        {"old": "0" * 40, "new": tip, "ref": "refs/terok/upstream/heads/x", "refused": ""},
        {"old": tip, "new": "0" * 40, "ref": "refs/heads/stable", "refused": ""},
        {"old": "0" * 40, "new": "a" * 40, "ref": "refs/heads/agent/x", "refused": ""},
    ]
    results = Landing(rig.site, print).land({"name": "push-1", "commands": commands, "atomic": False})
    assert all(results.values()) and len(results) == 4
    assert rig.refs() == before
    remove_tree(f"{rig.site.incoming}/push-1")


def test_only_objects_are_taken_over(rig: Rig, tmp_path: Path) -> None:
    source = tmp_path / "objects"
    (source / "pack").mkdir(parents=True)
    (source / "aa").mkdir()
    name = "b" * 38
    secret = tmp_path / "secret"
    secret.write_text("x")
    for path in ("pack/other.txt", "aa/short", "pack/pack-x.idx", "pack/.keep"):
        (source / path).write_text("x")
    assert objects.take_over(rig.home, str(source)) == 0
    (source / "aa" / name).symlink_to(secret)
    with pytest.raises(TerokError, match="regular"):
        objects.take_over(rig.home, str(source))
    remove_tree(str(source / "aa"))
    (source / "aa").symlink_to(tmp_path)
    (tmp_path / name).write_text("x")
    with pytest.raises(TerokError, match="link"):
        objects.take_over(rig.home, str(source))
    assert not os.path.lexists(f"{rig.home.objects}/aa/{name}")


def test_lost_tips_are_dropped_after_their_time(rig: Rig) -> None:
    tip = rig.refs()["refs/heads/main"]
    for age in (29, 31):
        git("update-ref", f"{refs.KEPT}{int(time.time()) - age * 86400}-{age:08}/heads/x", tip, cwd=Path(rig.home.repo))
    assert refs.forget_old(rig.home, refs.read(rig.home), 30) == 1
    assert [each.identity[-2:] for each in refs.kept(refs.read(rig.home))] == ["29"]
