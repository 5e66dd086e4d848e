"""The project file: what may stand in it, what needs trust, and that trust is of content."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from terok_host.runtime.agent.order import Order, merged, ports, volumes
from terok_host.runtime.kit import config
from terok_host.runtime.kit.config import Config
from terok_host.runtime.kit.table import escaped
from terok_host.runtime.project import FILE, connected, here, rights, schema, suggest, trust
from terok_host.runtime.project.file import Found, keys, parse, read
from terok_host.supervisor.ground.errors import Exit, TerokError
from terok_host.supervisor.ground.layout import Layout

OPERATOR = {"shield.profiles": ("a", "b"), "restricted.always": True, "agents.default": ("claude",)}
NARROW = [
    "network: none",
    "network: airlock",
    "profiles: [a]",
    "profiles: []",
    "vault: false\nssh: false\ngate: false",
    "restricted: true\nmemory: 512m\npids: 10",
    "agents: [claude]",
    "agent: codex",
]
WIDE = {
    "network: bridge": "network",
    "profiles: [a, c]": "profiles",
    "restricted: false": "restricted",
    "memory: 64g": "memory",
    "pids: 100000": "pids",
    "agents: [gh]": "agents",
    "image: docker.io/library/evil": "image",
    "containerfile: Containerfile": "containerfile",
    "scope: work": "scope",
    "scope: here": "scope",  # named like the directory, whose name the same author chose
    "allow: [evil.example]": "allow",
    "publish: ['8080:80']": "publish",
    "mounts: ['~/Documents:/docs']": "mounts",
    "environment: {LD_PRELOAD: /workspace/x.so}": "environment",
}
WRONG = [
    "agent: [a]",
    "agent: ../x",
    "allow: example.com",
    "allow: ['not a host']",
    "allow: [169.254.169.254]",
    "publish: [http]",
    "mounts: [relative]",
    "mounts: ['/a:b']",
    "containerfile: ../Containerfile",
    "containerfile: /etc/passwd",
    "environment: {A-B: x}",
    "environment: {A: 1}",
    "environment: {TEROK_GATE_TOKEN: x}",
    'environment: {A: "x\\ny"}',
    "network: host",
    "pids: 0",
    "pids: true",
    "memory: lots",
    "restricted: 1",
    "unknown: 1",
    "agent: a\nagent: b",
    "[1]",
    "image: a\ncontainerfile: b",
    "- !!python/object:os.system x",
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "here"
    directory.mkdir()
    return directory


def operator(tmp_path: Path, values: dict[str, object] | None = None) -> Config:
    return config.build(Layout(str(tmp_path / "data"), "/run", "/config"), OPERATOR if values is None else values)


def found(place: Path, text: str) -> Found:
    (place / FILE).write_text(text)
    (place / "Containerfile").write_text("FROM ${AGENT_IMAGE}\n")
    known = read(str(place))
    assert known is not None
    return known


@pytest.mark.parametrize("text", NARROW)
def test_a_project_may_narrow(tmp_path: Path, place: Path, text: str) -> None:
    trust.require(found(place, text), operator(tmp_path))


@pytest.mark.parametrize(("text", "key"), WIDE.items())
def test_what_widens_needs_trust(tmp_path: Path, place: Path, text: str, key: str) -> None:
    cfg, known = operator(tmp_path), found(place, text)
    assert {each.key for each in trust.judged(known, cfg)} == {key}
    with pytest.raises(TerokError) as caught:
        trust.require(known, cfg)
    assert caught.value.code == Exit.REFUSED
    assert caught.value.fix == f"terok trust {place}"
    trust.remember(cfg.layout, known)
    trust.require(known, cfg)


def test_every_key_is_judged() -> None:
    assert set(keys()) == {*rights.CONFIGURED, *rights.ASKING, "agent"}
    assert set(rights.CONFIGURED) == set(rights.NARROWER)
    assert {text.partition(":")[0] for text in WIDE} >= set(rights.ASKING)
    assert set(rights.CONFIGURED.values()) <= set(config.keys())


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(TerokError) as caught:
        parse(text, FILE)
    assert caught.value.code == Exit.USAGE
    assert FILE in caught.value.what


def test_trust_ends_with_every_change_of_content(tmp_path: Path, place: Path) -> None:
    cfg = operator(tmp_path)
    known = found(place, "containerfile: Containerfile\n")
    trust.remember(cfg.layout, known)
    (place / "Containerfile").write_text("FROM evil\n")
    changed = read(str(place))
    assert changed is not None
    assert not trust.is_trusted(cfg.layout, changed)
    assert trust.diff(cfg.layout, changed)[-2:] == ["-FROM ${AGENT_IMAGE}", "+FROM evil"]
    assert trust.is_trusted(cfg.layout, known)
    assert trust.forget(cfg.layout, str(place)) is True
    assert not trust.is_trusted(cfg.layout, known)


def test_trust_is_of_one_directory(tmp_path: Path, place: Path) -> None:
    cfg = operator(tmp_path)
    trust.remember(cfg.layout, found(place, "scope: work\n"))
    other = tmp_path / "other"
    other.mkdir()
    assert not trust.is_trusted(cfg.layout, found(other, "scope: work\n"))


def test_a_scope_that_the_directory_uses_needs_no_trust(tmp_path: Path, place: Path) -> None:
    cfg, known = operator(tmp_path), found(place, "scope: work\n")
    trust.require(known, cfg, scope="work")
    connected.connect(cfg.layout, str(place), "work")
    trust.require(known, cfg)
    assert trust.forget(cfg.layout, str(place)) is True
    assert trust.judged(known, cfg)


def test_what_is_trusted_with_a_scope_may_use_it(tmp_path: Path, place: Path) -> None:
    cfg = operator(tmp_path)
    trust.remember(cfg.layout, found(place, "allow: [a.example]\n"))
    assert connected.scopes(cfg.layout, str(place)) == []
    trust.remember(cfg.layout, found(place, "scope: work\n"))
    assert connected.scopes(cfg.layout, str(place)) == ["work"]


def test_the_scope_used_last_comes_first(tmp_path: Path, place: Path) -> None:
    layout = operator(tmp_path).layout
    for scope in ("one", "two", "one"):
        connected.connect(layout, str(place), scope)
    assert connected.scopes(layout, str(place)) == ["one", "two"]
    assert connected.directories(layout, "two") == [str(place)]
    assert connected.directories(layout, "three") == []


def test_another_directory_in_its_place_uses_no_scope(tmp_path: Path, place: Path) -> None:
    layout = operator(tmp_path).layout
    connected.connect(layout, str(place), "work")
    for _ in range(20):  # file systems give a freed inode to the next directory
        place.rmdir()
        place.mkdir()
        assert connected.scopes(layout, str(place)) == []
    connected.connect(layout, str(place), "other")
    assert connected.scopes(layout, str(place)) == ["other"]


def test_a_moved_directory_and_a_link_to_one_use_no_scope(tmp_path: Path, place: Path) -> None:
    layout = operator(tmp_path).layout
    connected.connect(layout, str(place), "work")
    moved = place.rename(tmp_path / "moved")
    assert connected.scopes(layout, str(moved)) == []
    place.symlink_to(moved)
    assert connected.scopes(layout, str(place)) == []
    place.unlink()
    moved.rename(place)
    assert connected.scopes(layout, str(place)) == ["work"]


def test_a_damaged_record_gives_no_scope(tmp_path: Path, place: Path) -> None:
    layout = operator(tmp_path).layout
    connected.connect(layout, str(place), "work")
    path = Path(layout.connection_file(str(place)))
    whole = json.loads(path.read_text())
    for record in ("", "[]", json.dumps({**whole, "scopes": "work"}), json.dumps({**whole, "origin": None})):
        path.write_text(record)
        assert connected.scopes(layout, str(place)) == []


def test_no_text_moves_between_the_two_files() -> None:
    empty = parse("", FILE)
    assert Found("/x", empty, "ab", "c").digest != Found("/x", empty, "a", "bc").digest


@given(st.text(alphabet=st.characters(exclude_characters="\n")))
def test_what_is_shown_cannot_drive_a_terminal(line: str) -> None:
    shown = escaped(line)
    assert shown.isprintable() or not shown
    assert "\x1b" not in shown
    assert "\u202e" not in escaped("a\u202eb")


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "large", "bytes"])
def test_a_file_that_is_none_does_not_hold_the_start(place: Path, kind: str) -> None:
    import os

    path = place / FILE
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/dev/zero")
        case "directory":
            path.mkdir()
        case "large":
            path.write_text("#" * 70000)
        case "bytes":
            path.write_bytes(b"\xff\xfe")
    with pytest.raises(TerokError) as caught:
        read(str(place))
    assert caught.value.code == Exit.USAGE


def test_a_containerfile_stays_in_the_project(tmp_path: Path, place: Path) -> None:
    (tmp_path / "secret").write_text("KEY")
    (place / "Containerfile").symlink_to(tmp_path / "secret")
    (place / FILE).write_text("containerfile: Containerfile\n")
    with pytest.raises(TerokError, match="leads out"):
        read(str(place))


def test_run_takes_what_replaces_the_configuration_and_ignores_the_rest(tmp_path: Path, place: Path) -> None:
    cfg = operator(tmp_path)
    assert here.applied(cfg, str(place)) is cfg
    (place / FILE).write_text("profiles: [a]\nallow: [api.example.com]\nscope: work\n")
    assert here.applied(cfg, str(place)).shield.profiles == ("a",)
    (place / FILE).write_text("profiles: [c]\n")
    with pytest.raises(TerokError) as caught:
        here.applied(cfg, str(place))
    assert caught.value.code == Exit.REFUSED


def test_the_operators_words_win_and_lists_are_put_together(place: Path) -> None:
    known = found(place, "agent: codex\nscope: work\nimage: one\nallow: [a.example]\nmounts: ['docs:/docs']\n")
    order = merged(Order("claude", scope="mine", image="two", allow=("b.example",), mounts=((".:/x", "/"),)), known)
    assert (order.agent, order.scope, order.image) == ("claude", "mine", "two")
    assert order.allow == ("a.example", "b.example")
    assert order.mounts == (("docs:/docs", str(place)), (".:/x", "/"))
    assert merged(Order(""), known).agent == "codex"


def test_mounts_are_absolute_and_never_the_home(tmp_path: Path, place: Path) -> None:
    (place / "docs").mkdir()
    assert volumes(Order("x", mounts=(("docs:/docs:ro", str(place)),)), "/home/me") == [f"{place}/docs:/docs:ro,z"]
    for mount, code in (("gone:/x", Exit.NOT_FOUND), ("..:/x", Exit.REFUSED), ("docs:/x:rx", Exit.USAGE)):
        with pytest.raises(TerokError) as caught:
            volumes(Order("x", mounts=((mount, str(place)),)), str(tmp_path))
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("given_text", "words"),
    [
        ("80", "127.0.0.1:80:80"),
        ("8080:80", "127.0.0.1:8080:80"),
        ("53/udp", "127.0.0.1:53:53/udp"),
        ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
        ("[::1]:8080:80", "[::1]:8080:80"),
    ],
)
def test_ports_are_this_machines_own(given_text: str, words: str) -> None:
    parse(f"publish: ['{given_text}']", FILE)
    assert ports(Order("x", publish=(given_text,))) == [words]


def test_the_written_file_is_read_back(place: Path) -> None:
    for name in ("package.json", "requirements-dev.txt", "Cargo.toml"):
        (place / name).touch()
    languages = suggest.languages(suggest.names_in(str(place)))
    assert languages == ["JavaScript", "Python", "Rust"]
    text = suggest.text("claude", languages, ("dev-standard",), "file:///schema.json")
    said = parse(text, FILE)
    assert (said.agent, said.profiles) == ("claude", ("dev-standard", "dev-node", "dev-python"))
    assert text.startswith("# yaml-language-server: $schema=file:///schema.json\n")
    assert all(re.search(rf"^#? ?{name}:", text, re.MULTILINE) for name in keys())
    assert parse(suggest.text("", [], ("dev-standard",), "x"), FILE) == parse("", FILE)


def test_every_suggested_profile_exists() -> None:
    from terok_host.sidecars.shield.profiles import available

    assert {profile for profile, _ in suggest.LANGUAGES.values() if profile} <= set(available(None))


def accepts(text: str) -> bool:
    """What an editor with the schema says, for the words of JSON Schema that it uses."""
    document = json.loads(schema.text())
    data = yaml.safe_load(text)
    if data is None:
        return True
    if not isinstance(data, dict) or not set(data) <= set(document["properties"]):
        return False
    if {"image", "containerfile"} <= set(data):
        return False
    return all(matches(document["properties"][name], value) for name, value in data.items())


def matches(rule: dict[str, object], value: object) -> bool:
    kinds = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict}
    if "enum" in rule and value not in rule["enum"]:  # type: ignore[operator]  # a list
        return False
    if "type" in rule and (
        not isinstance(value, kinds[str(rule["type"])]) or rule["type"] == "integer" and value is True
    ):
        return False
    if "pattern" in rule and not re.search(str(rule["pattern"]), str(value)):
        return False
    if "minimum" in rule and value < rule["minimum"]:  # type: ignore[operator]  # an integer
        return False
    if isinstance(value, list):
        return all(matches(rule["items"], each) for each in value)  # type: ignore[arg-type]  # a schema
    if isinstance(value, dict):
        names = all(matches(rule["propertyNames"], name) for name in value)  # type: ignore[arg-type]  # a schema
        return names and all(matches(rule["additionalProperties"], each) for each in value.values())  # type: ignore[arg-type]  # a schema
    return True


@pytest.mark.parametrize("text", [*NARROW, *WIDE])
def test_the_schema_accepts_what_the_reader_accepts(text: str) -> None:
    assert accepts(text)


SAID_BY_THE_READER_ALONE = ("allow: ['not a host']", "allow: [169.254.169.254]", "agent: a\nagent: b", "- !!python")


@pytest.mark.parametrize("text", [text for text in WRONG if not text.startswith(SAID_BY_THE_READER_ALONE)])
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    assert not accepts(text)
