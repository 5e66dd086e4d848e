"""What is deleted by itself when Podman removes a container, what stays, and what `terok status` shows of the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import scope
from tests.lab.house import House
from tests.lab.waiting import until

PATIENT = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
ANNOTATION = f"--annotation=terok.scope={scope.SCOPE}"


def bundles(house: House) -> set[str]:
    folder = Path(house.layout.containers)
    return {path.name for path in folder.iterdir() if path.is_dir()} if folder.exists() else set()


@pytest.fixture
def furnished(house: House, name: str) -> Iterator[str]:
    scope.furnish(house)
    yield name
    house.podman("rm", "--force", "--time", "0", "--ignore", name)
    left = bundles(house)
    if left:
        house.terok("cleanup", *left)


def test_a_container_by_annotation_that_removes_itself_leaves_no_bundle(house: House, furnished: str) -> None:
    for end in ("kill", "stop"):
        done = house.podman("run", "--rm", "--detach", "--name", furnished, ANNOTATION, house.image, *PATIENT)
        assert bundles(house) == {done.stdout.strip()[:12]}
        house.podman(*(("kill", furnished) if end == "kill" else ("stop", "--time", "0", furnished)))
        until(lambda: not bundles(house), within=10)


def test_a_container_by_annotation_keeps_its_bundle_until_it_is_removed(house: House, furnished: str) -> None:
    house.podman("run", "--detach", "--name", furnished, ANNOTATION, house.image, *PATIENT)
    house.podman("restart", "--time", "0", furnished)
    house.podman("stop", "--time", "0", furnished)
    house.podman("start", furnished)
    assert "vault.sock" in house.podman("exec", furnished, "ls", "/run/terok").stdout
    house.podman("rm", "--force", "--time", "0", furnished)
    until(lambda: not bundles(house), within=10)


def test_run_with_rm_leaves_nothing_and_prepare_stays(house: House, furnished: str) -> None:
    house.terok("run", furnished, "--scope", scope.SCOPE, "--", "--rm", house.image, "true")
    until(lambda: not bundles(house), within=10)
    flags = json.loads(house.terok("prepare", furnished, "--json").stdout)
    for _ in range(2):  # as a Quadlet unit does it
        house.podman("run", "--rm", *flags, house.image, "true")
    assert bundles(house) == {furnished}


def test_a_container_that_was_prepared_again_at_once_keeps_its_new_bundle(house: House, furnished: str) -> None:
    for _ in range(5):
        house.terok("run", furnished, "--", "--rm", house.image, "true")
    house.terok("run", furnished, "--", "--rm", "--detach", house.image, *PATIENT)
    assert os.path.exists(house.bundle(furnished).sidecar)
    assert json.loads(house.terok("status", furnished, "--json").stdout)["containers"][0]["state"] == "running"


def test_status_counts_stopped_containers_that_pass_by(house: House, furnished: str) -> None:
    identity = house.podman("run", "--detach", "--name", furnished, ANNOTATION, house.image, *PATIENT).stdout[:12]
    assert identity in house.terok("status").stdout
    house.podman("stop", "--time", "0", furnished)
    said = house.terok("status").stdout
    assert identity not in said and "1 stopped, started by annotations or with --rm: terok status --all" in said
    assert identity in house.terok("status", "--all").stdout
    assert identity in house.terok("status", identity).stdout
