"""State bundles written by hand, as small as the schema allows: for tests of the hooks and the supervisor alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from terok_host.supervisor.ground.layout import ANNOTATION_SIDECAR, IN_CONTAINER

from .house import House


def minimal(house: House, name: str) -> dict[str, Any]:
    """The sidecar JSON of a container without any service: the runtime directory is mounted, and that is all."""
    runtime_dir = house.layout.runtime_dir(name)
    return {
        "schema": 1,
        "container": name,
        "scope": None,
        "bundle": house.bundle(name).root,
        "runtime_dir": runtime_dir,
        "sidecars": [],
        "mounts": [{"source": runtime_dir, "target": IN_CONTAINER, "read_only": True}],
        "shield": None,
    }


def with_signer(house: House, name: str) -> dict[str, Any]:
    """A sidecar JSON with one service that nobody connects to: listening sockets of both kinds are held."""
    wiring = minimal(house, name)
    wiring["sidecars"] = [
        {
            "name": "ssh",
            "start": "demand",
            "idle_seconds": 300,
            "listeners": [
                {"kind": "unix", "path": f"{wiring['runtime_dir']}/ssh-agent.sock"},
                {"kind": "netns", "port": 9419},
            ],
            "settings": {},
        }
    ]
    return wiring


def write(house: House, name: str, wiring: Any) -> Path:
    """Make the bundle with this sidecar JSON (bytes as they are, else encoded); returns its path."""
    root = Path(house.bundle(name).root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = Path(house.bundle(name).sidecar)
    path.write_bytes(wiring if isinstance(wiring, bytes) else json.dumps(wiring).encode())
    path.chmod(0o600)
    return path


def annotation(path: Path | str) -> str:
    """The podman flag that makes the hooks look at this sidecar JSON."""
    return f"--annotation={ANNOTATION_SIDECAR}={path}"
