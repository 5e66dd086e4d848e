"""The sidecar JSON: everything that is not exactly right is refused, with the reason."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terok_host.supervisor import schema
from terok_host.supervisor.schema import SidecarError


def document(root: str, runtime: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "container": "web",
        "scope": "proj",
        "bundle": f"{root}/web",
        "runtime_dir": f"{runtime}/web",
        "sidecars": [
            {
                "name": "vault",
                "start": "demand",
                "idle_seconds": 300,
                "listeners": [
                    {"kind": "unix", "path": f"{runtime}/web/vault.sock"},
                    {"kind": "netns", "port": 9419},
                    {"kind": "tcp", "port": 40000},
                ],
                "settings": {"store": "/x"},
            }
        ],
        "mounts": [{"source": f"{runtime}/web", "target": "/run/terok", "read_only": True}],
        "shield": {
            "ruleset": f"{root}/web/ruleset.nft",
            "expected": f"{root}/web/ruleset.json",
            "dnsmasq_conf": f"{root}/web/dnsmasq.conf",
            "probe": "probe.invalid",
        },
    }


PLAIN = document("/data/containers", "/run/user/1/terok")


def test_a_right_document_is_read_whole() -> None:
    wiring = schema.parse(PLAIN)
    assert (wiring.container, wiring.scope, wiring.runtime_dir) == ("web", "proj", "/run/user/1/terok/web")
    assert [listener.kind for listener in wiring.sidecars[0].listeners] == ["unix", "netns", "tcp"]
    assert wiring.shield is not None and wiring.shield.probe == "probe.invalid"


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(data: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = data
        for step in way:
            place = place[int(step)] if step.isdigit() else place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("schema", 2, "understands 1"),
        ("schema", 0, "never existed"),
        ("schema", True, "wrong type"),
        ("schema", "1", "wrong type"),
        ("container", "a/b", "not a usable name"),
        ("container", "..", "not a usable name"),
        ("container", "-rm", "not a usable name"),
        ("container", "x" * 129, "not a usable name"),
        ("container", "other", "directories are not those of container"),
        ("container", 7, "wrong type"),
        ("container", None, "lacks container"),
        ("scope", "../up", "not a usable name"),
        ("bundle", "web", "not an absolute, plain path"),
        ("bundle", "/data/../containers/web", "not an absolute, plain path"),
        ("bundle", "/data/web\0", "not an absolute, plain path"),
        ("runtime_dir", "/run/user/1/terok/other", "directories are not those"),
        ("sidecars", {}, "wrong type"),
        ("sidecars", ["vault"], "not a list of objects"),
        ("sidecars.0.name", "sh", "unknown sidecar"),
        ("sidecars.0.start", "never", "neither demand nor eager"),
        ("sidecars.0.idle_seconds", -1, "negative"),
        ("sidecars.0.idle_seconds", 1.5, "wrong type"),
        ("sidecars.0.settings", [], "wrong type"),
        ("sidecars.0.surprise", 1, "unknown key"),
        ("sidecars.0.listeners.0.path", "/etc/vault.sock", "not a socket in the runtime directory"),
        ("sidecars.0.listeners.0.path", "/run/user/1/terok/web/" + "x" * 100, "not a socket in the runtime directory"),
        ("sidecars.0.listeners.0.kind", "abstract", "kind is unknown"),
        ("sidecars.0.listeners.0.kind", "handover", "not the socket for hand-over"),
        ("sidecars.0.listeners.1.port", 0, "not a number from 1 to 65535"),
        ("sidecars.0.listeners.1.port", 65536, "not a number from 1 to 65535"),
        ("sidecars.0.listeners.1.port", "22", "wrong type"),
        ("mounts.0.source", "etc", "not an absolute, plain path"),
        ("mounts.0.target", "/run/../etc", "not an absolute, plain path"),
        ("mounts.0.read_only", 1, "wrong type"),
        ("shield.ruleset", "/etc/passwd", "does not lie in the bundle"),
        ("shield.dnsmasq_conf", "/etc/dnsmasq.conf", "does not lie in the bundle"),
        ("shield.probe", None, "lacks shield.probe"),
        ("surprise", 1, "unknown key"),
    ],
)
def test_each_wrong_value_is_refused_with_its_reason(path: str, value: Any, says: str) -> None:
    data = copy.deepcopy(PLAIN)
    change(path, value)(data)
    with pytest.raises(SidecarError, match=says):
        schema.parse(data)


def test_the_socket_for_hand_over_lies_beside_the_runtime_directory() -> None:
    data = copy.deepcopy(PLAIN)
    data["sidecars"][0]["listeners"].append({"kind": "handover", "path": "/run/user/1/terok/.handover/web"})
    assert schema.parse(data).sidecars[0].listeners[-1].kind == "handover"
    for wrong in ("/run/user/1/terok/.handover/other", "/run/user/1/terok/web/handover", "/tmp/web"):
        data["sidecars"][0]["listeners"][-1]["path"] = wrong
        with pytest.raises(SidecarError, match="not the socket for hand-over"):
            schema.parse(data)


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_what_is_not_an_object_is_refused(data: object) -> None:
    with pytest.raises(SidecarError, match="not an object"):
        schema.parse(data)


def test_a_sidecar_named_twice_is_refused() -> None:
    data = copy.deepcopy(PLAIN)
    data["sidecars"].append(copy.deepcopy(data["sidecars"][0]))
    with pytest.raises(SidecarError, match="twice"):
        schema.parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*PLAIN, "x"]), inner, max_size=9),
    max_leaves=20,
)


@given(JSON)
def test_no_document_does_anything_but_parse_or_be_refused(data: object) -> None:
    try:
        schema.parse(data)
    except SidecarError:
        pass


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = tmp_path / "web"
    made.mkdir(mode=0o700)
    return made


def write(bundle: Path, content: bytes | None = None) -> Path:
    path = bundle / "sidecar.json"
    right = json.dumps(document(str(bundle.parent), "/run/user/1/terok")).encode()
    path.write_bytes(right if content is None else content)
    path.chmod(0o600)
    return path


def test_a_private_file_is_loaded(bundle: Path) -> None:
    assert schema.load(str(write(bundle))).bundle.root == str(bundle)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
    ],
)
def test_content_that_is_not_the_document_is_refused(bundle: Path, content: bytes, says: str) -> None:
    with pytest.raises(SidecarError, match=says):
        schema.load(str(write(bundle, content)))


def test_ten_megabytes_are_refused_without_being_parsed(bundle: Path) -> None:
    with pytest.raises(SidecarError, match="larger than 1 MiB"):
        schema.load(str(write(bundle, b" " * (10 << 20))))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(bundle: Path, mode: int) -> None:
    path = write(bundle)
    path.chmod(mode)
    with pytest.raises(SidecarError, match="written by others.*chmod go-w"):
        schema.load(str(path))


def test_a_directory_that_others_can_write_is_refused(bundle: Path) -> None:
    path = write(bundle)
    bundle.chmod(0o770)
    with pytest.raises(SidecarError, match="written by others"):
        schema.load(str(path))


def test_a_link_is_refused(bundle: Path) -> None:
    real = write(bundle)
    real.rename(bundle / "real.json")
    real.symlink_to(bundle / "real.json")
    with pytest.raises(SidecarError, match="cannot be opened"):
        schema.load(str(real))


def test_a_fifo_is_refused_and_does_not_hang(bundle: Path) -> None:
    os.mkfifo(bundle / "sidecar.json", 0o600)
    with pytest.raises(SidecarError, match="not a regular one"):
        schema.load(str(bundle / "sidecar.json"))


@pytest.mark.parametrize("path", ["sidecar.json", "", "/a/../b.json", "/a/.."])
def test_a_path_that_is_not_absolute_and_plain_is_refused(path: str) -> None:
    with pytest.raises(SidecarError, match="not absolute and plain"):
        schema.load(path)


def test_a_missing_file_names_the_command_that_mends_it(bundle: Path) -> None:
    with pytest.raises(SidecarError, match="terok prepare"):
        schema.load(str(bundle / "sidecar.json"))


def test_a_copy_outside_of_its_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    content = write(bundle).read_bytes()
    other = tmp_path / "elsewhere"
    other.mkdir(mode=0o700)
    with pytest.raises(SidecarError, match="does not lie in the bundle"):
        schema.load(str(write(other, content)))
