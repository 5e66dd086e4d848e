"""A hostile client of the signer: what it may not sign is refused, and shown in the audit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from terok_host.sidecars.ssh import keys, wire
from terok_host.sidecars.ssh.wire import string
from terok_host.sidecars.store.store import Store
from tests.standins.signer import Operator, Signer
from tests.standins.ssh_client import FAILURE, SSHSIG, SUCCESS, Client, Host, login, refused, sign

pytest_plugins = ["tests.standins.ssh_fixtures"]


def session() -> bytes:
    return os.urandom(32)


def test_an_ordinary_login(signer: Signer, host: Host, blobs: dict[str, bytes]) -> None:
    mine = session()
    with Client(signer) as client:
        assert client.ask(host.bind(mine)) == SUCCESS
        answer = client.ask(sign(blobs["plain"], login(blobs["plain"], mine, host=host.blob)))
    reader = wire.Reader(answer)
    assert reader.byte() == wire.SIGN_RESPONSE
    keys.verify(blobs["plain"], reader.string(), login(blobs["plain"], mine, host=host.blob))


def test_a_host_that_is_not_pinned(signer: Signer, blobs: dict[str, bytes]) -> None:
    mine, evil = session(), Host()
    with Client(signer) as client:
        assert client.ask(evil.bind(mine)) == FAILURE
        assert refused(signer)["host_key"] == keys.fingerprint(evil.blob)
        assert client.ask(sign(blobs["plain"], login(blobs["plain"], mine))) == FAILURE
        assert "not pinned" in refused(signer)["reason"]
        assert client.ask(sign(blobs["plain"], SSHSIG)) == FAILURE  # the connection has shown where it belongs


def test_a_session_that_the_host_did_not_sign(signer: Signer, host: Host) -> None:
    with Client(signer) as client:
        assert client.ask(host.bind(session(), signed=session())) == FAILURE
        assert "did not sign" in refused(signer)["reason"]


def test_a_pinned_key_with_a_signature_of_another(signer: Signer, host: Host) -> None:
    mine = session()
    forged = Host().bind(mine)
    blob = string(host.blob)
    at = forged.index(string(wire.SESSION_BIND)) + len(string(wire.SESSION_BIND))
    with Client(signer) as client:
        assert client.ask(forged[:at] + blob + forged[at + len(blob) :]) == FAILURE
        assert "does not verify" in refused(signer)["reason"]


def test_another_session_than_the_bound_one(signer: Signer, host: Host, blobs: dict[str, bytes]) -> None:
    mine, other = session(), session()
    with Client(signer) as first, Client(signer) as second:
        assert first.ask(host.bind(mine)) == SUCCESS
        assert second.ask(host.bind(other)) == SUCCESS
        assert second.ask(sign(blobs["plain"], login(blobs["plain"], mine))) == FAILURE
        assert "not the one" in refused(signer)["reason"]


def test_a_bind_that_is_replayed(signer: Signer, host: Host, blobs: dict[str, bytes]) -> None:
    mine = session()
    with Client(signer) as first, Client(signer) as second, Client(signer) as third:
        assert first.ask(host.bind(mine)) == SUCCESS
        assert second.ask(host.bind(mine)) == FAILURE
        assert "another connection" in refused(signer)["reason"]
        assert second.ask(sign(blobs["plain"], login(blobs["plain"], mine))) == FAILURE
        assert third.ask(sign(blobs["plain"], login(blobs["plain"], mine))) == FAILURE
        assert "did not bind" in refused(signer)["reason"]
        assert first.ask(host.bind(session())) == FAILURE  # bound to a login, once and for all
        assert first.ask(sign(blobs["plain"], login(blobs["plain"], mine))) == FAILURE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user": "root"}, "user name"),
        ({"host": b"another host key"}, "another host key"),
        ({"algorithm": "ssh-rsa"}, "names 'ssh-rsa'"),
        ({"key": b"another key"}, "another key"),
    ],
)
def test_another_login(
    signer: Signer, host: Host, blobs: dict[str, bytes], change: dict[str, Any], reason: str
) -> None:
    mine = session()
    with Client(signer) as client:
        assert client.ask(host.bind(mine)) == SUCCESS
        wanted = {"key": blobs["plain"], "session": mine, **change}
        assert client.ask(sign(blobs["plain"], login(**wanted))) == FAILURE
        assert reason in refused(signer)["reason"]


@pytest.mark.parametrize(
    "data", [b"", b"text", os.urandom(200), SSHSIG.replace(b"git", b"Git"), SSHSIG[:-1], b"SSHSIG"]
)
def test_anything_else_is_not_signed(signer: Signer, blobs: dict[str, bytes], data: bytes) -> None:
    with Client(signer) as client:
        assert client.ask(sign(blobs["plain"], data)) == FAILURE
        assert refused(signer)["key"] == "plain"


def test_sha1(signer: Signer, host: Host, blobs: dict[str, bytes]) -> None:
    mine = session()
    key = blobs["rsa"]
    with Client(signer) as client:
        assert client.ask(host.bind(mine)) == SUCCESS
        assert client.ask(sign(key, login(key, mine, algorithm="ssh-rsa"))) == FAILURE
        assert "SHA-1" in refused(signer)["reason"]
        assert client.ask(sign(key, login(key, mine, algorithm="ssh-rsa"), flags=2)) == FAILURE
        assert client.ask(sign(key, SSHSIG)) == FAILURE
        answer = wire.Reader(client.ask(sign(key, login(key, mine, algorithm="rsa-sha2-256"), flags=2)))
        assert answer.byte() == wire.SIGN_RESPONSE
        assert wire.Reader(answer.string()).text() == "rsa-sha2-256"


def test_a_key_of_another_scope(signer: Signer, blobs: dict[str, bytes]) -> None:
    with Client(signer) as client:
        assert blobs["asks"] not in client.ask(b"\x0b")
        assert client.ask(sign(blobs["asks"], SSHSIG)) == FAILURE
        assert "not one of this scope" in refused(signer)["reason"]


@pytest.mark.parametrize(
    "message",
    [b"\x01", b"\x11key", b"\x12key", b"\x13", b"\x14", b"\x15", b"\x16pass", b"\x17pass", b"\x19key", b"\x1a", b"\xfe"]
    + [b"\x1b" + string("other@example.test"), b"\x0b\x00", b"\x0d", b"\x1b"],
    ids=bytes.hex,
)
def test_other_requests_get_failure(signer: Signer, message: bytes) -> None:
    with Client(signer) as client:
        assert client.ask(message) == FAILURE
        assert refused(signer)["event"] == "request"
        assert client.ask(b"\x0b")[0] == wire.IDENTITIES_ANSWER  # the connection is still good


def test_query(signer: Signer) -> None:
    with Client(signer) as client:
        answer = client.ask(b"\x1b" + string("query"))
    assert answer == b"\x1d" + string("query") + string("query") + string("session-bind@openssh.com")


def test_the_rate(operator: Operator, blobs: dict[str, bytes]) -> None:
    with Signer(operator, "work", policy={"rate": 3}) as signer, Client(signer) as client:
        kinds = [client.ask(sign(blobs["plain"], SSHSIG))[0] for _ in range(5)]
        assert kinds == [wire.SIGN_RESPONSE] * 3 + [wire.FAILURE] * 2
        assert refused(signer)["reason"] == "more than 3 signatures a minute"


def test_a_policy_that_is_not_understood(operator: Operator, blobs: dict[str, bytes]) -> None:
    with Signer(operator, "work", policy={"hostz": {}}) as signer, Client(signer) as client:
        assert client.ask(sign(blobs["plain"], SSHSIG)) == FAILURE
        assert "hostz" in refused(signer)["reason"]


def test_a_locked_vault_is_empty_until_it_is_unlocked(operator: Operator, blobs: dict[str, bytes]) -> None:
    key = operator.data / "vault/key"
    key.rename(f"{key}.away")
    empty = bytes([wire.IDENTITIES_ANSWER]) + bytes(4)
    try:
        with Signer(operator, "work") as signer, Client(signer) as client:
            assert client.ask(b"\x0b") == empty
            assert refused(signer)["allow"] == "terok vault unlock"
            assert client.ask(sign(blobs["plain"], SSHSIG)) == FAILURE
            assert "locked" in refused(signer)["reason"]
            Path(f"{key}.away").rename(key)
            assert client.ask(sign(blobs["plain"], SSHSIG))[0] == wire.SIGN_RESPONSE
            key.rename(f"{key}.away")
            with Store.open(str(operator.data / "vault/vault.db")) as store:
                store.hold()  # what `terok vault lock` does
            assert client.ask(b"\x0b") == empty
            assert client.ask(sign(blobs["plain"], SSHSIG)) == FAILURE
    finally:
        if not key.exists():
            Path(f"{key}.away").rename(key)
        with Store.open(str(operator.data / "vault/vault.db")) as store:
            store.release()


def test_without_a_vault_there_are_no_keys(tmp_path: Path) -> None:
    with Signer(Operator(tmp_path), "work") as signer:
        with Client(signer) as client:
            assert client.ask(b"\x0b") == bytes([wire.IDENTITIES_ANSWER]) + bytes(4)
            assert "no vault" in refused(signer)["reason"]
        assert signer.wait(5) == 0  # it leaves soon, so that the next one sees a vault that was made meanwhile
