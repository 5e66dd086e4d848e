"""The store under whatever hypothesis thinks of: sealing, tokens, versions, tiers, tampering, and torn writes."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import string
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from terok_host.sidecars.store import keys, recovery, tokens
from terok_host.sidecars.store.seal import SealBroken, Sealer, encode
from terok_host.sidecars.store.store import Store
from terok_host.supervisor.ground.errors import TerokError
from terok_host.supervisor.ground.layout import Layout
from tests.standins.stores import unlocked

FIELDS = st.lists(st.text(max_size=12) | st.integers(0, 2**64 - 1), max_size=5).map(tuple)
KEYS = st.binary(min_size=32, max_size=32)
SCOPES, NAMES = st.sampled_from(("work", "play")), st.sampled_from(("github", "openai"))
META = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A vault with two credentials, a token and the key-file and recovery tiers; tests change copies of it."""
    root = tmp_path_factory.mktemp("vault")
    made = Layout(str(root / "data"), str(root / "run"), str(root / "config"))
    keys.create_vault(made)
    with unlocked(made) as store:
        store.put("credential", "work", "github", b"secret one", {"auth": "api-key"})
        store.put("credential", "work", "openai", b"secret two", {"auth": "api-key"})
        store.add_token("phantom", container="box", scope="work", provider="github")
    return made


@pytest.fixture(scope="module")
def copy(vault: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """Where `fresh` puts the copies."""
    root = tmp_path_factory.mktemp("copy")
    yield Layout(str(root / "data"), str(root / "run"), str(root / "config"))


def fresh(vault: Layout, copy: Layout) -> None:
    shutil.rmtree(copy.vault, ignore_errors=True)
    shutil.copytree(vault.vault, copy.vault)


# -- sealing --


@given(KEYS, FIELDS, st.binary(max_size=200))
def test_what_is_sealed_opens_for_its_identity_and_hides_its_value(key: bytes, identity: Any, value: bytes) -> None:
    sealed = Sealer(key).seal(identity, value)
    assert Sealer(key).open(identity, sealed) == value
    assert len(value) < 8 or value not in sealed
    assert Sealer(key).seal(identity, value) != sealed


@given(KEYS, KEYS, FIELDS, FIELDS)
def test_another_key_or_identity_opens_nothing(key: bytes, other: bytes, identity: Any, another: Any) -> None:
    sealed = Sealer(key).seal(identity, b"value")
    assert (encode(identity) == encode(another)) == (identity == another)
    for key_used, identity_used in ((other, identity), (key, another), (other, another)):
        if (key_used, identity_used) != (key, identity):
            with pytest.raises(SealBroken):
                Sealer(key_used).open(identity_used, sealed)


def test_every_changed_byte_and_every_cut_is_noticed() -> None:
    sealer = Sealer(os.urandom(32))
    sealed = sealer.seal(("a", 1), b"the value")
    flipped = [sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :] for at in range(len(sealed))]
    for changed in [*flipped, *(sealed[:end] for end in range(len(sealed))), sealed + b"\0", b"\0" + sealed]:
        with pytest.raises(SealBroken):
            sealer.open(("a", 1), changed)


# -- the recovery key --


@given(st.data())
def test_a_recovery_key_survives_how_people_write_it(data: st.DataObject) -> None:
    key = recovery.new_recovery_key()
    gaps = data.draw(st.lists(st.sampled_from(("", " ", "-", "\n", " - ")), min_size=len(key), max_size=len(key)))
    typed = "".join(letter + gap for letter, gap in zip(key, gaps, strict=True))
    typed = data.draw(st.sampled_from((typed, typed.lower(), typed.replace("O", "0").replace("B", "8"))))
    assert recovery.recovery_kek(typed) == recovery.recovery_kek(key)


def test_every_slip_of_the_pen_is_told_from_a_wrong_key() -> None:
    key = recovery.new_recovery_key().replace("-", "")
    for at, letter in enumerate(key):
        for other in set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") - {letter}:
            with pytest.raises(TerokError, match="not a recovery key"):
                recovery.recovery_kek(key[:at] + other + key[at + 1 :])
    with pytest.raises(TerokError, match="not a recovery key"):
        recovery.recovery_kek(key[:-1])


# -- phantom tokens --

LITERALS = st.text(string.ascii_letters + string.digits + "_.+/=-", max_size=10)
PLACES = st.tuples(st.sampled_from(sorted(tokens.ALPHABETS)), st.integers(0, 90))


@given(LITERALS, st.lists(st.tuples(PLACES, LITERALS), max_size=4))
def test_a_token_fits_its_template_or_the_template_is_refused(head: str, parts: Any) -> None:
    template = head + "".join(f"{{{kind}:{length}}}{literal}" for (kind, length), literal in parts)
    if tokens.template_bits(template) < tokens.RANDOM_BITS_MIN:
        with pytest.raises(ValueError, match="random bits"):
            tokens.mint(template)
        return
    token = rest = tokens.mint(template)
    assert tokens.mint(template) != token and tokens.digest(token) != tokens.digest(token + "x")
    rest = rest.removeprefix(head)
    for (kind, length), literal in parts:
        assert set(rest[:length]) <= set(tokens.ALPHABETS[kind])
        assert rest[length:].startswith(literal)
        rest = rest[length + len(literal) :]
    assert rest == ""


@given(st.text(max_size=40))
def test_no_template_is_a_crash(template: str) -> None:
    try:
        token = tokens.mint(template)
    except ValueError:
        return
    assert token.isascii() and token.isprintable()


# -- two connections against a dictionary --


class TwoConnections(RuleBasedStateMachine):
    """Whatever two processes do in turns, both see what was done; a row's version grows while the row is there."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="tk", dir="/tmp"))
        self.layout = Layout(str(self.root / "data"), str(self.root / "run"), str(self.root / "config"))
        keys.create_vault(self.layout)
        self.stores = [unlocked(self.layout), unlocked(self.layout)]
        self.rows: dict[tuple[str, str], tuple[bytes, int, dict[str, Any]]] = {}
        self.tokens: dict[str, str] = {}
        self.held = False

    @rule(scope=SCOPES, name=NAMES, secret=st.binary(max_size=50), meta=META, which=st.integers(0, 1))
    def put(self, scope: str, name: str, secret: bytes, meta: dict[str, Any], which: int) -> None:
        if self.stores[which].locked:
            with pytest.raises(keys.LockedError):
                self.stores[which].put("credential", scope, name, secret, meta)
            return
        self.stores[which].put("credential", scope, name, secret, meta)
        self.rows[scope, name] = (secret, self.rows.get((scope, name), (b"", 0, {}))[1] + 1, meta)

    @rule(scope=SCOPES, name=NAMES, meta=META, which=st.integers(0, 1))
    def set_meta(self, scope: str, name: str, meta: dict[str, Any], which: int) -> None:
        if (scope, name) in self.rows:
            self.stores[which].set_meta("credential", scope, name, meta)
            self.rows[scope, name] = (*self.rows[scope, name][:2], meta)
        else:
            with pytest.raises(TerokError, match="has no credential"):
                self.stores[which].set_meta("credential", scope, name, meta)

    @rule(scope=SCOPES, name=NAMES, which=st.integers(0, 1))
    def remove(self, scope: str, name: str, which: int) -> None:
        assert self.stores[which].remove("credential", scope, name) == ((scope, name) in self.rows)
        self.rows.pop((scope, name), None)

    @rule(token=st.sampled_from("abc"), container=st.sampled_from(("box", "jar")), which=st.integers(0, 1))
    def add_token(self, token: str, container: str, which: int) -> None:
        words = {"container": container, "scope": "work", "provider": "github"}
        if token in self.tokens:
            with pytest.raises(TerokError, match="already"):
                self.stores[which].add_token(token, **words)
        else:
            self.stores[which].add_token(token, **words)
            self.tokens[token] = container

    @rule(container=st.sampled_from(("box", "jar")), which=st.integers(0, 1))
    def revoke(self, container: str, which: int) -> None:
        mine = {token for token, owner in self.tokens.items() if owner == container}
        assert self.stores[which].revoke(container) == len(mine)
        self.tokens = {token: owner for token, owner in self.tokens.items() if owner != container}

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = Store.open(self.layout.vault_db)

    @rule(which=st.integers(0, 1))
    def unlock(self, which: int) -> None:
        if self.held:
            with pytest.raises(keys.LockedError):
                keys.ensure_unlocked(self.stores[which], keys.key_files(self.layout))
            assert self.stores[which].locked
        else:
            keys.ensure_unlocked(self.stores[which], keys.key_files(self.layout))

    @rule(which=st.integers(0, 1), held=st.booleans())
    def lock(self, which: int, held: bool) -> None:
        if held:
            self.stores[which].hold()
        else:
            self.stores[which].release()
        self.held = held

    @invariant()
    def both_see_the_same(self) -> None:
        for store in self.stores:
            seen = {(entry.scope, entry.name): (entry.version, entry.meta) for entry in store.describe("credential")}
            assert seen == {identity: row[1:] for identity, row in self.rows.items()}
            assert store.token_digests() == {tokens.digest(token) for token in self.tokens}
            for container in ("box", "jar"):
                owned = {token for token, owner in self.tokens.items() if owner == container}
                assert {info.digest for info in store.tokens(container)} == {tokens.digest(token) for token in owned}
            for (scope, name), (secret, version, _) in self.rows.items():
                if not store.locked:
                    item = store.get("credential", scope, name)
                    assert item is not None and (item.secret, item.version) == (secret, version)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.root)


TwoConnections.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestTwoConnections = TwoConnections.TestCase


# -- tiers --


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(("passphrase", "keyring", "systemd-creds")), KEYS | st.none()), max_size=8))
def test_each_tier_opens_with_its_last_key_alone(vault: Layout, copy: Layout, steps: Any) -> None:
    fresh(vault, copy)
    with unlocked(copy) as store:
        data_key = keys.find_data_key(store, keys.key_files(copy))
        have: dict[str, bytes] = {}
        for tier, key in steps:
            if key is None:
                assert store.remove_tier(tier) == (have.pop(tier, None) is not None)
            else:
                keys.wrap(store, tier, key, data_key)
                have[tier] = key
        assert store.tiers().keys() - {"key-file", "recovery"} == have.keys()
        for tier in ("passphrase", "keyring", "systemd-creds"):
            for key in {*have.values(), bytes(32)}:
                if have.get(tier) == key:
                    assert keys.unwrap(store, tier, key) == data_key
                else:
                    with pytest.raises(keys.LockedError):
                        keys.unwrap(store, tier, key)


# -- tampering --

VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=60),
    st.sampled_from(("{}", "[]", "null", '{"argv": 5}', '{"salt": "x", "n": 1e999, "r": 8, "p": 1}', "[" * 5000)),
)
COLUMNS = st.sampled_from((
    "settings.name", "settings.value", "tiers.name", "tiers.wrapped", "tiers.parameters", "tiers.created",
    "items.kind", "items.scope", "items.name", "items.version", "items.sealed", "items.meta", "items.updated",
    "tokens.digest", "tokens.container", "tokens.scope", "tokens.provider", "tokens.created",
))  # fmt: skip


def use(layout: Layout) -> None:
    """All that reads the vault: each call gives what was stored, or a sentence."""
    calls = 0
    try:
        with Store.open(layout.vault_db) as store:
            for read in (
                lambda: sorted(f"{entry.kind}{entry.scope}{entry.name}{entry.updated:f}" for entry in store.describe()),
                store.tiers,
                store.token_digests,
                lambda: store.tokens("box"),
                lambda: keys.ensure_unlocked(store, keys.key_files(layout)),
                lambda: check(store, "github", b"secret one"),
                lambda: check(store, "openai", b"secret two"),
            ):
                try:
                    read()
                except TerokError:
                    calls += 1
    except TerokError:
        pass


def check(store: Store, name: str, secret: bytes) -> None:
    item = store.get("credential", "work", name)
    assert item is None or item.secret == secret


@given(COLUMNS, VALUES, st.booleans())
def test_a_changed_cell_gives_a_sentence_and_no_wrong_secret(
    vault: Layout, copy: Layout, column: str, value: Any, as_text: bool
) -> None:
    table, _, name = column.partition(".")
    fresh(vault, copy)
    with closing(sqlite3.connect(copy.vault_db)) as raw:
        place = "CAST(? AS TEXT)" if as_text else "?"  # text that is no UTF-8, among others
        raw.execute(f"UPDATE OR REPLACE {table} SET {name} = {place}", (value,))
        raw.commit()
    use(copy)


def test_every_changed_byte_of_a_sealed_value_is_noticed(vault: Layout, copy: Layout) -> None:
    fresh(vault, copy)
    with closing(sqlite3.connect(copy.vault_db, isolation_level=None)) as raw, unlocked(copy) as store:
        for table, column, where, read in (
            ("items", "sealed", "name = 'github'", lambda: store.get("credential", "work", "github")),
            ("tiers", "wrapped", "name = 'key-file'", lambda: keys.find_data_key(store, [copy.vault_key])),
        ):
            ((whole,),) = raw.execute(f"SELECT {column} FROM {table} WHERE {where}")
            for at in range(len(whole)):
                changed = whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :]
                raw.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (changed,))
                with pytest.raises(TerokError):
                    read()
            raw.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (whole,))
            assert read()


@given(st.data())
def test_changed_bytes_of_the_file_give_a_sentence_and_no_wrong_secret(
    vault: Layout, copy: Layout, data: st.DataObject
) -> None:
    fresh(vault, copy)
    file = bytearray(Path(copy.vault_db).read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(file) - 1), min_size=1, max_size=4)):
        file[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(file)) | st.integers(0, len(file)))
    Path(copy.vault_db).write_bytes(file[:end])
    use(copy)


@given(st.binary(max_size=300) | st.builds(lambda word, key: word + b" " + key, st.sampled_from((
    b"terok-key-file-v1", b"terok-data-key-v1")), st.binary(max_size=60)))  # fmt: skip
def test_no_key_file_is_a_crash(vault: Layout, copy: Layout, content: bytes) -> None:
    fresh(vault, copy)
    Path(copy.vault_key).write_bytes(content)
    with Store.open(copy.vault_db) as store, pytest.raises(keys.LockedError):
        keys.ensure_unlocked(store, keys.key_files(copy))


def test_a_row_as_it_once_was_opens_which_the_documents_say(vault: Layout, copy: Layout) -> None:
    fresh(vault, copy)
    with closing(sqlite3.connect(copy.vault_db, isolation_level=None)) as raw, unlocked(copy) as store:
        ((sealed, version),) = raw.execute("SELECT sealed, version FROM items WHERE name = 'github'")
        store.put("credential", "work", "github", b"a newer secret", {})
        raw.execute("UPDATE items SET sealed = ? WHERE name = 'github'", (sealed,))
        with pytest.raises(TerokError, match="does not open"):
            store.get("credential", "work", "github")
        raw.execute("UPDATE items SET version = ? WHERE name = 'github'", (version,))
        check(store, "github", b"secret one")


# -- crashes --


def test_whatever_of_the_log_reached_the_disk_the_store_is_as_it_once_was(vault: Layout, copy: Layout) -> None:
    """A power cut tears the write-ahead log anywhere: what is read is a beginning of what was written, never a mix."""
    fresh(vault, copy)
    with unlocked(copy) as store:
        for number in range(1, 6):
            store.put("credential", "work", "github", b"secret %d" % number, {"number": number})
            store.add_token(f"token {number}", container="jar", scope="work", provider="github")
        log, database = Path(copy.vault_db + "-wal").read_bytes(), Path(copy.vault_db).read_bytes()
    states = []
    for end in sorted({*range(0, len(log), 1999), *range(32, len(log), 4120), len(log)}):  # 4120: a frame
        shutil.rmtree(copy.vault)
        shutil.copytree(vault.vault, copy.vault)
        Path(copy.vault_db).write_bytes(database)
        torn = log[:end] + (b"\0" * 100 if end % 2 else b"")
        Path(copy.vault_db + "-wal").write_bytes(torn)
        with unlocked(copy) as store:
            item = store.get("credential", "work", "github")
            assert item is not None
            number, given_out = item.meta.get("number", 0), len(store.tokens("jar"))
            assert item.secret == (b"secret %d" % number if number else b"secret one")
            assert item.version == number + 1 and given_out in (number, number - 1)
        states.append((number, given_out))
    assert states == sorted(states) and states[0] == (0, 0) and states[-1] == (5, 5)
    assert len(set(states)) == 11


def test_parameters_that_another_program_wrote_open_nothing(vault: Layout, copy: Layout) -> None:
    from terok_host.sidecars.store import tiers

    whole = {"salt": "00" * 16, "n": 2, "r": 1, "p": 1}
    tiers.stretch("x", whole)
    for changed in (
        {"n": "2"}, {"n": 3}, {"n": -2}, {"n": 0}, {"r": 1 << 40}, {"p": 1 << 40}, {"p": True}, {"n": 1e999},
        {"salt": "xx"}, {"salt": 5}, {"salt": None}, {"n": None},
    ):  # fmt: skip
        with pytest.raises(keys.LockedError):
            tiers.stretch("x", json.loads(json.dumps(whole | changed)))
    for tier, read in (
        (tiers.PASSPHRASE, lambda store: tiers.open_passphrase(store, "x")),
        (tiers.COMMAND, lambda store: tiers.open_command(store, {})),
        (tiers.KEYRING, tiers.open_keyring),
    ):
        damaged: tuple[dict[str, Any], ...] = ({}, {"argv": []}, {"argv": "true"}, {"argv": [5]}, {"user": 5})
        for parameters in damaged:
            fresh(vault, copy)
            with unlocked(copy) as store:
                store.set_tier(tier, b"x", parameters)
                with pytest.raises(keys.LockedError):
                    read(store)
