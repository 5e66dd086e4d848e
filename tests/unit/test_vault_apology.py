"""A container whose vault cannot open hears why, and is served as soon as it can."""

from __future__ import annotations

import json
from pathlib import Path

from tests.standins.vault import Vault, provider


def test_without_a_vault_the_client_hears_why_and_the_process_leaves(tmp_path: Path) -> None:
    with Vault(tmp_path, {"p": provider("https://127.0.0.1:1")}, idle_seconds=300) as vault:
        database = Path(vault.layout.vault_db)
        away = database.rename(database.with_suffix(".away"))
        answer = vault.get("/v1/models", "some-token")
        assert (answer.status, answer.headers["X-Terok-Reason"]) == (503, "no-vault")
        assert int(answer.headers["Retry-After"]) > 0  # it ends by an operator's act
        body = json.loads(answer.body)
        assert body["error"]["message"].startswith("terok vault: ") and "terok vault" in body["allow"]
        assert vault.wait() == 0  # so that the supervisor starts it again with the next connection
        away.rename(database)
        assert vault.get("/v1/models", "some-token").status == 401


def test_a_client_that_says_nothing_does_not_hold_the_others(tmp_path: Path) -> None:
    with Vault(tmp_path, {"p": provider("https://127.0.0.1:1")}, idle_seconds=300) as vault:
        Path(vault.layout.vault_db).unlink()
        with vault.raw():
            assert vault.get("/", "token").status == 503


def test_a_client_that_still_sends_hears_the_whole_answer(tmp_path: Path) -> None:
    with Vault(tmp_path, {"p": provider("https://127.0.0.1:1")}, idle_seconds=300) as vault:
        Path(vault.layout.vault_db).unlink()
        with vault.raw() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
            client.sendall(bytes(900_000))
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 503 ") and b"no-vault" in answer and answer.endswith(b"}")


def test_clients_that_say_nothing_hear_it_too_and_do_not_keep_the_process(tmp_path: Path) -> None:
    with Vault(tmp_path, {"p": provider("https://127.0.0.1:1")}, idle_seconds=300) as vault:
        Path(vault.layout.vault_db).unlink()
        with vault.raw() as client:
            assert client.recv(65536).startswith(b"HTTP/1.1 503 ")
            assert vault.wait() == 0


def test_a_request_for_a_head_gets_no_body(tmp_path: Path) -> None:
    with Vault(tmp_path, {"p": provider("https://127.0.0.1:1")}, idle_seconds=300) as vault:
        Path(vault.layout.vault_db).unlink()
        with vault.raw() as client:
            client.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 503 ") and answer.endswith(b"\r\n\r\n")
