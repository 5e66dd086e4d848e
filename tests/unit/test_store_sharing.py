"""The store as many processes share it: readers under Landlock, concurrent writers, crashes, and older files."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from terok_host.sidecars.kit.confine import confine
from terok_host.sidecars.store import keys, schema, seal, tokens
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground import process
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.ground.layout import Layout
from tests.standins.stores import ended, unlocked

# the writer is a thread of the test; the reader, a child, uses nothing that it could hold locked
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "data"), str(tmp_path / "run"), str(tmp_path / "config"))
    keys.create_vault(made)
    return made


def child(body: Callable[[], None]) -> int:
    """Run `body` in a child; its exit code, within 20 s (70: it raised; its words are on stderr)."""

    def run() -> int:
        body()
        return 0

    return ended(process.fork(run))


def test_a_confined_reader_sees_what_is_written_later_and_nothing_else(layout: Layout) -> None:
    with unlocked(layout) as store:
        store.put("credential", "work", "mistral", b"one", {})
    started, tell = os.pipe()
    wait, go = os.pipe()

    def reader() -> None:
        paths = keys.key_files(layout)
        keys.prepare(paths)
        seal.Sealer(bytes(seal.KEY_SIZE)).seal((), b"")  # loads the library, which is out of reach afterwards
        sidecar = Store.open(layout.vault_db, read_only=True)
        confine(read=[os.path.dirname(paths[0]), paths[1]])
        keys.ensure_unlocked(sidecar, paths)
        before = sidecar.changes()
        os.write(tell, b"x")
        os.read(wait, 1)
        assert sidecar.changes() != before
        item = sidecar.get("credential", "work", "mistral")
        assert item is not None
        assert item.secret == b"two"
        assert sidecar.tokens("box")[0].provider == "mistral"
        for forbidden in (layout.vault_db, layout.vault, "/etc/hostname"):
            with pytest.raises(PermissionError):
                os.open(forbidden, os.O_RDONLY)

    def writer() -> None:
        os.read(started, 1)
        # two connections that come and go: the last one that closes would delete the log of a store nobody reads
        for secret in (b"between", b"two"):
            with unlocked(layout) as store:
                store.put("credential", "work", "mistral", secret, {})
                store.remove("credential", "work", "nothing")
        with Store.open(layout.vault_db) as store:
            store.add_token("t" * 40, container="box", scope="work", provider="mistral")
        os.write(go, b"x")

    thread = threading.Thread(target=writer)
    thread.start()
    code = child(reader)
    os.write(tell, b"x")
    thread.join()
    for fd in (started, tell, wait, go):
        os.close(fd)
    assert code == 0


def test_many_writers_lose_nothing(layout: Layout) -> None:
    def writer(number: int) -> Callable[[], int]:
        def run() -> int:
            with unlocked(layout) as store:
                for count in range(10):
                    store.put("credential", "work", "shared", f"{number}-{count}".encode(), {})
                    store.add_token(f"token-{number}-{count}", container="box", scope="work", provider="p")
            return 0

        return run

    pids = [process.fork(writer(number)) for number in range(5)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 5
    with unlocked(layout) as store:
        item = store.get("credential", "work", "shared")
        assert item is not None
        assert item.version == 50
        assert len(store.tokens("box")) == 50


def test_one_of_many_creators_makes_the_vault_and_its_keys_fit(layout: Layout, tmp_path: Path) -> None:
    fresh = Layout(str(tmp_path / "second"), layout.runtime, layout.config)
    ready, go = os.pipe()

    def creator() -> int:
        os.read(ready, 1)
        try:
            keys.create_vault(fresh)
        except TerokError:
            return 1
        return 0

    pids = [process.fork(creator) for _ in range(6)]
    os.write(go, b"x" * 6)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    os.close(ready)
    os.close(go)
    assert sorted(codes) == [0, 1, 1, 1, 1, 1]
    with unlocked(fresh) as store:
        assert not store.locked


def test_many_first_opens_make_one_file_that_all_can_use(layout: Layout, tmp_path: Path) -> None:
    fresh = Layout(str(tmp_path / "second"), layout.runtime, layout.config)
    ready, go = os.pipe()

    def opener(number: int) -> Callable[[], int]:
        def run() -> int:
            os.read(ready, 1)
            with Store.open(fresh.vault_db, create=True) as store:
                store.add_token(f"token-{number}", container="box", scope="work", provider="p")
                with Store.open(fresh.vault_db, read_only=True) as reader:
                    return 0 if tokens.digest(f"token-{number}") in reader.token_digests() else 1

        return run

    pids = [process.fork(opener(number)) for number in range(8)]
    os.write(go, b"x" * 8)
    codes = [ended(pid) for pid in pids]
    os.close(ready)
    os.close(go)
    assert codes == [0] * 8
    with Store.open(fresh.vault_db) as store:
        assert len(store.tokens("box")) == 8


@pytest.mark.parametrize("number", range(10))
def test_a_writer_killed_at_any_moment_leaves_what_it_had_committed(layout: Layout, number: int) -> None:
    """What the writer said it had written is there; at the most one write more."""
    said, say = os.pipe()

    def writer() -> int:
        with unlocked(layout) as store:
            for count in itertools.count(1):
                store.put("credential", "work", "mistral", b"%d" % count, {"count": count})
                os.write(say, b"x")
        return 0

    pid = process.fork(writer)
    heard = len(os.read(said, 1 + number))
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    os.close(say)
    while more := os.read(said, 4096):
        heard += len(more)
    os.close(said)
    with unlocked(layout) as store:
        item = store.get("credential", "work", "mistral")
        assert item is not None
        assert item.secret == b"%d" % item.meta["count"] and item.version == item.meta["count"]
        assert heard <= item.version <= heard + 1


def test_a_killed_writer_leaves_a_whole_row(layout: Layout) -> None:
    with unlocked(layout) as store:
        store.put("credential", "work", "mistral", b"before", {})

    def writer() -> None:
        store = unlocked(layout)
        store._db.write("BEGIN IMMEDIATE")
        store._db.write("DELETE FROM items")
        os.kill(os.getpid(), signal.SIGKILL)

    assert child(writer) == -signal.SIGKILL
    with unlocked(layout) as store:
        item = store.get("credential", "work", "mistral")
        assert item is not None
        assert item.secret == b"before"


def test_a_removed_secret_is_not_left_in_the_files(layout: Layout) -> None:
    with unlocked(layout) as store:
        store.put("credential", "work", "mistral", b"x" * 40, {"marker": "marker-of-the-row"})
        store.remove("credential", "work", "mistral")
        for path in Path(layout.vault).iterdir():
            assert b"marker-of-the-row" not in path.read_bytes(), path


NEXT = (*schema.STEPS, ("ALTER TABLE items ADD COLUMN note TEXT", "UPDATE items SET note = 'old'"))
BROKEN = (*schema.STEPS, ("ALTER TABLE items ADD COLUMN note TEXT", "UPDATE nothing SET x = 1"))


def connect(layout: Layout) -> sqlite3.Connection:
    return sqlite3.connect(layout.vault_db, isolation_level=None)


def test_a_step_brings_an_older_file_up_and_keeps_its_rows(layout: Layout) -> None:
    with unlocked(layout) as store:
        store.put("credential", "work", "mistral", b"one", {})
    raw = connect(layout)
    schema.migrate(raw, layout.vault_db, steps=NEXT)
    schema.migrate(raw, layout.vault_db, steps=NEXT)
    assert raw.execute("SELECT name, note FROM items").fetchall() == [("mistral", "old")]
    assert schema.version_of(raw) == len(NEXT)
    raw.close()
    with pytest.raises(TerokError, match=f"has schema version {len(NEXT)}"):
        Store.open(layout.vault_db)


def test_a_step_that_fails_leaves_the_old_version_whole(layout: Layout) -> None:
    with unlocked(layout) as store:
        store.put("credential", "work", "mistral", b"one", {})
    raw = connect(layout)
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(raw, layout.vault_db, steps=BROKEN)
    raw.close()
    with unlocked(layout) as store:
        assert store.get("credential", "work", "mistral") is not None


def test_a_sidecar_does_not_migrate(layout: Layout) -> None:
    empty = Path(layout.vault_db).with_name("empty.db")
    empty.touch(0o600)
    with pytest.raises(TerokError, match="older version"):
        Store.open(str(empty), read_only=True)


def test_another_programs_database_is_refused(layout: Layout) -> None:
    other = Path(layout.vault_db).with_name("other.db")
    other.touch(0o600)
    raw = sqlite3.connect(other)
    raw.execute("PRAGMA user_version = 1")
    raw.close()
    with pytest.raises(TerokError, match="another program"):
        Store.open(str(other))


def test_a_vault_whose_creation_was_cut_off_is_created_again(layout: Layout, tmp_path: Path) -> None:
    fresh = Layout(str(tmp_path / "second"), layout.runtime, layout.config)
    Store.open(fresh.vault_db, create=True).close()
    with Store.open(fresh.vault_db) as store:
        keys.add_key_file(store, fresh.vault_key, os.urandom(32))
    keys.create_vault(fresh)
    with unlocked(fresh) as store:
        assert not store.locked
