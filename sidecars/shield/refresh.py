"""Resolves a running container's names again: `python -I -S refresh.py BUNDLE`, started by its supervisor.

Only where no dnsmasq teaches the firewall; elsewhere it does nothing.
"""

from __future__ import annotations

import os
import sys
import types


def main() -> int:
    """Refresh the container of the bundle that the command line names; returns the exit code."""
    package = types.ModuleType("terok_host")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
    sys.modules["terok_host"] = package
    from terok_host.sidecars.shield import live
    from terok_host.sidecars.shield.bundle import read_state
    from terok_host.supervisor.ground.errors import TerokError
    from terok_host.supervisor.ground.layout import Bundle

    bundle = Bundle(sys.argv[1])
    try:
        state = read_state(bundle)
        if state.features.usable or state.model.forwarder is None:
            return 0
        live.refresh(bundle, live.Running.find(bundle))
    except TerokError as error:
        print(f"shield: names could not be resolved again: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
