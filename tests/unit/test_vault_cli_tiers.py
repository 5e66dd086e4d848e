"""The ways into the vault, by the verbs: each opens it, fails closed, and leaves running vaults alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from terok_host.sidecars.store import keys, tiers
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground.errors import Exit
from tests.standins.operator import PASSPHRASE, Operator, program, recovery_key


@pytest.fixture
def terok(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(tmp_path, capsys, monkeypatch)


def test_the_first_add_makes_the_vault_and_shows_the_recovery_key_once(terok: Operator) -> None:
    first = terok.add()
    assert first.code == Exit.OK
    assert "recovery key" in first.err
    assert "real-secret-value" not in first.out + first.err
    second = terok.add("work", "openai")
    assert "recovery key" not in second.err
    listed = terok("vault", "list", "--json").json()
    assert [(each["scope"], each["provider"], each["auth"]) for each in listed] == [
        ("work", "mistral", "api-key"),
        ("work", "openai", "api-key"),
    ]
    with terok.store() as store:
        item = store.get("credential", "work", "mistral")
        assert item is not None
        assert item.secret == b"real-secret-value"


def test_passphrase_replaces_the_key_file_and_running_vaults_do_not_notice(terok: Operator) -> None:
    terok.add()
    with Store.open(terok.layout.vault_db, read_only=True) as sidecar:
        paths = keys.key_files(terok.layout)
        keys.ensure_unlocked(sidecar, paths)
        assert terok("vault", "passphrase", "set", stdin=PASSPHRASE).code == Exit.OK
        assert not Path(terok.layout.vault_key).exists()
        keys.ensure_unlocked(sidecar, paths)
        with Store.open(terok.layout.vault_db, read_only=True) as started_later:
            keys.ensure_unlocked(started_later, paths)
        changed = terok("vault", "passphrase", "change", stdin=f"{PASSPHRASE}\nanother passphrase\n")
        assert changed.code == Exit.OK
        keys.ensure_unlocked(sidecar, paths)
        item = sidecar.get("credential", "work", "mistral")
        assert item is not None
        assert item.version == 1
        locked = terok("vault", "lock")
        assert locked.code == Exit.OK
        assert not Path(terok.layout.unlocked_key).exists()
        with pytest.raises(keys.LockedError):
            keys.ensure_unlocked(sidecar, paths)
        assert terok("vault", "unlock", stdin=PASSPHRASE).code == Exit.LOCKED
        with pytest.raises(keys.LockedError):
            keys.ensure_unlocked(sidecar, paths)
        assert terok("vault", "unlock", stdin="another passphrase").code == Exit.OK
        keys.ensure_unlocked(sidecar, paths)
        assert Path(terok.layout.unlocked_key).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("given", "code"), [
    ("a long passphrase\n", Exit.OK),
    ("a long passphrase\na long passphrase\n", Exit.OK),
    ("a long passphrase\r\na long passphrase\r\n", Exit.OK),
    ("a long passphrase\na long passphrasf\n", Exit.USAGE),
    ("a long passphrase\na long passphrase\nmore\n", Exit.USAGE),
    ("\n", Exit.USAGE),
])  # fmt: skip
def test_a_piped_passphrase_has_one_line_or_the_same_twice(terok: Operator, given: str, code: int) -> None:
    terok.add()
    ran = terok("vault", "passphrase", "set", stdin=given)
    assert ran.code == code, ran.err
    if code == Exit.OK:
        terok("vault", "lock")
        assert terok("vault", "unlock", stdin="a long passphrase").code == Exit.OK
        assert terok("vault", "unlock", "--tier", "passphrase", stdin="a long passphrase\nmore").code == Exit.USAGE


def test_a_guess_costs_memory_and_a_vault_cannot_ask_for_too_much() -> None:
    assert 128 * tiers.SCRYPT["n"] * tiers.SCRYPT["r"] >= 128 << 20
    with pytest.raises(keys.LockedError, match="more memory"):
        tiers.stretch("x", {"salt": "00", "n": 1 << 24, "r": 8, "p": 1})


def test_lock_holds_with_a_key_file_too_until_unlock(terok: Operator) -> None:
    terok.add()
    paths = keys.key_files(terok.layout)
    with Store.open(terok.layout.vault_db, read_only=True) as running:
        keys.ensure_unlocked(running, paths)
        ran = terok("vault", "lock")
        assert (ran.code, ran.out) == (Exit.OK, "Locked.\n")
        assert "passphrase set" in ran.err
        with Store.open(terok.layout.vault_db, read_only=True) as started_later:
            for sidecar in (running, started_later):
                with pytest.raises(keys.LockedError, match="terok vault lock"):
                    keys.ensure_unlocked(sidecar, paths)
                assert sidecar.locked
            status = terok("vault", "status", "--json").json()
            assert (status["unlocked"], status["reason"]) == (False, "The vault is locked by `terok vault lock`.")
            assert terok.add("work", "github").code == Exit.LOCKED
            assert terok("vault", "unlock").code == Exit.OK
            for sidecar in (running, started_later):
                keys.ensure_unlocked(sidecar, paths)
                assert not sidecar.locked


def test_recovery_restores_a_vault_whose_passphrase_is_lost(terok: Operator) -> None:
    key = recovery_key(terok.add())
    terok("vault", "passphrase", "set", stdin=PASSPHRASE)
    terok("vault", "lock")
    assert terok("vault", "unlock", "--recovery", stdin=key.lower()).code == Exit.OK
    terok("vault", "passphrase", "add", "key-file")
    assert terok("vault", "passphrase", "remove", "passphrase").code == Exit.OK
    assert terok("vault", "passphrase", "set", stdin="a new passphrase").code == Exit.OK
    new = terok("vault", "passphrase", "recovery").out.strip()
    assert new != key
    terok("vault", "lock")
    assert terok("vault", "unlock", "--recovery", stdin=key).code == Exit.LOCKED
    assert terok("vault", "unlock", "--recovery", stdin=new).code == Exit.OK
    assert terok("vault", "unlock", "--recovery", stdin="AAAA-BBBB").code == Exit.USAGE


def test_short_passphrases_and_the_last_tier_are_refused(terok: Operator) -> None:
    terok.add()
    assert terok("vault", "passphrase", "set", stdin="short").code == Exit.USAGE
    refused = terok("vault", "passphrase", "remove", "key-file")
    assert refused.code == Exit.REFUSED
    assert terok("vault", "passphrase", "remove", "keyring").code == Exit.NOT_FOUND


def test_a_passphrase_command_unlocks_and_fails_closed(terok: Operator, tmp_path: Path) -> None:
    terok.add()
    command = program(tmp_path / "ask", 'echo "from $1"; echo second line; cat /dev/null')
    assert terok("vault", "passphrase", "command", command, "the-store").code == Exit.OK
    terok("vault", "lock")
    assert terok("vault", "unlock").code == Exit.OK
    terok("vault", "lock")
    for text in ("exit 3", "echo another", "true", "echo secret-of-the-store >&2; exit 1"):
        program(tmp_path / "ask", text)
        ran = terok("vault", "unlock")
        assert ran.code == Exit.LOCKED
        assert "secret-of-the-store" not in ran.err
        assert not Path(terok.layout.unlocked_key).exists()


def test_a_command_that_hangs_is_killed(terok: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terok.add()
    monkeypatch.setattr(tiers, "COMMAND_SECONDS", 0.3)
    ran = terok("vault", "passphrase", "command", program(tmp_path / "hang", "exec sleep 600"))
    assert ran.code == Exit.LOCKED
    assert "did not end within" in ran.err
    assert terok("vault", "passphrase", "list", "--json").json()["tiers"] == ["key-file", "recovery"]


def test_systemd_creds_opens_the_vault_where_it_exists_and_is_refused_elsewhere(terok: Operator) -> None:
    terok.add()
    ran = terok("vault", "passphrase", "add", "systemd-creds")
    if ran.code == Exit.OK:
        terok("vault", "lock")
        assert terok("vault", "unlock", "--json").json()["tier"] == "systemd-creds"
        return
    # too old for users, not there at all, or there without a key of the host
    assert ran.code in (Exit.REFUSED, Exit.LOCKED)
    assert "systemd-creds" in ran.err
    assert terok("vault", "unlock", "--tier", "systemd-creds").code == Exit.LOCKED
    assert terok("vault", "passphrase", "list", "--json").json()["tiers"] == ["key-file", "recovery"]


@pytest.fixture
def keyring(terok: Operator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A keyring that keeps its passwords in a file; it is chosen as an operator would choose one."""
    root = str(Path(__file__).parents[2])
    monkeypatch.syspath_prepend(root)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.standins.keyrings.FileKeyring")
    monkeypatch.setenv("TEST_KEYRING_FILE", str(tmp_path / "keyring.json"))
    return tmp_path / "keyring.json"


def test_the_keyring_opens_the_vault_and_forgets_its_key(terok: Operator, keyring: Path) -> None:
    terok.add()
    assert terok("vault", "passphrase", "add", "keyring").code == Exit.OK
    assert terok("vault", "lock").code == Exit.OK
    assert terok("vault", "unlock", "--json").json()["tier"] == "keyring"
    assert terok("vault", "passphrase", "set", stdin=PASSPHRASE).code == Exit.OK
    assert terok("vault", "passphrase", "remove", "keyring").code == Exit.OK
    assert json.loads(keyring.read_text()) == {}


def test_a_keyring_that_hangs_or_refuses_fails_closed_in_time(
    terok: Operator, keyring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terok.add()
    terok("vault", "passphrase", "add", "keyring")
    terok("vault", "lock")
    for backend, seconds, problem in (
        ("HangingKeyring", 0.5, "did not answer within"),
        ("ClosedKeyring", 20.0, "is closed"),
    ):
        monkeypatch.setattr(tiers, "KEYRING_SECONDS", seconds)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"tests.standins.keyrings.{backend}")
        ran = terok("vault", "unlock")
        assert ran.code == Exit.LOCKED
        assert problem in ran.err
        assert not Path(terok.layout.unlocked_key).exists()
