"""Starts a container with the Python API, waits for its end, and shows what it did and was refused.

    python launch.py NAME SCOPE IMAGE COMMAND...

`compose` writes the wiring and returns Podman's flags; everything else is Podman's, and yours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from terok_host.runtime import launch
from terok_host.runtime.kit.config import load
from terok_host.supervisor.ground.errors import TerokError


def main(name: str, scope: str, image: str, *command: str) -> int:
    """Run one command in a container of its own; returns its exit code."""
    cfg = load(os.environ)
    try:
        flags, plan = launch.compose(name, cfg=cfg, shield=True, gate=False, broker=True, scope=scope)
        launch.reject_managed_flags([image, *command])
    except TerokError as error:
        print(error, file=sys.stderr)
        return error.code
    print("active:", json.dumps(plan.to_dict()))
    try:
        done = subprocess.run(["podman", "run", "--rm", *flags, image, *command], check=False)
        audit = os.path.join(launch.run_state_dir(cfg, name), "audit.jsonl")
        if os.path.exists(audit):
            with open(audit, encoding="utf-8") as lines:
                sys.stdout.writelines(lines)
        return done.returncode
    finally:
        launch.cleanup(name, cfg=cfg)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
