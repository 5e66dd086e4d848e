"""What the poststop hook has deleted, without Podman: a shell stands for it, and a directory for its storage."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from terok_host.supervisor.ground import layout
from terok_host.supervisor.ground.layout import Layout
from tests.lab.waiting import until

ENTRY = layout.program("hookbin", "entry.py")
NAME = "0123456789ab"


class Ended:
    """A container that has just ended: its bundle, Podman's directory of it, and a podman that runs the hook."""

    def __init__(self, base: Path) -> None:
        self.places = Layout(*(str(base / part) for part in ("data", "run", "config")))
        for folder in (self.places.data, self.places.runtime, self.places.config, self.places.containers):
            os.makedirs(folder, 0o700)
        self.bundle = self.places.bundle(NAME)
        self.storage = base / "overlay-containers" / "userdata"
        self.storage.mkdir(parents=True)
        self.write()

    def write(self) -> None:
        os.makedirs(self.bundle.root, 0o700, exist_ok=True)
        document = {
            "schema": 1,
            "container": NAME,
            "scope": None,
            "bundle": self.bundle.root,
            "runtime_dir": self.places.runtime_dir(NAME),
            "sidecars": [],
            "mounts": [],
            "shield": None,
        }
        temporary = Path(self.bundle.file("new"))
        temporary.write_text(json.dumps(document))
        temporary.chmod(0o600)
        temporary.replace(self.bundle.sidecar)

    def poststop(self, then: str) -> None:
        """Run the hook as a child of a shell, which does something more before it ends."""
        annotations = {layout.ANNOTATION_SIDECAR: self.bundle.sidecar}
        state = {"id": NAME, "status": "stopped", "bundle": str(self.storage), "annotations": annotations}
        places = (self.places.data, self.places.runtime, self.places.config)
        hook = shlex.join([sys.executable, "-I", "-S", ENTRY, "poststop", *places])
        done = subprocess.run(
            ["sh", "-c", f"{hook}; {then}"], input=json.dumps(state).encode(), timeout=30, check=False
        )
        assert done.returncode == 0

    def forgetting(self) -> bool:
        """Whether the process is at work that deletes the bundle."""
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and str(self.storage).encode() in (folder / "cmdline").read_bytes().split(
                    b"\0"
                ):
                    return True
            except OSError:
                continue
        return False


@pytest.fixture
def ended(tmp_path: Path) -> Ended:
    return Ended(tmp_path)


def test_a_bundle_that_serves_once_goes_with_its_container(ended: Ended) -> None:
    Path(ended.bundle.once).touch()
    ended.poststop(f"rm -r {ended.storage}")
    until(lambda: not os.path.exists(ended.bundle.root), within=15)


def test_it_stays_while_podman_keeps_the_container(ended: Ended) -> None:
    Path(ended.bundle.once).touch()
    ended.poststop("true")
    until(lambda: not ended.forgetting(), within=15)
    assert os.path.exists(ended.bundle.sidecar)


def test_it_stays_when_a_new_container_of_its_name_was_prepared_meanwhile(ended: Ended) -> None:
    Path(ended.bundle.once).touch()
    ended.poststop(
        f"rm -r {ended.storage}; cp {ended.bundle.sidecar} x; mv x {ended.bundle.sidecar}".replace(
            " x", f" {ended.bundle.root}/x"
        )
    )
    until(lambda: not ended.forgetting(), within=15)
    assert os.path.exists(ended.bundle.sidecar)


def test_a_prepared_bundle_stays_and_nothing_is_started(ended: Ended) -> None:
    ended.poststop(f"rm -r {ended.storage}")
    assert not ended.forgetting() and os.path.exists(ended.bundle.sidecar)
