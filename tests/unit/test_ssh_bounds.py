"""Floods, half messages and silence: the signer's bounds, and the life of its process."""

from __future__ import annotations

import os
import resource
import select
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.ssh import server, wire
from terok_host.sidecars.ssh.wire import string
from terok_host.sidecars.store.store import Store
from tests.lab.waiting import until
from tests.standins.signer import Operator, Signer
from tests.standins.ssh_client import FAILURE, SSHSIG, Client, refused, sign

pytest_plugins = ["tests.standins.ssh_fixtures"]


def test_a_message_of_5_megabytes(signer: Signer) -> None:
    with Client(signer) as client:
        client.sock.sendall(struct.pack(">I", 5 << 20))
        try:
            client.sock.sendall(bytes(5 << 20))
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert client.receive() == b""
    assert str(5 << 20) in refused(signer)["reason"]
    assert peak_memory(signer) < 40 << 20


def peak_memory(signer: Signer) -> int:
    """The largest resident set of the signer so far, in bytes."""
    for line in Path(f"/proc/{signer.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def test_half_a_message_and_answers_that_nobody_takes(signer: Signer) -> None:
    with Client(signer) as left, Client(signer) as silent, Client(signer) as greedy, Client(signer) as other:
        left.sock.sendall(struct.pack(">I", 100) + bytes(50))
        left.sock.close()
        silent.sock.sendall(struct.pack(">I", 100) + bytes(50))
        began = time.monotonic()
        greedy.sock.settimeout(1)
        with pytest.raises(TimeoutError):
            while True:  # until the signer takes no more
                greedy.send(*[b"\x0b"] * 1000)
        assert other.ask(b"\x0b")[0] == wire.IDENTITIES_ANSWER
        assert peak_memory(signer) < 40 << 20
        silent.sock.settimeout(server.MESSAGE_SECONDS + 5)
        assert silent.receive() == b""
        assert time.monotonic() - began > server.MESSAGE_SECONDS - 2
        closed = select.poll()
        closed.register(greedy.sock, select.POLLHUP)
        assert closed.poll((server.MESSAGE_SECONDS + 5) * 1000)
        assert other.ask(b"\x0b")[0] == wire.IDENTITIES_ANSWER  # silence between messages is fine
    reasons = [line["reason"] for line in signer.audit("connection")]
    assert reasons[0] == "the client left in the middle of a message"
    assert "did not finish its message" in reasons[1]
    assert "did not take its answer" in reasons[2]


def test_a_message_that_comes_byte_by_byte(signer: Signer) -> None:
    with Client(signer) as client:
        for byte in string(b"\x0b"):
            client.sock.sendall(bytes([byte]))
        assert client.receive()[0] == wire.IDENTITIES_ANSWER


def test_many_unfinished_messages_are_bounded(signer: Signer) -> None:
    clients = [Client(signer) for _ in range(40)]
    for client in clients:
        try:
            client.sock.sendall(struct.pack(">I", 200 << 10) + bytes(199 << 10))
        except (BrokenPipeError, ConnectionResetError):
            pass
    with Client(signer) as other:
        assert other.ask(b"\x0b")[0] == wire.IDENTITIES_ANSWER
    closed = select.poll()
    for client in clients:
        closed.register(client.sock, select.POLLHUP)
    assert closed.poll(10_000)
    for client in clients:
        client.sock.close()
    assert any("unfinished messages" in line["reason"] for line in signer.audit("connection"))
    assert peak_memory(signer) < 40 << 20


def test_pipelined_requests_are_answered_in_their_order(signer: Signer, blobs: dict[str, bytes]) -> None:
    with Client(signer) as client:
        client.send(*([b"\x0b", b"\x13", sign(blobs["plain"], SSHSIG)] * 30))
        kinds = [client.receive()[0] for _ in range(90)]
    assert kinds == [wire.IDENTITIES_ANSWER, wire.FAILURE, wire.SIGN_RESPONSE] * 30


def test_pipelining_faster_than_it_is_answered_costs_no_memory(signer: Signer) -> None:
    count, batch = 250_000, string(b"\x11" + bytes(99)) * 1000
    with Client(signer) as client:

        def send() -> None:
            for _ in range(count // 1000):
                client.sock.sendall(batch)

        sender = threading.Thread(target=send)
        sender.start()
        received = 0
        while received < count * len(string(FAILURE)):
            received += len(client.sock.recv(1 << 20))
        sender.join()
    assert peak_memory(signer) < 36 << 20


def test_200_connections_at_once(signer: Signer) -> None:
    clients = [Client(signer) for _ in range(200)]
    for client in clients:
        client.send(b"\x0b")
    assert {client.receive()[0] for client in clients} == {wire.IDENTITIES_ANSWER}
    for client in clients:
        client.sock.close()
    assert len(signer.audit("list")) == 200


def test_more_connections_than_the_limit(signer: Signer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1024)), hard))
    clients = []
    for _ in range(server.CONNECTIONS_MAX + 20):
        clients.append(Client(signer))
        clients[-1].send(b"\x0b")
        assert clients[-1].receive()[0] == wire.IDENTITIES_ANSWER
    assert clients[0].receive() == b""
    assert clients[-1].ask(b"\x0b")[0] == wire.IDENTITIES_ANSWER
    for client in clients:
        client.sock.close()
    assert len([line for line in signer.audit("connection") if str(server.CONNECTIONS_MAX) in line["reason"]]) == 20


def test_a_flood_does_not_fill_the_audit(signer: Signer) -> None:
    with Client(signer) as client:
        for _ in range(10):
            client.send(*[b"\x13"] * 300)
            assert {client.receive() for _ in range(300)} == {FAILURE}
    os.kill(signer.pid, 15)
    assert signer.wait(5) == 0
    lines = signer.audit()
    assert len(lines) < 2000
    assert (
        len([line for line in lines if line["event"] == "request"]) + sum(line.get("left_out", 0) for line in lines)
        == 3000
    )


def test_the_operator_says_yes_or_no(operator: Operator, blobs: dict[str, bytes]) -> None:
    with Signer(operator, "asking") as signer, Client(signer) as client:
        for answer, kind in (("--yes", wire.SIGN_RESPONSE), ("--no", wire.FAILURE)):
            client.send(sign(blobs["asks"], SSHSIG), b"\x0b")
            (question,) = waiting(operator)
            assert (question["key"], question["namespace"], question["container"]) == ("asks", "git", "probe")
            with Client(signer) as other:  # nobody else waits
                assert other.ask(b"\x0b")[0] == wire.IDENTITIES_ANSWER
            operator.terok("ssh", "confirm", question["id"], answer)
            assert client.receive()[0] == kind
            assert client.receive()[0] == wire.IDENTITIES_ANSWER
            assert operator.json("ssh", "confirm") == []
        assert [line["verdict"] for line in signer.audit("confirm")] == ["asked", "asked"]
        assert [line["verdict"] for line in signer.audit("sign")] == ["allowed", "refused"]
        assert "is waiting" in operator.terok("ssh", "confirm", question["id"], "--yes", code=3)


def test_an_id_that_two_questions_have_answers_neither(operator: Operator, blobs: dict[str, bytes]) -> None:
    """Another container's signer, which reads what its container sends, may have copied the ID."""
    with Signer(operator, "asking") as signer, Client(signer) as client:
        client.send(sign(blobs["asks"], SSHSIG))
        (question,) = waiting(operator)
        real = signer.bundle / "confirm" / f"{question['id']}.json"
        copied = signer.bundle.parent / "another" / "confirm" / real.name
        copied.parent.mkdir(parents=True)
        copied.write_bytes(real.read_bytes())
        said = operator.terok("ssh", "confirm", question["id"], "--yes", code=4)
        assert "2 signatures wait" in said and "decides none" in said
        copied.unlink()
        operator.terok("ssh", "confirm", question["id"], "--no")
        assert client.receive() == FAILURE


def waiting(operator: Operator, count: int = 1) -> list[dict[str, Any]]:
    """Questions that wait for the operator, as soon as there are `count`."""

    def enough() -> list[dict[str, Any]]:
        questions: list[dict[str, Any]] = operator.json("ssh", "confirm")
        return questions if len(questions) >= count else []

    return until(enough, 10)


def test_questions_are_bounded_and_end_with_their_client(operator: Operator, blobs: dict[str, bytes]) -> None:
    with Signer(operator, "asking") as signer:
        clients = [Client(signer) for _ in range(8)]
        for client in clients:
            client.send(sign(blobs["asks"], SSHSIG))
        waiting(operator, 8)
        with Client(signer) as ninth:
            assert ninth.ask(sign(blobs["asks"], SSHSIG)) == FAILURE
            assert "wait for the operator already" in refused(signer)["reason"]
        for client in clients:
            client.sock.close()
        with Client(signer) as client:
            client.send(sign(blobs["asks"], SSHSIG))
            (question,) = waiting(operator)
            operator.terok("ssh", "confirm", question["id"], "--yes")
            assert client.receive()[0] == wire.SIGN_RESPONSE
        assert len([line for line in signer.audit("sign") if "connection ended" in line.get("reason", "")]) == 8
        assert list((signer.bundle / "confirm").iterdir()) == []


def test_sigterm_is_quick_and_the_next_process_takes_over(signer: Signer) -> None:
    with Client(signer) as client:
        assert client.ask(b"\x0b")[0] == wire.IDENTITIES_ANSWER
        began = time.monotonic()
        os.kill(signer.pid, 15)
        assert signer.wait(5) == 0
        assert time.monotonic() - began < 0.3
        assert client.receive() == b""
    with Client(signer) as early:  # the socket is held by the supervisor: nobody is refused
        early.send(b"\x0b")
        signer.start()
        assert early.receive()[0] == wire.IDENTITIES_ANSWER


def test_an_idle_process_leaves(operator: Operator) -> None:
    with Signer(operator, "work", idle_seconds=1) as signer:
        with Client(signer) as client:
            assert client.ask(b"\x0b")[0] == wire.IDENTITIES_ANSWER
            assert signer.wait(1.5) is None  # not while a client is there
        assert signer.wait(3) == 0


def test_the_process_is_confined(signer: Signer) -> None:
    with Client(signer) as client:
        client.ask(b"\x0b")
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{signer.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
    assert status["NoNewPrivs"].strip() == "1"
    # the bounding set can only be emptied by who has something in it to lose (capabilities(7), PR_CAPBSET_DROP)
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0]
    if os.getuid() != 0:
        # not dumpable: another process of the same user cannot look into it
        with pytest.raises(PermissionError):
            Path(f"/proc/{signer.pid}/environ").read_bytes()


def test_idle_costs_no_wakeups(signer: Signer) -> None:
    with Client(signer) as client:
        client.ask(b"\x0b")

        def switches() -> int:
            text = Path(f"/proc/{signer.pid}/status").read_text()
            return sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)

        while Path(f"/proc/{signer.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            pass
        before = switches()
        time.sleep(1)  # the absence of an event cannot be waited for
        assert switches() == before


def test_a_key_whose_row_was_tampered_with(operator: Operator, blobs: dict[str, bytes], tmp_path: Path) -> None:
    copy = Operator(tmp_path / "copy")
    shutil.copytree(operator.data, copy.data)
    with Store.open(str(copy.data / "vault/vault.db")) as store:
        meta = {entry.name: entry.meta for entry in store.describe("ssh-key", "")}
        store.set_meta("ssh-key", "", "plain", {**meta["plain"], "public": meta["asks"]["public"]})
    with Signer(copy, "work") as signer, Client(signer) as client:
        assert client.ask(sign(blobs["asks"], SSHSIG)) == FAILURE
        assert "another key than it says" in refused(signer)["reason"]


def test_nothing_secret_in_command_line_or_environment(signer: Signer) -> None:
    # -ww: without a terminal, ps cuts its lines at 80 columns
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(signer.pid)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[1:3] == ["-I", "-S"]
    assert len(shown.stdout.split()) == 6


def test_what_cannot_be_audited_is_not_signed(signer: Signer, blobs: dict[str, bytes]) -> None:
    with Client(signer) as client:
        assert client.ask(sign(blobs["plain"], SSHSIG))[0] == wire.SIGN_RESPONSE
        size = (signer.bundle / "audit.jsonl").stat().st_size
        resource.prlimit(signer.pid, resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
        client.send(sign(blobs["plain"], SSHSIG))
        assert client.receive() == b""
    assert signer.wait(5) not in (0, None)
    (signer.bundle / "supervisor.log").write_text("")
