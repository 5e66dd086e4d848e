"""The sealed store: what opens, what must not, and what needs no key."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from terok_host.sidecars.store import keys, recovery, schema
from terok_host.sidecars.store.records import LockedError
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground.errors import Exit, TerokError
from terok_host.supervisor.ground.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "data"), str(tmp_path / "run"), str(tmp_path / "config"))


@pytest.fixture
def store(layout: Layout) -> Iterator[Store]:
    keys.create_vault(layout)
    with Store.open(layout.vault_db) as opened:
        opened.unlock(keys.find_data_key(opened, keys.key_files(layout)))
        yield opened


def test_item_round_trip_and_versions(store: Store) -> None:
    assert store.get("credential", "work", "github") is None
    store.put("credential", "work", "github", b"one", {"kind": "api-key"})
    store.put("credential", "work", "github", b"two", {"kind": "api-key"})
    item = store.get("credential", "work", "github")
    assert item is not None
    assert (item.secret, item.version, item.meta) == (b"two", 2, {"kind": "api-key"})
    assert "two" not in repr(item)
    assert store.remove("credential", "work", "github")
    assert not store.remove("credential", "work", "github")


def test_describe_and_tokens_need_no_key(store: Store, layout: Layout) -> None:
    store.put("credential", "work", "github", b"one", {"note": 1})
    with Store.open(layout.vault_db) as locked:
        assert locked.locked
        assert [(entry.scope, entry.name, entry.meta) for entry in locked.describe("credential")] == [
            ("work", "github", {"note": 1})
        ]
        assert locked.describe("credential", "other") == []
        locked.set_meta("credential", "work", "github", {"note": 2})
        locked.add_token("phantom", container="box", scope="work", provider="github")
        assert [(info.container, info.provider) for info in locked.tokens("box")] == [("box", "github")]
        assert locked.tokens("other") == []
        with pytest.raises(TerokError):
            locked.add_token("phantom", container="other", scope="work", provider="github")
        assert locked.revoke("box") == 1
        assert locked.tokens("box") == []
        refusals: tuple[Callable[[], object], ...] = (
            lambda: locked.get("credential", "work", "github"),
            lambda: locked.put("credential", "a", "b", b"", {}),
        )
        for refused in refusals:
            with pytest.raises(LockedError) as caught:
                refused()
            assert caught.value.code == Exit.LOCKED
            assert caught.value.fix == "terok vault unlock"


def test_no_secret_and_no_token_stands_in_the_files(store: Store, layout: Layout) -> None:
    store.put("credential", "work", "github", b"very-secret-value", {})
    store.add_token("phantom-token-value", container="box", scope="work", provider="github")
    for path in Path(layout.vault).iterdir():
        assert b"very-secret-value" not in path.read_bytes()
        assert b"phantom-token-value" not in path.read_bytes()


@pytest.mark.parametrize("change", [
    "UPDATE items SET sealed = (SELECT sealed FROM items WHERE name = 'gitlab') WHERE name = 'github'",
    "UPDATE items SET version = version + 1 WHERE name = 'github'",
    "UPDATE items SET sealed = substr(sealed, 1, length(sealed) - 1) || x'ff' WHERE name = 'github'",
    "UPDATE items SET scope = 'other' WHERE name = 'github'",
    "UPDATE items SET kind = 'gate' WHERE name = 'github'",
    "UPDATE items SET sealed = x'01' WHERE name = 'github'",
])  # fmt: skip
def test_a_row_that_was_moved_or_changed_does_not_open(store: Store, layout: Layout, change: str) -> None:
    store.put("credential", "work", "github", b"one", {})
    store.put("credential", "work", "gitlab", b"two", {})
    with sqlite3.connect(layout.vault_db) as raw:
        raw.execute(change)
    raw.close()
    kind, scope = ("gate" if "kind" in change else "credential"), ("other" if "scope" in change else "work")
    with pytest.raises(TerokError, match="does not open"):
        store.get(kind, scope, "github")


def test_files_are_private_and_must_stay_so(store: Store, layout: Layout) -> None:
    store.put("credential", "work", "github", b"one", {})
    for path in Path(layout.vault).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(Path(layout.vault).stat().st_mode) == 0o700
    os.chmod(layout.vault_db, 0o640)
    with pytest.raises(TerokError, match="read by others"):
        Store.open(layout.vault_db)


def test_a_wrong_key_is_refused(store: Store) -> None:
    store.lock()
    with pytest.raises(LockedError):
        store.unlock(os.urandom(32))
    assert store.locked


def test_a_loose_or_foreign_key_file_is_not_used(store: Store, layout: Layout) -> None:
    os.chmod(layout.vault_key, 0o644)
    with pytest.raises(LockedError, match="mode 0600"):
        keys.find_data_key(store, keys.key_files(layout))
    os.chmod(layout.vault_key, 0o600)
    Path(layout.vault_key).write_text("something else\n")
    with pytest.raises(LockedError, match="not a key file"):
        keys.find_data_key(store, keys.key_files(layout))
    os.unlink(layout.vault_key)
    with pytest.raises(LockedError) as caught:
        keys.find_data_key(store, keys.key_files(layout))
    assert caught.value.fix == "terok vault unlock"


def test_lock_reaches_other_processes_and_unlocking_too(store: Store, layout: Layout) -> None:
    paths = keys.key_files(layout)
    data_key = keys.find_data_key(store, paths)
    with Store.open(layout.vault_db, read_only=True) as sidecar:
        keys.ensure_unlocked(sidecar, paths)
        os.unlink(layout.vault_key)
        keys.ensure_unlocked(sidecar, paths)
        store.hold()
        with pytest.raises(LockedError):
            keys.ensure_unlocked(sidecar, paths)
        assert sidecar.locked
        keys.write_key_file(layout.unlocked_key, data_key, data_key=True)
        with pytest.raises(LockedError, match="terok vault lock"):  # a key file is not enough: the operator locked it
            keys.ensure_unlocked(sidecar, paths)
        store.release()
        keys.ensure_unlocked(sidecar, paths)
        assert not sidecar.locked


def test_recovery_key_opens_the_vault_and_forgives_how_it_is_written(layout: Layout) -> None:
    written = keys.create_vault(layout)
    with Store.open(layout.vault_db) as store:
        typed = written.lower().replace("-", " ")
        store.unlock(keys.unwrap(store, recovery.RECOVERY_TIER, recovery.recovery_kek(typed)))
        assert not store.locked
    slip = ("A" if written[0] != "A" else "B") + written[1:]
    with pytest.raises(TerokError, match="not a recovery key"):
        recovery.recovery_kek(slip)
    with pytest.raises(TerokError):
        keys.create_vault(layout)


def test_a_reader_that_opened_early_needs_no_writable_directory(store: Store, layout: Layout) -> None:
    store.put("credential", "work", "github", b"one", {})
    with Store.open(layout.vault_db, read_only=True) as reader:
        keys.ensure_unlocked(reader, keys.key_files(layout))
        before = reader.changes()
        with Store.open(layout.vault_db) as writer:
            keys.ensure_unlocked(writer, keys.key_files(layout))
            writer.put("credential", "work", "github", b"two", {})
        assert reader.changes() != before
        item = reader.get("credential", "work", "github")
        assert item is not None
        assert item.secret == b"two"
        with pytest.raises(TerokError, match="readonly"):
            reader.put("credential", "work", "github", b"three", {})


def test_a_newer_file_is_refused_and_an_unknown_one_too(store: Store, layout: Layout) -> None:
    store.close()
    with sqlite3.connect(layout.vault_db) as raw:
        raw.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    raw.close()
    with pytest.raises(TerokError, match="schema version"):
        Store.open(layout.vault_db)
    other = Path(layout.vault_db).with_name("other.db")
    other.write_bytes(b"no database at all, but long enough to look like one" * 100)
    other.chmod(0o600)
    with pytest.raises(TerokError, match="Could not open"):
        Store.open(str(other))
    with pytest.raises(TerokError) as caught:
        Store.open(str(other) + ".missing")
    assert caught.value.code == Exit.NOT_FOUND
