"""Tests of the gate's process with real git: clone, fetch, push, policy, and what is left behind when it is killed."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from terok_host.sidecars.gate import refs
from terok_host.sidecars.gate.config import Limits
from terok_host.sidecars.gate.forge import sync
from terok_host.sidecars.gate.policy import Policy
from tests.lab.waiting import until
from tests.standins.gate import Rig, commit, git


@pytest.fixture
def work(rig: Rig) -> Path:
    """A clone on a branch of the container's own."""
    return clone(rig, "work")


def clone(rig: Rig, name: str, *options: str) -> Path:
    path = rig.base / name
    git("clone", "-q", *options, rig.url(), path, cwd=rig.base)
    git("checkout", "-q", "-b", f"{rig.container}/{name}", cwd=path)
    return path


def leftovers(rig: Rig) -> list[str]:
    """What pushes left in the scratch directory."""
    return os.listdir(rig.site.incoming)


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_clone_and_push_in_every_protocol(rig: Rig, version: str) -> None:
    path = rig.base / "clone"
    git("-c", f"protocol.version={version}", "clone", "-q", rig.url(), path, cwd=rig.base)
    assert (path / "file2").read_text() == "content 2\n"
    git("checkout", "-q", "-b", "agent/x", cwd=path)
    tip = commit(path, "new")
    git("-c", f"protocol.version={version}", "push", "-q", "origin", "agent/x", cwd=path)
    assert rig.refs()["refs/heads/agent/x"] == tip
    assert leftovers(rig) == []


def test_over_the_unix_socket_and_as_bearer(rig: Rig) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(rig.unix_path)
        target = "/proj.git/info/refs?service=git-upload-pack"
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
    header = f"http.extraHeader=Authorization: Bearer {rig.token}"
    found = git("-c", header, "ls-remote", f"http://127.0.0.1:{rig.port}/proj.git", cwd=rig.base).stdout
    assert {line.split("\t")[1] for line in found.splitlines()} == {
        "HEAD", "refs/heads/main", "refs/heads/stable", "refs/tags/v1", "refs/tags/v1^{}",
    }  # fmt: skip


def test_shallow_and_partial_clones_fetch_and_push(rig: Rig) -> None:
    shallow = clone(rig, "shallow", "--depth", "1")
    assert git("rev-list", "--count", "HEAD", cwd=shallow).stdout.strip() == "1"
    tip = commit(shallow, "from-shallow")
    git("push", "-q", "origin", "agent/shallow", cwd=shallow)
    assert rig.refs()["refs/heads/agent/shallow"] == tip
    git("fetch", "-q", "--unshallow", cwd=shallow)
    assert git("rev-list", "--count", "HEAD", cwd=shallow).stdout.strip() == "4"

    partial = clone(rig, "partial", "--filter=blob:none", "--no-checkout")
    missing = git("rev-list", "--objects", "--all", "--missing=print", cwd=partial).stdout
    assert "\n?" in missing
    git("checkout", "-q", "main", cwd=partial)
    assert (partial / "file0").read_text() == "content 0\n"
    for version in ("0", "2"):
        git("-c", f"protocol.version={version}", "cat-file", "-p", "HEAD:file1", cwd=partial)


def test_a_push_changes_only_what_the_policy_allows(rig: Rig, work: Path) -> None:
    before = rig.refs()
    tip = commit(work, "new")
    wanted = ["HEAD:main", "HEAD:agent/ok", "HEAD:refs/tags/v2", "HEAD:refs/heads/other/x"]
    done = git("push", "origin", *wanted, cwd=work, check=False)
    assert done.returncode == 1
    assert "[remote rejected] HEAD -> main (update is allowed for refs/heads/agent/* only)" in done.stderr
    assert "[remote rejected] HEAD -> v2 (create is allowed for refs/heads/agent/* only)" in done.stderr
    assert "[new branch]      HEAD -> agent/ok" in done.stderr
    after = rig.refs()
    assert {ref for ref in after if after[ref] != before.get(ref)} == {"refs/heads/agent/ok", "refs/terok/proposals/1"}
    assert after["refs/heads/agent/ok"] == tip
    refused = [line for line in rig.audit() if line.get("verdict") == "refused"]
    assert {line["ref"] for line in refused} == {"refs/heads/main", "refs/tags/v2", "refs/heads/other/x"}
    assert all(line["reason"] and line["allow"] for line in refused)


def test_refs_that_are_refused_cost_no_pack(rig: Rig, work: Path) -> None:
    """The pack is not even looked at: one that is no pack at all gets the same answer."""
    zero, tip = "0" * 40, git("rev-parse", "HEAD", cwd=work).stdout.strip()
    line = f"{zero} {tip} refs/heads/other\0 report-status"
    body = f"{len(line) + 4:04x}{line}0000".encode() + b"not a pack" * 100_000
    status, answer = post(rig, "git-receive-pack", body)
    assert status == 200
    assert b"unpack ok" in answer and b"ng refs/heads/other create is allowed" in answer


def post(rig: Rig, service: str, body: bytes, **fields: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{rig.port}/proj.git/{service}", data=body)
    request.add_header("Content-Type", f"application/x-{service}-request")
    request.add_header("Authorization", f"Bearer {rig.token}")
    for name, value in fields.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_force_and_delete_keep_the_old_tip(rig: Rig, work: Path) -> None:
    first = commit(work, "one")
    git("push", "-q", "origin", "agent/work", cwd=work)
    git("reset", "-q", "--hard", "HEAD~1", cwd=work)
    second = commit(work, "two")
    assert git("push", "origin", "agent/work", cwd=work, check=False).returncode == 1
    git("push", "-q", "--force", "origin", "agent/work", cwd=work)
    assert rig.refs()["refs/heads/agent/work"] == second
    git("push", "-q", "--delete", "origin", "agent/work", cwd=work)
    refs = rig.refs()
    assert "refs/heads/agent/work" not in refs
    assert sorted(oid for ref, oid in refs.items() if ref.startswith("refs/terok/kept/")) == sorted([first, second])
    assert not any(ref.startswith("refs/terok/proposals/") for ref in refs)


def test_the_view_is_branches_and_tags(rig: Rig) -> None:
    everything = rig.refs()
    assert "refs/terok/upstream/heads/main" in everything
    assert "refs/heads/main" in refs.visible(everything)
    assert "terok" not in str(refs.visible({**everything, "refs/notes/terok": "1" * 40}))


def test_hidden_refs_are_neither_seen_nor_pushed(rig: Rig, work: Path) -> None:
    assert "terok" not in git("ls-remote", "origin", cwd=work).stdout
    done = git("push", "origin", "HEAD:refs/terok/upstream/heads/main", cwd=work, check=False)
    assert "branches and tags only" in done.stderr
    assert git("fetch", "origin", "refs/terok/upstream/heads/main", cwd=work, check=False).returncode != 0


def test_force_without_permission_is_told_from_a_fast_forward(tmp_path: Path, rig: Rig, work: Path) -> None:
    rig.configure_again(policy=Policy(force=()))
    commit(work, "one")
    git("push", "-q", "origin", "agent/work", cwd=work)
    commit(work, "two")
    git("push", "-q", "origin", "agent/work", cwd=work)
    git("reset", "-q", "--hard", "HEAD~2", cwd=work)
    commit(work, "three")
    done = git("push", "--force", "origin", "agent/work", cwd=work, check=False)
    assert "not a fast-forward, and force is not allowed" in done.stderr


def test_atomic_is_all_or_nothing(rig: Rig, work: Path) -> None:
    commit(work, "new")
    before = rig.refs()
    done = git("push", "--atomic", "origin", "HEAD:agent/a", "HEAD:main", cwd=work, check=False)
    assert done.returncode == 1 and "atomic push was refused" in done.stderr
    assert rig.refs() == before
    git("push", "-q", "--atomic", "origin", "HEAD:agent/a", "HEAD:agent/b", cwd=work)
    assert {"refs/heads/agent/a", "refs/heads/agent/b"} <= rig.refs().keys()


def test_tags_when_allowed(rig: Rig, work: Path) -> None:
    rig.configure_again(policy=Policy(create=("refs/heads/agent/*", "refs/tags/*")))
    git("tag", "-a", "-m", "two", "v2", cwd=work)
    git("push", "-q", "origin", "v2", cwd=work)
    proposed = [oid for ref, oid in rig.refs().items() if ref.startswith("refs/terok/proposals/")]
    assert proposed == [git("rev-parse", "v2", cwd=work).stdout.strip()]
    assert "refs/tags/v2" not in rig.refs()  # not the container's own: it waits
    git("tag", "-f", "v1", "HEAD~1", cwd=work)
    assert "tags are protected" in git("push", "-f", "origin", "v1", cwd=work, check=False).stderr


def test_a_push_of_what_is_not_there_is_refused(rig: Rig, work: Path) -> None:
    zero = "0" * 40
    line = f"{zero} {'1' * 40} refs/heads/agent/x\0 report-status"
    command = ["git", "pack-objects", "--stdout", "-q"]
    empty = subprocess.run(command, cwd=work, input=b"", capture_output=True, check=True)
    status, answer = post(rig, "git-receive-pack", f"{len(line) + 4:04x}{line}0000".encode() + empty.stdout)
    assert status == 200 and b"ng refs/heads/agent/x" in answer
    assert "refs/heads/agent/x" not in rig.refs()


def test_an_object_that_git_finds_harmful_is_refused(rig: Rig, work: Path) -> None:
    blob = git("hash-object", "-w", "file0", cwd=work).stdout.strip()
    tree = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"],
        cwd=work, input=b"100644 .GIT\0" + bytes.fromhex(blob), capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    tip = git("commit-tree", "-m", "x", tree, cwd=work).stdout.strip()
    done = git("push", "origin", f"{tip}:refs/heads/agent/bad", cwd=work, check=False)
    assert done.returncode == 1 and "hasDotgit" in done.stderr
    assert "refs/heads/agent/bad" not in rig.refs() and leftovers(rig) == []


def test_lfs_is_refused_with_a_reason(rig: Rig) -> None:
    status, answer = post(rig, "info/lfs/objects/batch", b"{}")
    assert status == 501 and "Git LFS" in json.loads(answer)["message"]


@pytest.mark.parametrize("mode", ["gzip", "chunked", "continue"])
def test_bodies_in_other_clothes(rig: Rig, mode: str) -> None:
    tip = rig.refs()["refs/heads/main"]
    body = f"0032want {tip}\n00000009done\n".encode()
    if mode == "gzip":
        status, answer = post(rig, "git-upload-pack", gzip.compress(body, mtime=0), Content_Encoding="gzip")
        assert status == 200
    else:
        field = (
            "Transfer-Encoding: chunked"
            if mode == "chunked"
            else f"Content-Length: {len(body)}\r\nExpect: 100-continue"
        )
        head = f"POST /proj.git/git-upload-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n"
        head += f"Content-Type: application/x-git-upload-pack-request\r\nConnection: close\r\n{field}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", rig.port), 20) as client:
            client.sendall(head.encode())
            if mode == "continue":
                assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
                client.sendall(body)
            else:
                for at in range(len(body)):
                    client.sendall(b"1\r\n" + body[at : at + 1] + b"\r\n")
                client.sendall(b"0\r\n\r\n")
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        assert answer.endswith(b"0\r\n\r\n")
    assert b"NAK\n" in answer and b"PACK" in answer


@pytest.mark.parametrize(
    ("body", "fields", "status"),
    [
        (b"not gzip", {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"0000", mtime=0)[:-3], {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"0000", mtime=0) + b"x", {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"\0" * (64 << 20)), {"Content_Encoding": "gzip"}, 413),
        (b"0000", {"Content_Encoding": "br"}, 415),
        (b"0000", {"Content_Type": "text/plain"}, 415),
    ],
)
def test_broken_bodies_are_refused(rig: Rig, body: bytes, fields: dict[str, str], status: int) -> None:
    assert post(rig, "git-upload-pack", body, **fields)[0] == status


def test_concurrent_pushes_to_one_ref_let_one_win(rig: Rig) -> None:
    works = [clone(rig, f"w{number}") for number in range(4)]
    tips = [commit(path, f"from-{path.name}") for path in works]
    done: dict[int, int] = {}

    def push(number: int) -> None:
        wanted = ["HEAD:agent/shared", f"HEAD:agent/own{number}"]
        done[number] = git("push", "-q", "origin", *wanted, cwd=works[number], check=False).returncode

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done.values()) == [0, 1, 1, 1]
    refs = rig.refs()
    winner = next(number for number, code in done.items() if code == 0)
    assert refs["refs/heads/agent/shared"] == tips[winner]
    assert [refs[f"refs/heads/agent/own{number}"] for number in range(4)] == tips
    assert leftovers(rig) == []


def test_killed_in_the_middle_of_a_push_nothing_is_half_done(rig: Rig, work: Path) -> None:
    commit(work, "new")
    before = rig.refs()
    objects = sorted(str(path) for path in Path(rig.home.objects).rglob("*"))
    head = f"POST /proj.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n"
    head += "Content-Type: application/x-git-receive-pack-request\r\nTransfer-Encoding: chunked\r\n\r\n"
    tip = git("rev-parse", "HEAD", cwd=work).stdout.strip()
    line = f"{'0' * 40} {tip} refs/heads/agent/x\0 report-status"
    command = ["git", "pack-objects", "--stdout", "-q", "--revs"]
    pack = subprocess.run(command, cwd=work, input=tip.encode(), capture_output=True, check=True).stdout
    part = f"{len(line) + 4:04x}{line}0000".encode() + pack[: len(pack) // 2]
    with socket.create_connection(("127.0.0.1", rig.port), 20) as client:
        client.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(part), part))
        until(lambda: list(Path(rig.site.incoming).rglob("tmp_objdir*")), 20)  # git's quarantine of what arrives
        assert rig.process is not None
        rig.process.send_signal(signal.SIGKILL)
        rig.process.wait(10)
        assert client.recv(1000) == b""  # the connection's own process went with it
    rig.run_process()
    git("ls-remote", rig.url(), cwd=rig.base)
    assert leftovers(rig) == []
    assert rig.refs() == before
    assert sorted(str(path) for path in Path(rig.home.objects).rglob("*")) == objects
    git("push", "-q", "origin", "agent/work", cwd=work)


def test_a_client_that_leaves_in_the_middle_changes_nothing(rig: Rig, work: Path) -> None:
    before = rig.refs()
    head = f"POST /proj.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n"
    head += "Content-Type: application/x-git-receive-pack-request\r\nContent-Length: 100000\r\n\r\n"
    line = f"{'0' * 40} {before['refs/heads/main']} refs/heads/agent/x\0 report-status"
    with socket.create_connection(("127.0.0.1", rig.port), 20) as client:
        client.sendall(f"{head}{len(line) + 4:04x}{line}0000".encode() + b"PACK\0\0\0\2\0\0\0\5")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000) == b""
    assert rig.refs() == before and leftovers(rig) == []


def test_pack_limits(rig: Rig, work: Path) -> None:
    rig.configure_again(limits=Limits(pack_objects=2))
    commit(work, "new")
    done = git("push", "origin", "agent/work", cwd=work, check=False)
    assert done.returncode == 1 and "the pack has 3 objects; this gate takes 2" in done.stderr
    rig.configure_again(limits=Limits(pack_bytes=1 << 20))
    commit(work, "big", os.urandom(4 << 20))
    done = git("push", "origin", "agent/work", cwd=work, check=False)
    assert done.returncode == 1 and "refs/heads/agent/work" not in rig.refs()
    assert leftovers(rig) == []


def test_idle_it_leaves_and_comes_back_behind_the_same_socket(rig: Rig) -> None:
    rig.stop()
    rig.start(idle_seconds=1)
    assert rig.process is not None and rig.process.wait(20) == 0
    with socket.create_connection(("127.0.0.1", rig.port), 20) as early:
        rig.run_process()
        early.sendall(f"GET /proj.git/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rig.token}\r\n\r\n".encode())
        assert early.recv(100).startswith(b"HTTP/1.1 404 ")


def test_sha256_repositories(tmp_path: Path) -> None:
    source = tmp_path / "source"
    git("init", "-q", "-b", "main", "--object-format=sha256", source, cwd=tmp_path)
    commit(source, "a")
    rig = Rig(tmp_path)
    settings = rig.configure(source, object_format="sha256")
    sync.synchronise(rig.site, settings)
    rig.start()
    try:
        work = clone(rig, "work")
        tip = commit(work, "b")
        git("push", "-q", "origin", "agent/work", cwd=work)
        assert len(tip) == 64 and rig.refs()["refs/heads/agent/work"] == tip
    finally:
        rig.stop()


def test_a_scope_without_a_gate_says_how_to_get_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.start()
    try:
        status, answer = post(rig, "git-upload-pack", b"0000")
        assert status == 503 and b"terok gate add proj URL" in answer
        assert not os.path.exists(rig.home.root)
    finally:
        rig.stop()
