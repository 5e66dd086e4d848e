"""Deletes the bundle of a container that Podman removes; started by the poststop hook, and not waited for.

`python -I -S forget.py DATA RUNTIME CONFIG NAME STAMP OCI-BUNDLE PID START`: STAMP is when its sidecar JSON was
written, PID and START name the podman that runs the hook. Podman removes a container after its poststop hooks, and
starts it again after them at `podman restart`: which of the two, its storage tells when that podman has ended.
"""

from __future__ import annotations

import os
import sys
import types

PODMAN_SECONDS = 20.0
"""How long that podman may take; a service (`podman system service`) does not end."""
REMOVAL_SECONDS = 2.0
"""How long another podman may take after it to remove the container, as `podman rm --force` does."""


def main() -> int:
    """Wait, and delete what no container uses any more. Imports are few until it is known that there is work."""
    package = types.ModuleType("terok_host")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
    sys.modules["terok_host"] = package
    from terok_host.supervisor.ground import kernel
    from terok_host.supervisor.ground.pids import Process, wait_gone

    data, runtime, config, name, stamp, oci_bundle, pid, start = sys.argv[1:9]
    podman = Process(int(pid), int(start)).open()
    try:
        deleted = kernel.watch_deletion(oci_bundle)
        if podman is not None:
            wait_gone(podman, PODMAN_SECONDS)
        wait_gone(deleted, REMOVAL_SECONDS)  # any descriptor that becomes readable once
    except OSError:
        pass  # it is deleted already, or no watch is left: then only what is over now counts
    if os.path.exists(oci_bundle):
        return 0
    from terok_host.supervisor.ground.bootstrap import find_packages

    find_packages()
    from terok_host.runtime.kit.config import load_at
    from terok_host.runtime.launch.teardown import forget
    from terok_host.supervisor.ground.errors import TerokError
    from terok_host.supervisor.ground.layout import Layout

    try:
        forget(name, int(stamp), cfg=load_at(Layout(data, runtime, config)))
    except TerokError as error:
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
